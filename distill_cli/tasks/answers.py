"""Single answers as a table: for each row its probabilities, or for each sample its likelihood; who writes it is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.data import UNKNOWN
from distill_cli.tasks.rows import AT_ONCE, Rows, Signal, wide


def probabilities(logits: Tensor) -> Tensor:
    """Logits (N, C) -> probabilities (N, C) at T = 1, in double precision on the CPU."""
    return torch.softmax(logits.cpu().double(), dim=-1)


class OfRows:
    """Of each row its label, the decision and the probabilities at T = 1 with all their digits, the student's before the
    teacher's.

    Args:
        classes: by name. both: whether there is a teacher.
    """

    def __init__(self, classes: Sequence[str], both: bool) -> None:
        names = [f"{who}_{name}" for who in ("student", "teacher")[: 1 + both] for name in classes]
        self.head, self._rows = ["label", "predicted", *names], list[tuple[int, list[Any]]]()

    def update(self, rows: Rows, signal: Signal | None = None) -> None:
        tables = [probabilities(answers.logits()) for answers in (rows, signal) if answers]
        labels = ["" if target == UNKNOWN else target for target in rows.targets.tolist()]
        facts = zip(rows.index.tolist(), labels, rows.logits().argmax(-1).tolist(), strict=True)
        for (index, *others), values in zip(facts, torch.cat(tables, dim=-1).tolist(), strict=True):
            self._rows.append((index, [*others, *values]))

    def table(self) -> Iterator[tuple[int, list[Any]]]:
        yield from sorted(self._rows, key=lambda row: row[0])  # stable: one sample's rows stay in order


class OfSamples:
    """For each sample how many rows it has, their mean negative log-likelihood in nats, and with a teacher its, and the mean
    KL(teacher || student): a table of all probabilities of all rows would be larger than any disk.

    Args:
        unit: what rows are called, in the plural. classes: how many there are. both: whether there is a teacher.
    """

    def __init__(self, unit: str, classes: int, both: bool) -> None:
        self.head = [unit, "student_nll", *(["teacher_nll", "kl"] if both else [])]
        self.at_once = max(1, AT_ONCE // classes)
        self._columns: list[Tensor] = []  # (m, 2 or 4): sample, and what the head names

    def update(self, rows: Rows, signal: Signal | None = None) -> None:
        for chunk in rows.chunks(self.at_once):
            part = rows.part(chunk)
            log_p = [wide(one.logits()).log_softmax(-1) for one in (part, signal and signal.part(chunk)) if one]
            columns = [-one.gather(-1, part.targets[:, None])[:, 0] for one in log_p]
            if len(log_p) > 1:
                student, teacher = log_p
                columns.append(F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1))
            self._columns.append(torch.stack([one.cpu().double() for one in (part.index, *columns)], -1))

    def table(self) -> Iterator[tuple[int, list[Any]]]:
        columns = torch.cat([torch.empty(0, len(self.head), dtype=torch.float64), *self._columns])
        samples, place, counts = columns[:, 0].long().unique(return_inverse=True, return_counts=True)
        sums = torch.zeros(len(samples), columns.shape[1] - 1, dtype=torch.float64).index_add_(0, place, columns[:, 1:])
        for index, count, means in zip(
            samples.tolist(), counts.tolist(), (sums / counts[:, None]).tolist(), strict=True
        ):
            yield index, [count, *means]
