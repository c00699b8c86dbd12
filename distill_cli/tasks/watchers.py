"""What may watch a model's answers go by: a meter, what a page shows, tables of single answers; the tasks make them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, Self

from distill_cli.data import Split
from distill_cli.models import Classifier
from distill_cli.tasks.rows import Rows, Signal


class Watcher(Protocol):
    """Something that looks at a model's answers as they come, and never needs all of them at once."""

    def update(self, rows: Rows, signal: Signal | None = None) -> None:
        """Take in the model's answers on some rows, with the teacher's on the same rows where there is a teacher."""


class Meter(Watcher, Protocol):
    """Metrics at T = 1 of the rows it has seen.

    Attributes:
        names: those that it can give, see base/metrics.py.
    """

    @property
    def names(self) -> Sequence[str]: ...

    def merge(self, other: Self) -> None:
        """Take in what another meter has seen."""

    def compute(self) -> dict[str, float]:
        """The metrics by name: those of targets, over the rows that have one, only if some do; those of fidelity, over all
        rows, only if there was a teacher's signal.
        """


class OfTeacher:
    """Shows a meter the teacher's answers in place of the student's."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def update(self, rows: Rows, signal: Signal | None = None) -> None:
        assert signal is not None
        self.meter.update(rows.said_by(signal))


class Details(Watcher, Protocol):
    """What a report shows beyond the metrics."""

    def compute(self, split: Split) -> dict[str, Any]:
        """A value that JSON can hold, of the rows it has seen of this split."""


class Answers(Watcher, Protocol):
    """What a table of single answers holds; see answers.py.

    Attributes:
        head: the names of its columns.
    """

    @property
    def head(self) -> Sequence[str]: ...

    def table(self) -> Iterable[tuple[int, Sequence[Any]]]:
        """Its rows in the order of the samples, each after its sample's index."""


Facts = dict[str, Any]


class Replies(Protocol):
    """What a finished student says of inputs, each by itself, as JSON, as a table and for people; it counts what it said.

    Attributes:
        keys: those of `distill predict` that it goes by; others have no effect.
        columns: of a table, behind those of the input, `error` among them. head: of the same for people.
    """

    @property
    def keys(self) -> Sequence[str]: ...

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def head(self) -> Sequence[str]: ...

    def of(self, model: Classifier, split: Split, size: int) -> Iterator[tuple[int, Facts]]:
        """What is said of each input, as JSON can hold it, after the input's number.

        Args:
            split: of the inputs, on the model's device. size: samples that are answered together.
        """

    def cells(self, facts: Facts) -> Facts:
        """The same by column."""

    def shown(self, facts: Facts) -> list[str]:
        """The same for people, below `head`."""

    def total(self) -> tuple[Sequence[str], list[list[str]]]:
        """All that was said so far, for people: what the columns are called, and the rows."""
