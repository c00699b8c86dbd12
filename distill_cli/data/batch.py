"""A batch as a model takes it, and how many samples each batch of an epoch has; where samples come from is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_cli.data import inputs as of_inputs
from distill_cli.data.inputs import Inputs


@dataclass(frozen=True)
class Batch:
    """N samples of a split.

    Args:
        inputs: what the model takes, such as pictures (N, C, H, W) float, normalised.
        targets: what it should answer; for classification the class of each sample, (N,) int64.
        index: the samples' positions in the split, (N,) int64.
        view: which of its random variants each sample is shown in; 0 where there is only one.
    """

    inputs: Inputs
    targets: Tensor
    index: Tensor
    view: int = 0

    def __len__(self) -> int:
        return len(self.index)

    def parts(self, number: int) -> Iterator[Batch]:
        """The batch in at most `number` nearly equal parts, in order."""
        if number == 1:
            yield self
            return
        for rows in torch.arange(len(self), device=self.index.device).tensor_split(number):
            if len(rows):
                yield Batch(of_inputs.take(self.inputs, rows), self.targets[rows], self.index[rows], self.view)


def batch_sizes(samples: int, batch_size: int) -> list[int]:
    """The sizes of an epoch's batches: the last one may be smaller, but a lone last sample joins the batch before it,
    because batch normalisation cannot be trained on one.
    """
    full, rest = divmod(samples, batch_size)
    if rest == 1 and full and batch_size > 1:
        return [batch_size] * (full - 1) + [batch_size + 1]
    return [batch_size] * full + [rest] * bool(rest)
