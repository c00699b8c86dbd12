"""Where samples come from, raw as they are stored: memory, or anything that reads some rows when it is asked to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from distill_cli.data import inputs as of_inputs
from distill_cli.data.inputs import Inputs


class Source(Protocol):
    """Raw samples, found by their row from 0. A class inherits what it does not say.

    What is `held` in memory moves to the training device and is indexed there; of other sources each batch is read when
    it is needed, by several processes at once where workers are asked for.
    """

    @property
    def held(self) -> Inputs | None:
        """All samples, where they are in memory; else None."""
        return None

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

    def arranged(self, order: Tensor, batch_size: int, draw: torch.Generator | None = None) -> Tensor:
        """The order in which samples are shown: samples that differ in length come with those that are as long.

        Args:
            order: of the samples, (n,) int64. draw: what is drawn from it is the same whenever the epoch is. None: nothing is.
        """
        return order

    def columns(self, row: int) -> dict[str, str]:
        """What a table of predictions holds of a sample beside its row, by column; the same columns for all."""
        return {}

    def faults(self) -> dict[int, str]:
        """Why samples that were asked for could not be read, by row, where something stands for them."""
        return {}

    def name_of(self, row: int) -> str:
        """What to call a sample in a message."""
        return f"sample {row}"


@dataclass(frozen=True)
class Held(Source):
    """Samples in memory."""

    values: Inputs

    @property
    def held(self) -> Inputs:
        return self.values

    def __len__(self) -> int:
        return of_inputs.count(self.values)

    def read(self, rows: Sequence[int]) -> Inputs:
        return of_inputs.take(self.values, torch.tensor(list(rows), dtype=torch.int64))

    def take(self, rows: np.ndarray) -> Held:
        return Held(of_inputs.take(self.values, torch.from_numpy(rows)))

    def digest(self) -> str:
        return sha256(of_inputs.content(self.values))


def sha256(pieces: Iterable[bytes | memoryview]) -> str:
    """SHA-256 of some bytes, in order."""
    content = hashlib.sha256()
    for piece in pieces:
        content.update(piece)
    return content.hexdigest()


def by_length(
    order: Tensor, lengths: Tensor, batch_size: int, bucket: int, draw: torch.Generator | None = None
) -> Tensor:
    """An order of samples (n,) in which alike lengths stand together, so that little is padded: windows of `bucket` batches,
    each sorted by length, stably; then, where `draw` is given, all full batches in an order of its own.

    Args:
        lengths: of all samples, (N,) int64.
    """
    windows = [part[lengths[part].argsort(stable=True)] for part in order.split(bucket * batch_size)]
    order = torch.cat(windows)
    if draw is None:
        return order
    full = len(order) // batch_size
    full -= len(order) == full * batch_size + 1  # a lone last sample joins the batch before it
    batches = order[: full * batch_size].view(full, batch_size)
    return torch.cat([batches[torch.randperm(full, generator=draw)].flatten(), order[full * batch_size :]])
