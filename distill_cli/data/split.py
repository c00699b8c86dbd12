"""A split: a source's samples with their targets, given as batches that a model can take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distill_cli.data import inputs as of_inputs
from distill_cli.data.batch import Batch, batch_sizes
from distill_cli.data.inputs import Inputs
from distill_cli.data.loading import Loader
from distill_cli.data.source import Held, Source
from distill_cli.data.spec import Transform


@dataclass(frozen=True)
class Split:
    """Samples of one use: training, validation or test.

    Args:
        source: where raw samples come from. targets: (N, ...), as in `Batch`.
        transform: makes raw samples into what a model takes.
        workers: how many read at once where the source does not hold its samples in memory.
        views: how many views of each sample training shows in turn; 0: a new one in every epoch.
        at_once: how many samples a model answers together where nobody says.
    """

    source: Source
    targets: Tensor
    transform: Transform
    workers: int = 0
    views: int = 0
    at_once: int = 128

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Split:
        """The same split with what is held in memory on `device`, where its batches are then made."""
        held = self.source.held
        source = self.source if held is None else Held(of_inputs.to(held, device))
        return replace(self, source=source, targets=self.targets.to(device), transform=self.transform.to(device))

    @property
    def draws(self) -> Mapping[str, Any]:
        """The settings of what is drawn at random for every view; empty where there is one view only."""
        return self.transform.draws

    def view_of(self, epoch: int) -> int:
        """The view that epoch 1, 2, ... shows: one of `views` in turn, or with 0 of them a new one every time."""
        if not self.draws:
            return 0
        return (epoch - 1) % self.views if self.views else epoch - 1

    def batches(
        self, batch_size: int, order: Tensor | None = None, view: int | None = None, skip: int = 0
    ) -> Iterator[Batch]:
        """Batches on the split's device in `order` (N,) int64, or as they lie; for their sizes see `batch_sizes`.

        Args:
            view: which view of the samples to show where views differ; None: the samples without random changes.
            skip: so many batches of the epoch are left out, without being read.
        """
        order = torch.arange(len(self)) if order is None else order
        sizes = batch_sizes(len(order), batch_size)
        for index, raw in self._raw(order[sum(sizes[:skip]) :], sizes[skip:]):
            yield Batch(self.transform(raw, index, view), self.targets[index], index, view or 0)

    def shown(self, row: int) -> dict[str, str]:
        """A sample as a page shows it, see `Transform.shown`.

        Raises:
            DataError: it cannot be read.
        """
        return self.transform.shown(self.source.read([row]))

    def _raw(self, order: Tensor, sizes: list[int]) -> Iterator[tuple[Tensor, Inputs]]:
        """For each batch its index and its raw samples, on the split's device."""
        device, held = self.targets.device, self.source.held
        indices = order.to(device).split(sizes)
        if held is not None:
            for index in indices:
                yield index, of_inputs.take(held, index)
        else:
            wanted = [index.tolist() for index in order.split(sizes)]
            loader = Loader(self.source, wanted, self.workers, pin_memory=device.type == "cuda")
            for index, raw in zip(indices, loader, strict=True):
                yield index, of_inputs.to(raw, device, non_blocking=True)
