"""What an exported student is worth: each row of the table in the manual's page on deployment, from finished runs.

    python tests/bench/deploy.py given OUT --weights resnet20.th --root DIR     # given weights, for an image folder
    python tests/bench/deploy.py measure RUN [RUN ...] [--samples N]            # fp32, int8: equality, bytes, speed
    python tests/bench/deploy.py range RUN [--samples N]                        # int8 with and without reduce_range
    python tests/bench/deploy.py overflow RUN [--samples N]                     # the same as a CPU without VNNI adds it up

A run is any folder or file that `distill export` takes, a prepared teacher's too. `measure` holds the file in batches of 1, 2, 64
and 257 against the student on test, and measures speed in turn on one thread. `--samples`: so many of test, evenly spaced, where
all would take too long; an export is held against the whole of it anyway. `overflow` adds up in torch what vpmaddubsw would.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from distill_cli import models
from distill_cli.base.runtime import prepare
from distill_cli.cli import main as distill
from distill_cli.data import PictureSpec
from distill_cli.deploy import exporting, graph, quantization
from distill_cli.deploy.judged import data_of, run_of
from distill_cli.deploy.predictor import Predictor
from distill_cli.deploy.verification import compared
from distill_cli.models import calibration, foreign, quantized
from distill_cli.models.deployable import Deployable

BATCHES = (1, 2, 64, 257)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # by which the weights for CIFAR-10 were trained


def given(out: Path, weights: Path, root: Path) -> None:
    """A folder with a ResNet-20 of given weights, as a run leaves its student."""
    classes = sorted(path.name for path in (root / "train").iterdir())
    spec = PictureSpec(3, (32, 32), *IMAGENET)
    node = {"_target_": "distill_cli.models.resnet.SmallResNet", "depth": 20, "widths": [16, 16, 32, 64],
            "shortcut": "A", "in_channels": None}  # fmt: skip
    model = models.build(node, "student", spec, len(classes))
    model.net.load_state_dict(foreign.take(weights, model.net, "student", fitted=True).state)
    dataset = {"_target_": "distill_cli.data.folder.image_folder", "root": str(root.absolute()), "size": 32}
    card = {"format": 1, "role": "student", "names": {"dataset": root.name, "model": "resnet20"}, "model": node,
            "classes": classes, "input": spec.as_card(), "dataset": dataset}  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    Deployable(card, model).write(out)


def measure(run: Path, samples: int | None) -> None:
    """Export a run in fp32 and int8 and print what was found."""
    codes = [distill(["export", f"ckpt={run}", f"precision={p}", "threads=1", "device=cpu"]) for p in ("fp32", "int8")]
    student, data = _read(run)
    test = _some(data.test, samples)
    home = (run_of(student) or run) / "export"
    made = Predictor.read(home / "fp32")
    expected = torch.cat(
        [values for _, values in student.answers(test)]
    )  # of a picture at a time they would take an hour
    theirs = replace(test, source=made.spec.reads(test.source), spec=made.spec)
    for batch in BATCHES:
        values = torch.cat([values for _, values in made.answers(theirs, batch)])
        equal = int((values.argmax(-1) == expected.argmax(-1)).sum())
        largest = float((values - expected).abs().max())
        told = {"run": run.name, "batch": batch, "samples": len(test), "equal": equal, "largest": largest}
        print(json.dumps(told), flush=True)
    for name, code in zip(("fp32", "int8"), codes, strict=True):
        told = home / name / "export.json"
        print(json.dumps({"run": run.name, "precision": name, "code": code}), told.read_text() if code == 0 else "")
    print((home / "speed.json").read_text())


def ranges(run: Path, samples: int | None) -> None:
    """Agreement of int8 with fp32 on test, with weights of 7 bits and of 8."""
    student, data = _read(run)
    test = _some(data.test, samples)
    for reduced in (True, False):
        model = quantization.measured(
            graph.onnx_of(student.network), quantization.Calibration(data.train, 256), reduced
        )
        about = exporting._about(student, "int8", {})
        found = compared(student, exporting._loaded(student, graph.marked(model, about)), test)
        print(json.dumps({"run": run.name, "reduce_range": reduced, **found.facts()}), flush=True)


def overflow(run: Path, samples: int | None) -> None:
    """Agreement with fp32 on test of weights of 7 bits and of 8, and of the latter with products added up in 16 bits."""
    student, data = _read(run)
    test = _some(data.test, samples)
    exact = quantized.Quantized.compute
    for largest, way in ((64, exact), (127, exact), (127, saturating)):
        calibration.LARGEST = largest  # type: ignore[misc]
        made = copy.deepcopy(student.network)
        calibration.quantize(made, data.train)
        quantized.Quantized.compute = way  # type: ignore[method-assign]
        found = compared(student, Predictor(student.card, made), test)
        quantized.Quantized.compute = exact  # type: ignore[method-assign]
        print(json.dumps({"weights to": largest, "added": way.__name__, **found.facts()}), flush=True)


def saturating(layer: Any, inputs: Tensor, weight: Tensor) -> Tensor:
    """A layer's output where products of neighbouring channels are added to 16 bits, as by vpmaddubsw."""
    zero, scales, taken = int(layer.zero_point), layer.scales(), inputs / layer.scale
    whole = (weight / scales.view(-1, *[1] * (weight.dim() - 1))).round()
    if isinstance(layer, torch.nn.Linear):
        columns, size = taken.round()[:, :, None], ()
    else:
        columns = torch.nn.functional.unfold(
            taken.round(), layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        columns = columns.unflatten(1, (weight.shape[1], -1)).transpose(1, 2).flatten(1, 2)  # channels last
        whole = whole.flatten(2).transpose(1, 2)
        size = tuple((side + 2 * p - k) // s + 1 for side, p, k, s in zip(
            inputs.shape[2:], layer.padding, layer.kernel_size, layer.stride, strict=True))  # fmt: skip
    columns, whole = columns + zero, whole.flatten(1)
    if whole.shape[1] % 2:
        columns, whole = (torch.nn.functional.pad(one, pad) for one, pad in ((columns, (0, 0, 0, 1)), (whole, (0, 1))))
    even, odd = columns[:, ::2], columns[:, 1::2]
    sums = [(even * row[::2, None] + odd * row[1::2, None]).clamp_(-(2**15), 2**15 - 1).sum(1) for row in whole]
    added = torch.stack(sums, 1) - zero * whole.sum(1)[:, None]
    output = added * (layer.scale * scales)[:, None] + (0 if layer.bias is None else layer.bias[:, None])
    return output[:, :, 0] if not size else output.unflatten(2, size)


def _some(split: Any, number: int | None) -> Any:
    """So many samples of a split, evenly spaced: those of a folder lie class by class."""
    number = min(len(split), number or len(split))
    return split.take(torch.arange(number) * len(split) // number)


def _read(run: Path) -> tuple[Predictor, Any]:
    student = Predictor.read(run)
    settings: Any = SimpleNamespace(choices={"dataset": "stored"}, dataset=None, workers=0, trust=[])
    return student, data_of(student, settings, None)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("given", "measure", "range", "overflow"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--samples", type=int)
    args = parser.parse_args(words)
    prepare(1)
    if args.what == "given":
        given(args.paths[0], args.weights, args.root)
    for run in args.paths if args.what != "given" else []:
        {"measure": measure, "range": ranges, "overflow": overflow}[args.what](run, args.samples)


if __name__ == "__main__":
    sys.exit(main())
