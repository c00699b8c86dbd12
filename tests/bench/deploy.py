"""What an exported student is worth: each row of the table in the manual's page on deployment, from finished runs.

    python tests/bench/deploy.py given OUT --weights resnet20.th --root DIR     # given weights, for an image folder
    python tests/bench/deploy.py measure RUN [RUN ...] [--samples N]            # fp32, int8: equality, bytes, speed
    python tests/bench/deploy.py range RUN [--samples N]                        # int8 with and without reduce_range

A run is any folder or file that `distill export` takes, a prepared teacher's too. `measure` compares on test in batches of 1, 2,
64 and 257, and measures speed in turn on one thread. `--samples`: the first N of test, where all would take too long; an export
is held against the whole of it anyway.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from distill_cli import models
from distill_cli.base.runtime import prepare
from distill_cli.cli import main as distill
from distill_cli.data import PictureSpec
from distill_cli.deploy import exporting, graph, quantization
from distill_cli.deploy.judged import data_of, run_of
from distill_cli.deploy.predictor import Predictor
from distill_cli.deploy.verification import compared
from distill_cli.models import foreign
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
    test = data.test.take(torch.arange(min(len(data.test), samples or len(data.test))))
    home = (run_of(student) or run) / "export"
    made = Predictor.read(home / "fp32")
    for batch in BATCHES:
        found = compared(student, made, test, batch)
        print(json.dumps({"run": run.name, "batch": batch, **found.facts()}), flush=True)
    for name, code in zip(("fp32", "int8"), codes, strict=True):
        told = home / name / "export.json"
        print(json.dumps({"run": run.name, "precision": name, "code": code}), told.read_text() if code == 0 else "")
    print((home / "speed.json").read_text())


def ranges(run: Path, samples: int | None) -> None:
    """Agreement of int8 with fp32 on test, with weights of 7 bits and of 8."""
    student, data = _read(run)
    test = data.test.take(torch.arange(min(len(data.test), samples or len(data.test))))
    for reduced in (True, False):
        model = quantization.measured(
            graph.onnx_of(student.network), quantization.Calibration(data.train, 256), reduced
        )
        about = exporting._about(student, "int8", {})
        found = compared(student, exporting._loaded(student, graph.marked(model, about)), test)
        print(json.dumps({"run": run.name, "reduce_range": reduced, **found.facts()}), flush=True)


def _read(run: Path) -> tuple[Predictor, Any]:
    student = Predictor.read(run)
    settings: Any = SimpleNamespace(choices={"dataset": "stored"}, dataset=None, workers=0, trust=[])
    return student, data_of(student, settings, None)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("given", "measure", "range"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--samples", type=int)
    args = parser.parse_args(words)
    prepare(1)
    if args.what == "given":
        given(args.paths[0], args.weights, args.root)
    for run in args.paths if args.what != "given" else []:
        {"measure": measure, "range": ranges}[args.what](run, args.samples)


if __name__ == "__main__":
    sys.exit(main())
