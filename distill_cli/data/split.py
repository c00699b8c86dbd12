"""A split: uint8 pictures in memory or read as they go, given as batches that are augmented and normalised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from distill_cli.base.errors import CheckpointError
from distill_cli.data.augmentation import Augmentation
from distill_cli.data.loading import Loader

LARGEST_SIDE = 2**13  # of a picture that a file may ask for, in pixels


@dataclass(frozen=True)
class Batch:
    """inputs (N, C, H, W) float, normalised; labels (N,) int64; index (N,) int64, positions in the split; which view."""

    inputs: Tensor
    labels: Tensor
    index: Tensor
    view: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def parts(self, number: int) -> Iterator[Batch]:
        """The batch in at most `number` nearly equal parts, in order."""
        if number == 1:
            yield self
            return
        for rows in torch.arange(len(self), device=self.labels.device).tensor_split(number):
            if len(rows):
                yield Batch(self.inputs[rows], self.labels[rows], self.index[rows], self.view)


@dataclass(frozen=True)
class InputSpec:
    """What a model gets to see: channels, (height, width) in pixels, and the normalisation of values in [0, 1]."""

    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> InputSpec:
        """The spec as model.json holds it.

        Raises:
            CheckpointError: it is not one.
        """
        try:
            height, width = (int(side) for side in stored["size"])
            mean, std = (tuple(float(v) for v in stored[key]) for key in ("mean", "std"))
            if not all(1 <= number <= LARGEST_SIDE for number in (height, width, int(stored["channels"]))):
                raise ValueError(f"pictures of {stored['channels']}x{height}x{width}")
            return cls(int(stored["channels"]), (height, width), mean, std)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"model.json: its input is damaged: {error!r}") from error


@dataclass(frozen=True)
class Split:
    """Pictures as uint8 (N, C, H, W) in memory, or a dataset that reads one (C, H, W) at a time, with their labels."""

    images: Tensor | Dataset[Tensor]
    labels: Tensor
    mean: Tensor
    std: Tensor
    workers: int = 0
    augmentation: Augmentation | None = None
    views: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The same split with what is held in memory on `device`, where its batches are then made."""
        images = self.images.to(device) if isinstance(self.images, Tensor) else self.images
        return replace(
            self, images=images, labels=self.labels.to(device), mean=self.mean.to(device), std=self.std.to(device)
        )

    def view_of(self, epoch: int) -> int:
        """The view that epoch 1, 2, ... shows: one of `views` in turn, or with 0 of them a new one every time."""
        if self.augmentation is None:
            return 0
        return (epoch - 1) % self.views if self.views else epoch - 1

    def batches(
        self, batch_size: int, order: Tensor | None = None, view: int | None = None, skip: int = 0
    ) -> Iterator[Batch]:
        """Normalised batches in `order` (N,) int64, or as they lie; for their sizes see `batch_sizes`.

        Args:
            view: which view of the pictures to show where the split is augmented; None: the pictures as they are.
            skip: so many batches of the epoch are left out, without being read.
        """
        order = torch.arange(len(self)) if order is None else order
        sizes = batch_sizes(len(order), batch_size)
        scale, shift = 1 / (255 * self.std), self.mean / self.std
        for index, pixels in self._pixels(order[sum(sizes[:skip]) :], sizes[skip:]):
            if view is not None and self.augmentation is not None:
                pixels = self.augmentation(pixels, index, view)
            inputs = pixels.float().mul_(scale).sub_(shift)
            yield Batch(inputs, self.labels[index], index, view or 0)

    def _pixels(self, order: Tensor, sizes: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch its index and its uint8 pictures, on the split's device."""
        device = self.labels.device
        indices = order.to(device).split(sizes)
        if isinstance(self.images, Tensor):
            for index in indices:
                yield index, self.images[index]
        else:
            wanted = [index.tolist() for index in order.split(sizes)]
            loader = Loader(self.images, wanted, self.workers, pin_memory=device.type == "cuda")
            for index, pixels in zip(indices, loader, strict=True):
                yield index, pixels.to(device, non_blocking=True)


def batch_sizes(samples: int, batch_size: int) -> list[int]:
    """The sizes of an epoch's batches: the last one may be smaller, but a lone last sample joins the batch before it,
    because batch normalisation cannot be trained on one.
    """
    full, rest = divmod(samples, batch_size)
    if rest == 1 and full and batch_size > 1:
        return [batch_size] * (full - 1) + [batch_size + 1]
    return [batch_size] * full + [rest] * bool(rest)
