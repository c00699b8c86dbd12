"""An exported student held against the one it was made of, on the same samples: decisions, probabilities, accuracy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from distill_cli.base.errors import CheckpointError
from distill_cli.data import UNKNOWN, Split
from distill_cli.data.source import Held
from distill_cli.deploy.predictor import Predictor

CLOSE = 1e-4  # probabilities of fp32 may differ by so much, and classes only where the two are as close
AGREEMENT = 0.97  # of int8 with fp32, at least


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    Attributes:
        samples: how many. equal: on how many both decide for the same class. close: how many others are ties, of which the two
            classes differ by less than CLOSE. largest: difference of a probability.
        accuracy, exported_accuracy: of the student and of the exported one, over the samples with labels; None: there are none.
    """

    samples: int
    equal: int
    close: int
    largest: float
    accuracy: float | None
    exported_accuracy: float | None

    @property
    def agreement(self) -> float:
        """The share of samples on which both decide for the same class."""
        return self.equal / self.samples

    @property
    def lost(self) -> float:
        """How much accuracy was lost; 0 without labels."""
        return (
            0.0 if self.accuracy is None or self.exported_accuracy is None else self.accuracy - self.exported_accuracy
        )

    def facts(self) -> dict[str, Any]:
        """A value that JSON can hold."""
        return {**asdict(self), "agreement": self.agreement}

    def words(self) -> str:
        """For people."""
        shown = "" if self.accuracy is None else f", accuracy {self.exported_accuracy:.4f} of {self.accuracy:.4f}"
        return f"{self.equal:,} of {self.samples:,} decisions equal, largest difference {self.largest:.1e}{shown}"


def compared(student: Predictor, exported: Predictor, split: Split, batch_size: int | None = None) -> Comparison:
    """Both on a split, each reading it as it takes it."""
    theirs = Split(exported.spec.reads(split.source), split.targets, exported.spec, split.workers)
    samples = equal = close = labelled = 0
    right, largest = [0, 0], 0.0
    for (batch, p), (_, q) in zip(
        student.answers(split, batch_size), exported.answers(theirs, batch_size), strict=True
    ):
        ours, other = p.argmax(-1), q.argmax(-1)
        gap = (p.gather(1, ours[:, None]) - p.gather(1, other[:, None]))[:, 0]
        samples += len(p)
        equal += int((ours == other).sum())
        close += int(((ours != other) & (gap < CLOSE)).sum())
        largest = max(largest, float((p - q).abs().max()))
        known = batch.targets.cpu() != UNKNOWN
        labelled += int(known.sum())
        for place, decided in enumerate((ours, other)):
            right[place] += int((decided == batch.targets.cpu())[known].sum())
    accuracies = [count / labelled if labelled else None for count in right]
    return Comparison(samples, equal, close, largest, *accuracies)


def require_same(found: Comparison, what: str) -> None:
    """Refuse an export in fp32 that answers differently.

    Raises:
        CheckpointError: it does.
    """
    if found.largest > CLOSE or found.equal + found.close < found.samples:
        raise CheckpointError(f"{what} answers differently from the student: {found.words()}; nothing was written",
                              "this is a fault of the exporter: format=torch may do")  # fmt: skip


def too_different(found: Comparison, tolerance: float) -> str:
    """Why an export in int8 is no good, if it is not."""
    if found.agreement < AGREEMENT:
        return f"it agrees with the fp32 student on {found.agreement:.1%} of validation, {AGREEMENT:.0%} are needed"
    if found.lost > tolerance:
        return f"it loses {100 * found.lost:.2f} points of accuracy on validation, and tolerance={tolerance:g}"
    return ""


def made_up(student: Predictor, number: int = 64) -> Split:
    """Random samples, where no others are at hand."""
    raw = student.reads.stored(number)
    return Split(Held(raw), torch.full((number,), UNKNOWN), student.spec)
