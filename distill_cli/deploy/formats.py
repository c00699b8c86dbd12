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
from distill_cli.data.blocks import SEGMENTS, LanguageSpec
from distill_cli.data.inputs import Inputs
from distill_cli.data.texts import TextSpec
from distill_cli.data.tokens import FILE
from distill_cli.deploy import graph
from distill_cli.deploy.predictor import PROGRAM, Predictor
from distill_cli.models import edits, evaluating
from distill_cli.models.hub import library, quiet
from distill_cli.models.huggingface import AUTO, HuggingFace, MeanPooled

EQUAL = 1e-6  # logits may differ by so much
SAMPLES = 128  # that are compared


def huggingface(student: Predictor, split: Split, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write what `AutoModelForSequenceClassification` or `AutoModelForCausalLM` and `AutoTokenizer` load with `from_pretrained`;
    returns the weights' file, and what was verified.

    Raises:
        ConfigError: the student is none of transformers. CheckpointError: what is loaded again answers otherwise.
    """
    net, spec = student.network.net, student.reads
    if not isinstance(net, HuggingFace) or isinstance(net, MeanPooled) or not isinstance(spec, TextSpec | LanguageSpec):
        why = (
            "its head sees the mean of a text's states" if isinstance(net, MeanPooled) else "it is not of that library"
        )
        raise ConfigError(
            f"format=huggingface: no class of transformers is this student: {why}", "format=onnx takes any classifier"
        )
    lib, says = library(), spec.shipped(student.card["classes"])
    whole: Any = getattr(net, "whole", net.model)
    auto = getattr(lib, AUTO[spec.arguments().get("head", "classes")])
    for key, value in says.config.items():
        setattr(whole.config, key, value)
    with quiet(lib), tempfile.TemporaryDirectory(dir=folder) as name:
        aside = Path(name)
        if whole.can_generate():
            whole.generation_config = lib.GenerationConfig.from_model_config(whole.config)
        whole.save_pretrained(aside)
        (aside / FILE).write_text(says.tokenizer.json, encoding="utf-8")
        longest = net.max_length or spec.arguments().get("max_length")
        lib.PreTrainedTokenizerFast(
            tokenizer_file=str(aside / FILE), model_max_length=longest, **says.special
        ).save_pretrained(aside)
        again, told = auto.from_pretrained(aside, output_loading_info=True, dtype=torch.float32)
        if odd := sorted({*told["missing_keys"], *told["unexpected_keys"]}):
            done = ", ".join(dict.fromkeys(edit["kind"] for edit in edits.of(net))) or odd[0]
            raise ConfigError(
                f"format=huggingface: no class of transformers is this student: it was changed after it was built ({done})"
            )
        largest, number = _apart(student, split, again.eval())
        if largest > EQUAL:
            raise CheckpointError(f"what was loaded again answers otherwise: logits differ by {largest:.1e}")
        for path in sorted(aside.iterdir()):
            files.write(folder / path.name, path.read_bytes())
    return "model.safetensors", {"format": "huggingface", "samples": number, "largest": largest}


def torch_program(student: Predictor, split: Split, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write a .pt2 file of torch.export, from raw samples to probabilities; returns its name, and what was verified."""
    made, names = graph.program(student.network)
    answer = made.module()

    def logits(raw: Inputs) -> Tensor:
        parts = [raw] if isinstance(raw, Tensor) else [raw[name] for name in names]
        return torch.log(answer(*parts))

    largest, number = _difference(student, split, logits)
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


def _apart(student: Predictor, split: Split, again: Any) -> tuple[float, int]:
    """The largest difference of logits between a student and what was loaded again, and on how many samples: the first of a
    split, one by one, of each the first of the texts that share it.
    """
    net: Any = student.network.net
    head, number, largest = student.network.head, min(SAMPLES, len(split)), 0.0
    with evaluating(student.network), torch.no_grad():
        for row in range(number):
            raw: Any = student.spec.inputs(split.source.read([row]))
            if (of_text := raw.get(SEGMENTS)) is not None:
                raw = {name: values[:, of_text[0] == 1] for name, values in raw.items()}
            answers = student.network(raw)
            ours = answers if head is None else head(answers)
            theirs = again(**{name: values for name, values in raw.items() if name in net.takes}).logits
            largest = max(largest, float((ours - theirs[..., : ours.shape[-1]]).abs().max()))
    return largest, number


def _difference(student: Predictor, split: Split, logits: Callable[[Inputs], Tensor]) -> tuple[float, int]:
    """The largest difference of logarithms of probabilities on the first samples of a split, and their number."""
    raw = split.source.read(list(range(min(SAMPLES, len(split)))))
    with evaluating(student.network), torch.no_grad():
        ours = torch.log_softmax(student.network(student.spec.inputs(raw)), dim=-1)
        theirs = logits(raw)
    return float((ours - theirs).abs().max()), len(ours)
