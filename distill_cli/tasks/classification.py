"""The classification of whole samples: one row a sample, judged by decisions, likelihood, calibration and fidelity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.base.errors import ConfigError
from distill_cli.config.schema import Predict
from distill_cli.data import UNKNOWN, Data
from distill_cli.models.features import Output
from distill_cli.models.naming import listed, typed
from distill_cli.tasks import scores
from distill_cli.tasks.details import ClassificationDetails
from distill_cli.tasks.replies import Decisions
from distill_cli.tasks.rows import Rows, Signal
from distill_cli.tasks.scores import balanced_accuracy, calibration_error, macro_f1, matthews
from distill_cli.tasks.task import Task
from distill_cli.tasks.watchers import Meter

LUCK, GAIN = 0.3, 0.1  # another order must be right on so much of what luck leaves wrong, and on so many samples more
CELLS = 2**20  # numbers that a meter works on at a time, in double precision


class Classification(Task):
    """Which of the data's classes a sample belongs to."""

    best = ("accuracy", "-nll")

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        self.unit = data.input.unit  # type: ignore[misc]

    def check(self, output: Output, role: str) -> None:
        shape, classes = tuple(output.logits.shape), len(self.data.classes)
        if shape != (2, classes):
            raise ConfigError(f"{role}: should give logits of shape (N, {classes}), gave {('N', *shape[1:])}")

    def replies(self, how: Predict) -> Decisions:
        return Decisions(self.data.classes, how)

    def suspicious(self, rows: Rows, names: Sequence[str]) -> str:
        """A teacher that would be far better under other names has its classes in another order; one that tells them apart
        no better than always naming one is not the teacher that is meant.
        """
        labelled = rows.targets.cpu() != UNKNOWN
        targets, decided = rows.targets.cpu()[labelled], rows.logits().argmax(-1).cpu()[labelled]
        if not len(targets):
            return ""
        classes = self.data.classes
        accuracy = float((decided == targets).double().mean())
        meant, matched, luck = scores.matching(targets, decided, len(classes))
        if matched > luck + LUCK * (1 - luck) and matched > accuracy + GAIN:
            renamed = {classes[said]: classes[true] for true, said in enumerate(meant) if true != said}
            return (
                f"the teacher's validation accuracy is {accuracy:.1%}; it would be {matched:.1%} with its classes in another "
                f"order ({listed([f'{name} means {right}' for name, right in renamed.items()])}): "
                + typed("teacher.classes", [renamed.get(name, name) for name in names])
            )
        chance = 1 / len(targets.unique())
        reached = scores.balanced_accuracy(targets, decided, len(classes))
        if reached > 1.1 * chance:
            return ""
        return (
            f"the teacher's mean accuracy over the classes of validation is {reached:.1%}, no better than chance "
            f"({chance:.1%}): check its classes' order (teacher.classes), its normalisation (teacher.mean, teacher.std), its "
            "size (teacher.size) and its checkpoint"
        )

    def meter(self) -> ClassificationMeter:
        return ClassificationMeter(len(self.data.classes))

    def difference(self, ours: Meter, theirs: Meter) -> dict[str, float]:
        assert isinstance(ours, ClassificationMeter) and isinstance(theirs, ClassificationMeter)
        difference, half = ours.difference(theirs)
        return {"accuracy": difference, "half_interval": half}

    def details(self) -> ClassificationDetails:
        return ClassificationDetails(self.data)


class ClassificationMeter:
    """Metrics at T = 1, from a few numbers a row: those of targets over the rows that have one, fidelity over all.

    accuracy; balanced_accuracy: mean recall over the classes that occur; f1: macro over the classes that occur; mcc: of two
    classes, Matthews' correlation; nll: mean
    negative log-likelihood in nats; ece: expected calibration error; kl: mean KL(teacher || student) in nats; agreement:
    share of rows on which both decide for the same class.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        two = ["mcc"] if num_classes == 2 else []
        self.names = ["accuracy", "balanced_accuracy", "f1", *two, "nll", "ece", "kl", "agreement"]
        self._waiting: list[tuple[Rows, Signal | None]] = []
        self._columns: dict[str, list[Tensor]] = defaultdict(list)

    def update(self, rows: Rows, signal: Signal | None = None) -> None:
        """Rows wait until there are enough of them to be worked on together, as long as they are few."""
        for chunk in rows.chunks(max(1, CELLS // self.num_classes)):
            self._waiting.append((rows.part(chunk), None if signal is None else signal.part(chunk)))
            if sum(len(part) for part, _ in self._waiting) * self.num_classes >= CELLS:
                self._work()

    def _work(self) -> None:
        """Turn the waiting rows into their few numbers."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            logits = torch.cat([rows.logits().cpu() for rows, _ in waiting])  # double precision is not on every device
            targets = torch.cat([rows.targets.cpu() for rows, _ in waiting])
            theirs = [signal.logits().cpu() for _, signal in waiting if signal is not None]
            self._add(logits, targets, torch.cat(theirs) if theirs else None)

    def _add(self, logits: Tensor, targets: Tensor, theirs: Tensor | None) -> None:
        log_p = F.log_softmax(logits.double(), dim=-1)
        confidence, surest = log_p.exp().max(-1)
        decided, known = logits.argmax(-1), targets != UNKNOWN
        columns = {
            "target": targets[known],
            "decided": decided[known],
            "log_p": log_p[known].gather(-1, targets[known, None])[:, 0],
            "confidence": confidence[known],
            "right": (surest == targets)[known].double(),
        }
        if theirs is not None:
            log_q = F.log_softmax(theirs.double(), dim=-1)
            columns["kl"] = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(-1)
            columns["agreed"] = (decided == theirs.argmax(-1)).double()
        for name, column in columns.items():
            self._columns[name].append(column)

    def merge(self, other: Self) -> None:
        self._work()
        other._work()
        for name, parts in other._columns.items():
            self._columns[name] += parts

    def column(self, name: str) -> Tensor:
        """One number of every row seen, (M,): kl or agreed; of those that have a target: target, decided, log_p, confidence
        or right.
        """
        self._work()
        return torch.cat(self._columns[name])

    def compute(self) -> dict[str, float]:
        target, decided = self.column("target"), self.column("decided")
        metrics: dict[str, Any] = (
            {}
            if not len(target)
            else {
                "accuracy": (decided == target).double().mean(),
                "balanced_accuracy": balanced_accuracy(target, decided, self.num_classes),
                "f1": macro_f1(target, decided, self.num_classes),
                **({"mcc": matthews(target, decided)} if self.num_classes == 2 else {}),
                "nll": -self.column("log_p").mean(),
                "ece": calibration_error(self.column("confidence"), self.column("right")),
            }
        )
        if "kl" in self._columns:  # the columns above have worked on all that waited
            metrics |= {"kl": self.column("kl").mean(), "agreement": self.column("agreed").mean()}
        return {name: float(value) for name, value in metrics.items()}

    def difference(self, other: ClassificationMeter) -> tuple[float, float]:
        """The accuracy minus another model's on the same rows, and half its 95 % interval.

        Only the rows on which exactly one of the two is right tell them apart (McNemar, 1947): with b and c of those
        the difference is (b - c) / n, its variance (b + c - (b - c)^2 / n) / n^2.
        """
        target = self.column("target")
        ours, theirs = self.column("decided") == target, other.column("decided") == target
        n, b, c = len(target), int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        return (b - c) / n, float(1.96 * np.sqrt(b + c - (b - c) ** 2 / n) / n)
