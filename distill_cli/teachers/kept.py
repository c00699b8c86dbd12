"""A teacher's answers on a split, as they are kept: found by sample, or all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_cli.tasks.rows import Rows, Signal
from distill_cli.teachers.keeping import Keeper


@dataclass(frozen=True)
class Answers:
    """A teacher's answers on a split.

    Attributes:
        keeper: tells what the rows hold. rows: of all rows, by array, (M, ...). features: by module path, of all samples, (N, ...).
        starts: where each sample's rows begin, (N + 1,) int64; None: each sample has one row.
        check: compares some rows (m,) and samples (n,), or with None all, with what was written before they are used; None: all
            were compared.
    """

    keeper: Keeper
    rows: Mapping[str, Tensor]
    features: Mapping[str, Tensor]
    starts: Tensor | None = None
    check: Callable[[np.ndarray | None, np.ndarray | None], None] | None = None

    @property
    def nbytes(self) -> int:
        return sum(values.nbytes for values in (*self.rows.values(), *self.features.values()))

    def to(self, device: torch.device) -> Answers:
        """The same answers on `device`."""
        if device.type == "cpu":
            return self
        if self.check:
            self.check(None, None)
        rows, features = (
            {name: values.to(device) for name, values in part.items()} for part in (self.rows, self.features)
        )
        return Answers(self.keeper, rows, features, self.starts)

    def on(self, index: Tensor) -> Signal:
        """The signal on the rows of the samples at `index` (n,) int64, on the device of `index`."""

        def at(place: Tensor, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: values[place.to(values.device)].to(index.device) for name, values in arrays.items()}

        rows = index if self.starts is None else rows_of(index.cpu(), self.starts)
        if self.check:
            self.check(rows.cpu().numpy(), index.cpu().numpy())
        return self.keeper.unpack(at(rows, self.rows), at(index, self.features))

    @property
    def samples(self) -> int:
        return len(next(iter(self.rows.values()))) if self.starts is None else len(self.starts) - 1

    def whole(self) -> Signal:
        """The signal on all rows."""
        if self.check:
            self.check(None, None)
        return self.keeper.unpack(self.rows, self.features)

    def again(self, keeper: Keeper) -> Answers:
        """The same answers, kept otherwise."""
        answers, head = self.whole().answers()
        none = torch.zeros(len(answers), dtype=torch.int64)
        return Answers(keeper, keeper.pack(Rows(answers, none, none, head=head)), {}, self.starts)


def rows_of(index: Tensor, starts: Tensor) -> Tensor:
    """The rows of the samples at `index`, one sample's after the other's."""
    bounds = zip(starts[index].tolist(), starts[index + 1].tolist(), strict=True)
    return torch.cat([torch.arange(first, after) for first, after in bounds])
