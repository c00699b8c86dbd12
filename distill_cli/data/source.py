"""Where samples come from, raw as they are stored: memory, or anything that reads some rows when it is asked to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from distill_cli.data import inputs as of_inputs
from distill_cli.data.inputs import Inputs


@runtime_checkable
class Source(Protocol):
    """Raw samples, found by their row from 0.

    What is `held` in memory moves to the training device and is indexed there; of other sources each batch is read when
    it is needed, by several threads at once where workers are asked for.
    """

    @property
    def held(self) -> Inputs | None:
        """All samples, where they are in memory; else None."""

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int]) -> Inputs:
        """The samples at `rows`, in that order.

        A source that reads one sample after the other takes `rows` in a plain loop: then whoever reports an error, or a
        read that hangs, can name the sample.

        Raises:
            DataError: a sample cannot be read. OSError: the same; the loader names the sample.
        """

    def take(self, rows: np.ndarray) -> Source:
        """A source of the samples at `rows` (n,) alone, in that order."""

    def digest(self) -> str:
        """What tells these samples from all others, as a string of any length."""

    def name_of(self, row: int) -> str:
        """What to call a sample in a message."""


@dataclass(frozen=True)
class Held:
    """Samples in memory."""

    values: Inputs

    @property
    def held(self) -> Inputs:
        return self.values

    def __len__(self) -> int:
        return of_inputs.count(self.values)

    def read(self, rows: Sequence[int]) -> Inputs:
        return of_inputs.take(self.values, torch.as_tensor(np.asarray(rows, dtype=np.int64)))

    def take(self, rows: np.ndarray) -> Held:
        return Held(self.read(rows.tolist()))

    def digest(self) -> str:
        content = hashlib.sha256()
        for piece in of_inputs.content(self.values):
            content.update(piece)
        return content.hexdigest()

    def name_of(self, row: int) -> str:
        return f"sample {row}"


@dataclass(frozen=True)
class Items:
    """A data set that gives sample `i` as `dataset[i]`, as torch's do; it has `take` and `digest` as a source has.

    Its samples are tensors, or mappings of tensors, of one shape. `name_of` may be missing.
    """

    dataset: Any
    held = None

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, rows: Sequence[int]) -> Inputs:
        return of_inputs.stacked([self.dataset[row] for row in rows])

    def take(self, rows: np.ndarray) -> Items:
        return Items(self.dataset.take(rows))

    def digest(self) -> str:
        return str(self.dataset.digest())

    def name_of(self, row: int) -> str:
        named: str = getattr(self.dataset, "name_of", "sample {}".format)(row)
        return named


def source_of(samples: Any) -> Source:
    """The source that `samples` is, or that holds them: a tensor, tensors by name, or a data set read one by one."""
    if of_inputs.are_inputs(samples):
        return Held(samples)
    return samples if isinstance(samples, Source) else Items(samples)
