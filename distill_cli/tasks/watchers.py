"""What may watch a model's answers go by: a meter, what a page shows, a table of single answers; the tasks make them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, Self

from distill_cli.data import Split
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
