"""A source of samples some of which may not be readable: a blank stands for such a one, and it can be told which and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import RawArray
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill_cli.base.errors import DataError
from distill_cli.data.inputs import Inputs
from distill_cli.data.source import Source


@dataclass(frozen=True)
class Attempted(Source):
    """The samples of another source, whose batches stay as they would be if all could be read.

    Args:
        blank: a raw sample, (1, ...), which stands for what cannot be read.
    """

    source: Source
    blank: Inputs
    _failed: Any = field(init=False)  # a byte a sample, in memory that worker processes share

    def __post_init__(self) -> None:
        object.__setattr__(self, "_failed", RawArray("b", len(self.source)))

    def __len__(self) -> int:
        return len(self.source)

    def read(self, rows: Sequence[int]) -> Inputs:
        blank = self.blank
        if not isinstance(blank, Tensor):  # samples that are of several parts are in memory
            return self.source.read(rows)
        return torch.cat([self._one(row, blank) for row in rows])

    def _one(self, row: int, blank: Tensor) -> Tensor:
        try:
            one = self.source.read([row])
        except (DataError, OSError):
            self._failed[row] = 1
            return blank
        assert isinstance(one, Tensor)
        return one

    def faults(self) -> dict[int, str]:
        """They are read once more for it."""
        return {row: self._fault(row) for row, failed in enumerate(self._failed) if failed}

    def _fault(self, row: int) -> str:
        try:
            self.source.read([row])
        except (DataError, OSError) as error:
            return error.message if isinstance(error, DataError) else str(error)
        return "it could not be read at first"

    def take(self, rows: np.ndarray) -> Attempted:
        return Attempted(self.source.take(rows), self.blank)

    def digest(self) -> str:
        return self.source.digest()

    def arranged(self, order: Tensor, batch_size: int, draw: torch.Generator | None = None) -> Tensor:
        return self.source.arranged(order, batch_size, draw)

    def columns(self, row: int) -> dict[str, str]:
        return self.source.columns(row)

    def name_of(self, row: int) -> str:
        return self.source.name_of(row)
