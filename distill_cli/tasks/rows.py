"""The rows that a loss and a metric see: the student's answers with their targets, and the teacher's on the same rows.

A sample gives as many rows as it has targets: a picture one, a text of a language model one a token. How a batch becomes
rows is the task's affair; what is computed of them is not in here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from distill_cli.base import exchange, world
from distill_cli.tasks.parting import Parted, parted

Head = Callable[[Tensor], Tensor]
AT_ONCE = 2**22  # logits that are worked on at a time where a few numbers of each row are wanted
# Logits that are held at a time where a head makes them, and of how many rows at the least: a block of more than 32 MiB is taken
# from the system and given back at every use, which costs a quarter of the time.
CELLS, FEWEST = 3 * 2**21, 64


def wide(values: Tensor) -> Tensor:
    """fp32 at least, for loss arithmetic; float64 stays float64."""
    return values if values.dtype == torch.float64 else values.float()


class Rows:
    """The student's answers on M rows, and what they should be.

    Attributes:
        answers: (M, D): the logits or, where there is a `head`, what that makes logits of.
        targets: (M,) int64, the classes; UNKNOWN where a row has none.
        index: (M,) int64, the position in its split of the sample that each row belongs to.
        features: by module path, of whole samples (N, ...), whatever part of their rows this is.
        present: which positions of those samples are their own and no padding, (N, L) bool; None: all.
        head: (m, D) -> logits (m, C); see `Classifier.head`.
        few: the classes that the teacher's signal names, see `Signal`.
    """

    def __init__(
        self,
        answers: Tensor,
        targets: Tensor,
        index: Tensor,
        features: Mapping[str, Tensor] | None = None,
        present: Tensor | None = None,
        head: Head | None = None,
        few: Tensor | None = None,
    ) -> None:
        self.answers, self.targets, self.index = answers, targets, index
        self.features, self.present, self.head, self.few = features or {}, present, head, few

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def _whole(self) -> Tensor:
        return self.answers if self.head is None else self.head(self.answers)

    def logits(self, chunk: slice | None = None) -> Tensor:
        """The logits (m, C) of some rows, or of all (M, C)."""
        if chunk is None:
            return self._whole
        return self.answers[chunk] if self.head is None else self.head(self.answers[chunk])

    @cached_property
    def parted(self) -> Parted:
        """The logits of all rows as `few` has them, for every term that reads no more of them."""
        assert self.few is not None
        return parted(wide(self.logits()), self.few, self.targets)

    @property
    def at_once(self) -> int:
        """Of how many rows logits are to be held at a time where nobody says: all that have theirs already."""
        if self.head is None or not len(self):
            return max(1, len(self))
        with torch.no_grad():
            classes = self.head(self.answers[:1]).shape[-1]
        return max(FEWEST, CELLS // classes)

    def chunks(self, size: int | None) -> Iterator[slice]:
        """Slices of at most `size` rows that cover all of them in order; with None, of as many as `at_once` says."""
        step = size or self.at_once
        return (slice(start, min(start + step, len(self))) for start in range(0, len(self), step))

    def detached(self) -> Rows:
        """The same answers, through which no gradient flows back."""
        return Rows(self.answers.detach(), self.targets, self.index, self.features, self.present, self.head)

    def said_by(self, signal: Signal) -> Rows:
        """The teacher's answers in place of the student's: to be judged as those are.

        Raises:
            ConfigError: the logits of all classes are not kept.
        """
        answers, head = signal.answers()
        return Rows(answers, self.targets, self.index, head=head)

    def part(self, chunk: slice) -> Rows:
        """Some of the rows. Features are those of the whole samples still."""
        answers, targets, index = self.answers[chunk], self.targets[chunk], self.index[chunk]
        return Rows(answers, targets, index, self.features, self.present, self.head)

    def numbers(self) -> tuple[Tensor, ...]:
        """What the rows are made of beside their head."""
        return self.answers, self.targets, self.index

    def other(self, numbers: Sequence[Tensor], features: Mapping[str, Tensor] | None = None) -> Rows:
        """Rows of the same head, of which these are the numbers."""
        answers, targets, index = (values.to(self.index.device) for values in numbers)
        return Rows(answers, targets, index, features, head=self.head)


class Signal(Protocol):
    """A teacher's answers on the same M rows, as far as they are kept; `features` as those of `Rows`."""

    @property
    def features(self) -> Mapping[str, Tensor]: ...

    @property
    def few(self) -> Tensor | None:
        """The classes that are named in each row where all others are one event, (M, E) int64; None: all classes are told apart."""
        ...

    def __len__(self) -> int: ...

    def answers(self) -> tuple[Tensor, Head | None]:
        """The answers to all rows, (M, D), and their head, as in `Rows`; raises as `logits`."""
        ...

    def logits(self) -> Tensor:
        """The logits of all rows, (M, C).

        Raises:
            ConfigError: those of all classes are not kept.
        """
        ...

    def decided(self) -> Tensor:
        """The most probable class of each row, (M,) int64."""
        ...

    def events(self, student: Rows, T: float) -> tuple[Tensor, Tensor]:
        """The student's and the teacher's answers about what the signal tells apart at a temperature T.

        That is each class or, where only some are kept, each of those and all the others together. A divergence of two such
        distributions is never more than that over all classes, and never negative.

        Args:
            student: the same rows.

        Returns:
            logits (M, E) of both: softmax(logits / T) are the probabilities of the events.
        """
        ...

    def part(self, chunk: slice) -> Signal:
        """The signal on some of the rows."""
        ...

    def numbers(self) -> tuple[Tensor, ...]:
        """As `Rows.numbers`."""
        ...

    def other(self, numbers: Sequence[Tensor], features: Mapping[str, Tensor] | None = None) -> Signal:
        """As `Rows.other`."""
        ...


class Dense:
    """A signal whose logits (M, C) are at hand, or what a head makes them of."""

    few: Tensor | None = None

    def __init__(self, answers: Tensor, features: Mapping[str, Tensor] | None = None, head: Head | None = None) -> None:
        self._answers, self.features, self._head = answers, features or {}, head

    def __len__(self) -> int:
        return len(self._answers)

    @cached_property
    def _logits(self) -> Tensor:
        return self._answers if self._head is None else self._head(self._answers).float()

    def answers(self) -> tuple[Tensor, Head | None]:
        return self._answers, self._head

    def logits(self) -> Tensor:
        return self._logits

    def decided(self) -> Tensor:
        return self._logits.argmax(-1)

    def events(self, student: Rows, T: float) -> tuple[Tensor, Tensor]:
        return student.logits(), self._logits

    def part(self, chunk: slice) -> Dense:
        return Dense(self._answers[chunk], self.features, self._head)

    def numbers(self) -> tuple[Tensor, ...]:
        return (self._answers,)

    def other(self, numbers: Sequence[Tensor], features: Mapping[str, Tensor] | None = None) -> Dense:
        return Dense(numbers[0].to(self._answers.device), features, self._head)


Answered = tuple[Rows, Signal | None]


def of_all_ranks(answers: Iterable[Answered], number: int) -> Iterator[Answered]:
    """Rows with their signal, of all ranks, in the order of the `number` batches that were dealt; see `world.in_order`."""
    if world.size() == 1:
        yield from answers
        return
    own: list[Answered] = []

    def numbers() -> Iterator[list[list[Tensor]]]:
        for rows, signal in answers:
            own[:] = [(rows, signal)]
            yield [[values.cpu() for values in one.numbers()] for one in (rows, signal) if one is not None]

    for of_rows, *of_signal in world.in_order(numbers(), number):
        rows, signal = own[0]  # with the same head
        yield rows.other(of_rows), None if signal is None else signal.other(of_signal[0])


def with_all_ranks(rows: Rows, signal: Signal) -> tuple[Rows, Signal]:
    """The rows of all ranks and their signal, one rank's after the other's; gradients find their way back, see `exchange.rows`."""

    def every(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {path: exchange.rows(values) for path, values in sorted(features.items())}

    ours, theirs = ([exchange.rows(values) for values in one.numbers()] for one in (rows, signal))
    return rows.other(ours, every(rows.features)), signal.other(theirs, every(signal.features))
