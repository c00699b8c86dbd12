"""A split: a source's samples with their targets, given as batches that a model can take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from distill_cli.base import runtime
from distill_cli.data import inputs as of_inputs
from distill_cli.data.inputs import Inputs
from distill_cli.data.labels import PART, UNKNOWN, balanced_order
from distill_cli.data.loading import Loader
from distill_cli.data.source import Held, Source
from distill_cli.data.spec import Changes, Spec


@dataclass(frozen=True)
class Batch:
    """N samples of a split.

    Args:
        inputs: what the model takes, such as pictures (N, C, H, W) float, normalised.
        targets: what it should answer; for classification the class of each sample, (N,) int64. UNKNOWN: nobody knows.
        index: the samples' positions in the split, (N,) int64.
        view: which of its random variants each sample is shown in; 0 where there is only one.
        made: whether the samples were made for this step: they have no labels, no split holds them, and nothing is kept of them.
    """

    inputs: Inputs
    targets: Tensor
    index: Tensor
    view: int = 0
    made: bool = False

    def __len__(self) -> int:
        return len(self.index)

    def parts(self, number: int) -> Iterator[Batch]:
        """The batch in at most `number` nearly equal parts, in order."""
        if number == 1:
            yield self
            return
        for rows in torch.arange(len(self), device=self.index.device).tensor_split(number):
            if len(rows):
                inputs = of_inputs.take(self.inputs, rows)
                yield replace(self, inputs=inputs, targets=self.targets[rows], index=self.index[rows])


def batch_sizes(samples: int, batch_size: int) -> list[int]:
    """The sizes of an epoch's batches: the last one may be smaller, but a lone last sample joins the batch before it,
    because batch normalisation cannot be trained on one.
    """
    full, rest = divmod(samples, batch_size)
    if rest == 1 and full and batch_size > 1:
        return [batch_size] * (full - 1) + [batch_size + 1]
    return [batch_size] * full + [rest] * bool(rest)


@dataclass(frozen=True)
class Split:
    """Samples of one use: training, validation or test.

    Args:
        source: where raw samples come from. targets: (N, ...), as in `Batch`, whole numbers of any size.
        spec: what a model gets to see of the samples.
        workers: how many processes read where the source does not hold its samples in memory.
        changes: what is drawn at random for every view of a sample. views: how many views of each sample training shows
            in turn; 0: a new one in every epoch.
        balanced: whether an epoch shows each class equally often; see `labels.balanced_order`.
    """

    source: Source
    targets: Tensor
    spec: Spec
    workers: int = 0
    changes: Changes | None = None
    views: int = 0
    balanced: bool = False

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def labelled(self) -> Tensor:
        """The samples whose targets are all known, (n,) int64."""
        each, parts = math.prod(self.targets.shape[1:]), self.targets.split(PART)
        return torch.cat([(part != UNKNOWN).view(len(part), each).all(1) for part in parts]).nonzero()[:, 0]

    @property
    def complete(self) -> bool:
        """Whether every sample has its label."""
        return len(self.labelled) == len(self)

    def take(self, rows: Tensor) -> Split:
        """The samples at `rows` (n,) int64 alone, in that order."""
        return replace(self, source=self.source.take(rows.cpu().numpy()), targets=self.targets[rows])

    def to(self, device: torch.device) -> Split:
        """The same split with what is held in memory on `device`, where its batches are then made."""
        held = self.source.held
        source = self.source if held is None else Held(of_inputs.to(held, device))
        return replace(self, source=source, targets=self.targets.to(device))

    @property
    def draws(self) -> Mapping[str, Any]:
        """The settings of what is drawn at random for every view; empty where all views are alike."""
        return self.changes.settings if self.changes else {}

    def view_of(self, epoch: int) -> int:
        """The view that epoch 1, 2, ... shows: one of `views` in turn, or with 0 of them a new one every time."""
        if not self.draws:
            return 0
        return (epoch - 1) % self.views if self.views else epoch - 1

    def order(self, batch_size: int, seed: int, epoch: int) -> Tensor:
        """The order of samples (N,) int64 in an epoch, which depends on (seed, epoch) and the batch alone: a permutation or,
        where `balanced`, as many samples of each class as of any other.
        """
        targets, samples = self.targets, len(self)
        drawn = balanced_order(targets, seed, epoch) if self.balanced else runtime.sample_order(samples, seed, epoch)
        draw = torch.Generator().manual_seed(runtime.seed_of("batches", seed, epoch))
        return self.source.arranged(drawn, batch_size, draw)

    def batches(
        self, batch_size: int, order: Tensor | None = None, view: int | None = None, skip: int = 0
    ) -> Iterator[Batch]:
        """Batches on the split's device in `order` (N,) int64, or as they lie; for their sizes see `batch_sizes`.

        Args:
            view: which view of the samples to show where views differ; None: the samples without random changes.
            skip: so many batches of the epoch are left out, without being read.
        """
        order = torch.arange(len(self)) if order is None else order
        return self.read(order.split(batch_sizes(len(order), batch_size))[skip:], view)

    def read(self, rows: Sequence[Tensor], view: int | None = None) -> Iterator[Batch]:
        """A batch on the split's device of each of these `rows`, (n,) int64. view: as for `batches`."""
        for index, raw in self._raw(rows):
            if self.changes is not None and view is not None:
                raw = self.changes(raw, index, view)
            yield Batch(self.spec.inputs(raw), self.targets[index].long(), index, view or 0)

    def shown(self, row: int) -> dict[str, str]:
        """A sample as a page shows it, see `Spec.shown`.

        Raises:
            DataError: it cannot be read.
        """
        return self.spec.shown(self.source.read([row]))

    def _raw(self, rows: Sequence[Tensor]) -> Iterator[tuple[Tensor, Inputs]]:
        """For each batch its index and its raw samples, on the split's device."""
        device, held = self.targets.device, self.source.held
        indices = torch.cat([torch.empty(0, dtype=torch.int64), *rows]).to(device).split([len(index) for index in rows])
        if held is not None:
            for index in indices:
                yield index, of_inputs.take(held, index)
            return
        wanted = [index.tolist() for index in rows]
        for index, raw in zip(indices, Loader(self.source, wanted, self.workers, device.type == "cuda"), strict=True):
            yield index, of_inputs.to(raw, device, non_blocking=True)
