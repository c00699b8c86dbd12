"""A student as a folder of transformers, or as a program of torch.export; ONNX is made in exporting.py."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_cli.base import files
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.data import Split
from distill_cli.data.inputs import Inputs
from distill_cli.data.texts import TextSpec
from distill_cli.deploy import graph
from distill_cli.deploy.predictor import PROGRAM, Predictor
from distill_cli.models import evaluating
from distill_cli.models.hub import library, quiet
from distill_cli.models.huggingface import HuggingFace, MeanPooled

EQUAL = 1e-6  # logits may differ by so much
SAMPLES = 128  # that are compared


def huggingface(student: Predictor, split: Split, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write what `AutoModelForSequenceClassification.from_pretrained` and `AutoTokenizer` load; returns the weights' file, and what
    was verified.

    Raises:
        ConfigError: the student is none of transformers. CheckpointError: what is loaded again answers otherwise.
    """
    net, spec = student.network.net, student.reads
    if not isinstance(net, HuggingFace) or isinstance(net, MeanPooled) or not isinstance(spec, TextSpec):
        why = (
            "its head sees the mean of a text's states" if isinstance(net, MeanPooled) else "it is not of that library"
        )
        raise ConfigError(
            f"format=huggingface: no class of transformers is this student: {why}", "format=onnx takes any"
        )
    lib, model = library(), net.model
    config: Any = model.config
    config.id2label = dict(enumerate(student.card["classes"]))
    config.label2id = {name: number for number, name in config.id2label.items()}
    config.pad_token_id = spec.tokenizer.pad
    with quiet(lib), tempfile.TemporaryDirectory(dir=folder) as aside:
        model.save_pretrained(aside)  # type: ignore[operator]
        (Path(aside) / "tokenizer.json").write_text(spec.tokenizer.json, encoding="utf-8")
        tokenizer = lib.PreTrainedTokenizerFast(
            tokenizer_file=str(Path(aside) / "tokenizer.json"), model_max_length=spec.max_length,
            pad_token=spec.tokenizer.token(spec.tokenizer.pad),
        )  # fmt: skip
        tokenizer.save_pretrained(aside)
        again = lib.AutoModelForSequenceClassification.from_pretrained(aside).eval()
        largest, number = _difference(student, split, lambda raw: again(**_taken(net, raw)).logits)
        if largest > EQUAL:
            raise CheckpointError(f"what was loaded again answers otherwise: logits differ by {largest:.1e}")
        for path in sorted(Path(aside).iterdir()):
            files.write(folder / path.name, path.read_bytes())
    return "model.safetensors", {"format": "huggingface", "samples": number, "largest": largest}


def torch_program(student: Predictor, split: Split, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write a .pt2 file of torch.export, from raw samples to probabilities; returns its name, and what was verified."""
    made, names = graph.program(student.network)
    answer = made.module()

    def logits(raw: Inputs) -> Tensor:
        parts = [raw] if isinstance(raw, Tensor) else [raw[name] for name in names]
        return torch.log(answer(*parts))

    largest, number = _difference(student, split, logits, log=True)
    if largest > EQUAL * 100:
        raise CheckpointError(f"the program answers otherwise: logarithms of probabilities differ by {largest:.1e}")
    name, content = f"model{PROGRAM}", io.BytesIO()
    with graph.quiet(student.network):
        torch.export.save(made, content)
    files.write(folder / name, content.getvalue())
    return name, {"format": "torch", "samples": number, "largest": largest}


WRITERS: dict[str, Callable[[Predictor, Split, Path], tuple[str, dict[str, Any]]]] = {
    "huggingface": huggingface,
    "torch": torch_program,
}


def _taken(net: HuggingFace, raw: Inputs) -> dict[str, Tensor]:
    assert not isinstance(raw, Tensor)
    return {name: values for name, values in raw.items() if name in net.takes}


def _difference(
    student: Predictor, split: Split, answer: Callable[[Inputs], Tensor], log: bool = False
) -> tuple[float, int]:
    """The largest difference of logits, or of logarithms of probabilities, on the first samples of a split, and their number."""
    raw = split.source.read(list(range(min(SAMPLES, len(split)))))
    with evaluating(student.network), torch.no_grad():
        ours = student.network(student.spec.inputs(raw))
        ours = torch.log_softmax(ours, dim=-1) if log else ours
        theirs = answer(raw)
    return float((ours - theirs).abs().max()), len(ours)
