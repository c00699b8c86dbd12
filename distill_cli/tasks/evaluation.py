"""What a run's page shows beyond its summary: confusions, classes, reliability, and where teacher and student disagree
most; measures nothing that the summary holds.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from distill_cli.data import Split
from distill_cli.tasks import metrics

FILE = "evaluation.json"  # in a run's folder
SAMPLES = 12
TOP = 3  # classes shown of a sample's answer
SIDE = 96  # pixels, the longest side of a picture shown


def describe(logits: Mapping[str, Tensor], split: Split, classes: Sequence[str]) -> dict[str, Any]:
    """From the logits (N, K) of "teacher" and "student" on the test set, at T = 1, as a value that JSON can hold:

    confusion: [true class, predicted, how many] of the student, where there are any; per_class: as `metrics.per_class`;
    reliability: of both, mean confidence, accuracy and number of samples by bin of confidence, null where it is empty;
    samples: the twelve with the largest KL(teacher || student) in nats, largest first, each with its picture as a data
    URL and both models' most probable classes.

    Raises:
        DataError: a picture that is read as it goes cannot be.
    """
    labels = split.targets.cpu()
    log_probabilities = {who: F.log_softmax(logits[who].cpu().double(), dim=1) for who in ("teacher", "student")}
    return {
        "split": "test",
        "classes": list(classes),
        "confusion": _confusion(logits["student"].cpu(), labels),
        "per_class": metrics.per_class(logits["student"], labels),
        "reliability": {who: _reliability(known.exp(), labels) for who, known in log_probabilities.items()},
        "samples": _samples(log_probabilities, split),
    }


def _confusion(logits: Tensor, labels: Tensor) -> list[list[int]]:
    cells, counts = torch.stack([labels, logits.argmax(1)], dim=1).unique(dim=0, return_counts=True)
    return torch.cat([cells, counts[:, None]], dim=1).tolist()


def _reliability(probabilities: Tensor, labels: Tensor) -> dict[str, list[Any]]:
    bins, confidence, right = metrics.binned(probabilities, labels)
    counts = torch.bincount(bins, minlength=metrics.ECE_BINS)

    def means(values: Tensor) -> list[float | None]:
        sums = torch.bincount(bins, values, metrics.ECE_BINS)
        return [
            total / number if number else None for total, number in zip(sums.tolist(), counts.tolist(), strict=True)
        ]

    return {"confidence": means(confidence), "accuracy": means(right), "count": counts.tolist()}


def _samples(log_probabilities: Mapping[str, Tensor], split: Split) -> list[dict[str, Any]]:
    teacher, student = log_probabilities["teacher"], log_probabilities["student"]
    kl = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    worst = kl.argsort(descending=True, stable=True)[:SAMPLES].tolist()
    return [
        {
            "index": index,
            "label": int(split.targets[index]),
            "kl": float(kl[index]),
            **{who: _top(known[index].exp()) for who, known in log_probabilities.items()},
            "picture": _picture_of(split, index),
        }
        for index in worst
    ]


def _top(probabilities: Tensor) -> list[list[Any]]:
    """[class, probability] of the most probable classes, of (K,) probabilities."""
    found = probabilities.topk(min(TOP, len(probabilities)))
    return [[index, value] for value, index in zip(found.values.tolist(), found.indices.tolist(), strict=True)]


def _picture_of(split: Split, index: int) -> str:
    pictures = split.source.read([index])
    assert isinstance(pictures, Tensor)
    return picture(pictures[0])


def picture(pixels: Tensor) -> str:
    """uint8 pixels (C, H, W) as a data URL that holds a PNG of at most 96 pixels a side: in colour with three channels,
    else the first one in grey.
    """
    shown = pixels.permute(1, 2, 0) if len(pixels) == 3 else pixels[0]
    image = Image.fromarray(shown.cpu().contiguous().numpy())
    image.thumbnail((SIDE, SIDE))  # makes smaller only
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
