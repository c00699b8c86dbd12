"""What a run's page shows of a classifier beyond its summary: confusions, classes, reliability, and the samples on which
teacher and student differ most; measures nothing that the summary holds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.data import UNKNOWN, Data, Split
from distill_cli.tasks import scores
from distill_cli.tasks.rows import Rows, Signal

SAMPLES = 12
TOP = 3  # classes shown of an answer


class ClassificationDetails:
    """Collects, at T = 1, what `compute` tells of the teacher and the student."""

    def __init__(self, data: Data) -> None:
        self.classes = data.classes
        self._pairs: list[Tensor] = []  # of each row its class and the student's decision, (M, 2)
        self._sure: dict[str, list[Tensor]] = {"teacher": [], "student": []}  # confidence and whether right, (2, M)
        self._apart: list[dict[str, Any]] = []  # the samples that differ most so far, the largest KL first

    def update(self, rows: Rows, signal: Signal | None = None) -> None:
        if signal is None:
            return
        targets = rows.targets.cpu()
        logits = {"teacher": signal.logits().cpu(), "student": rows.logits().cpu()}
        log_p = {who: F.log_softmax(values.double(), dim=-1) for who, values in logits.items()}
        known = targets != UNKNOWN
        self._pairs.append(torch.stack([targets, logits["student"].argmax(-1)], dim=1)[known])
        for who, values in log_p.items():
            confidence, surest = values.exp().max(-1)
            self._sure[who].append(torch.stack([confidence, (surest == targets).double()])[:, known])
        kl = F.kl_div(log_p["student"], log_p["teacher"], reduction="none", log_target=True).sum(-1)
        for row in kl.argsort(descending=True, stable=True)[:SAMPLES].tolist():
            label = int(targets[row]) if known[row] else None
            sample = {"index": int(rows.index[row]), "label": label, "kl": float(kl[row])}
            self._apart.append(sample | {who: _top(values[row].exp()) for who, values in log_p.items()})
        self._apart = sorted(self._apart, key=lambda sample: -sample["kl"])[:SAMPLES]  # stable: the earlier of equals

    def compute(self, split: Split) -> dict[str, Any]:
        """A value that JSON can hold.

        confusion: [true class, predicted, how many] of the student, where there are any; per_class: as
        `scores.per_class`; reliability: of both, as `scores.reliability`; samples: the twelve with the largest
        KL(teacher || student) in nats, largest first, each as the data show it and with both models' most probable
        classes. What compares with labels is over the samples that have one; the label of the others is None.

        Raises:
            DataError: a sample that is read as it goes cannot be.
        """
        pairs = torch.cat(self._pairs)
        cells, counts = pairs.unique(dim=0, return_counts=True)
        sure = {who: torch.cat(parts, dim=1) for who, parts in self._sure.items()}
        return {
            "split": "test",
            "classes": list(self.classes),
            "confusion": torch.cat([cells, counts[:, None]], dim=1).tolist(),
            "per_class": scores.per_class(pairs[:, 0], pairs[:, 1], len(self.classes)),
            "reliability": {who: scores.reliability(*values) for who, values in sure.items()},
            "samples": [{**sample, **split.shown(sample["index"])} for sample in self._apart],
        }


def _top(probabilities: Tensor) -> list[list[Any]]:
    """[class, probability] of the most probable classes, of (C,) probabilities."""
    best = probabilities.topk(min(TOP, len(probabilities)))
    return [[index, value] for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
