"""The rows that a loss and a metric see: the student's answers with their targets, and the teacher's on the same rows.

A sample gives as many rows as it has targets: a picture one, a text of a language model one a token. How a batch becomes
rows is the task's affair; what is computed of them is not in here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.runs.store import Array


def wide(values: Tensor) -> Tensor:
    """fp32 at least, for loss arithmetic; float64 stays float64."""
    return values if values.dtype == torch.float64 else values.float()


class Rows:
    """The student's answers on M rows, and what they should be.

    Attributes:
        targets: (M,) int64, the classes; UNKNOWN where a row has none.
        index: (M,) int64, the position in its split of the sample that each row belongs to.
        features: by module path, of whole samples (N, ...), whatever part of their rows this is.
        present: which positions of those samples are their own and no padding, (N, L) bool; None: all.

    Args:
        logits: (M, C).
    """

    def __init__(
        self,
        logits: Tensor,
        targets: Tensor,
        index: Tensor,
        features: Mapping[str, Tensor] | None = None,
        present: Tensor | None = None,
    ) -> None:
        self._logits, self.targets, self.index = logits, targets, index
        self.features, self.present = features or {}, present

    def __len__(self) -> int:
        return len(self.targets)

    def logits(self, chunk: slice | None = None) -> Tensor:
        """The logits (m, C) of some rows, or of all (M, C)."""
        return self._logits if chunk is None else self._logits[chunk]

    def chunks(self, size: int | None) -> Iterator[slice]:
        """Slices of at most `size` rows that cover all of them in order; with None, one slice."""
        step = size or max(1, len(self))
        return (slice(start, min(start + step, len(self))) for start in range(0, len(self), step))

    def detached(self) -> Rows:
        """The same answers, through which no gradient flows back."""
        return Rows(self._logits.detach(), self.targets, self.index, self.features, self.present)

    def said_by(self, signal: Signal) -> Rows:
        """The teacher's answers in place of the student's: to be judged as those are."""
        return Rows(signal.logits(), self.targets, self.index)

    def part(self, chunk: slice) -> Rows:
        """Some of the rows. Features are those of the whole samples still."""
        return Rows(self.logits(chunk), self.targets[chunk], self.index[chunk], self.features, self.present)


class Signal(Protocol):
    """A teacher's answers on the same M rows, as far as they are kept; `features` as those of `Rows`."""

    @property
    def features(self) -> Mapping[str, Tensor]: ...

    def __len__(self) -> int: ...

    def logits(self, chunk: slice | None = None) -> Tensor:
        """The logits (m, C) of some rows, or of all (M, C).

        Raises:
            ConfigError: the logits of all classes are not kept.
        """
        ...

    def log_probs(self, T: float, chunk: slice | None = None) -> Tensor:
        """log softmax(z / T) of some rows (m, C), or of all, in fp32 at least."""
        ...

    def part(self, chunk: slice) -> Signal:
        """The signal on some of the rows."""
        ...


class Kept(Signal, Protocol):
    """A signal that can be kept on disk: as arrays by name, in each of which a row is a row of the signal."""

    @staticmethod
    def arrays(rows: int, classes: int) -> dict[str, Array]:
        """What of `rows` rows is kept."""

    @staticmethod
    def pack(rows: Rows) -> dict[str, Tensor]:
        """The numbers of those arrays for a teacher's answers on some rows."""

    @classmethod
    def unpack(cls, arrays: Mapping[str, Tensor], features: Mapping[str, Tensor]) -> Self:
        """The signal that some rows of those arrays hold."""


class Dense:
    """A signal whose logits (M, C) are at hand; they are kept as they are, in fp32."""

    def __init__(self, logits: Tensor, features: Mapping[str, Tensor] | None = None) -> None:
        self._logits, self.features = logits, features or {}

    def __len__(self) -> int:
        return len(self._logits)

    def logits(self, chunk: slice | None = None) -> Tensor:
        return self._logits if chunk is None else self._logits[chunk]

    def log_probs(self, T: float, chunk: slice | None = None) -> Tensor:
        return F.log_softmax(wide(self.logits(chunk)) / T, dim=-1)

    def part(self, chunk: slice) -> Dense:
        return Dense(self.logits(chunk), self.features)

    @staticmethod
    def arrays(rows: int, classes: int) -> dict[str, Array]:
        return {"logits": Array((rows, classes))}

    @staticmethod
    def pack(rows: Rows) -> dict[str, Tensor]:
        return {"logits": rows.logits()}

    @classmethod
    def unpack(cls, arrays: Mapping[str, Tensor], features: Mapping[str, Tensor]) -> Self:
        return cls(arrays["logits"], features)
