"""Batch normalisation over the samples of all ranks, for the time that a network is trained; its modules and weights stay the same.

torch.nn.SyncBatchNorm does this on GPUs alone, and is another module.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distill_cli.base import exchange, world


class Synced:
    """What a batch norm becomes: mean and variance are those of all ranks' samples, of each rank as many as it has."""

    def forward(self: Any, values: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        if not self.training:
            return super().forward(values)  # type: ignore[misc]
        variance, mean = torch.var_mean(values.float(), [0, *range(2, values.dim())], correction=0)
        # In double precision: of numbers far from 0 the squares of mean and value nearly cancel.
        mean, count = mean.double(), values.new_tensor([values.numel() / values.shape[1]], dtype=torch.float64)
        sums = exchange.summed(torch.cat([count, count * mean, count * (variance.double() + mean.square())]))
        count, total, squares = sums.split([1, len(mean), len(mean)])
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        if self.track_running_stats:
            self.num_batches_tracked += 1
            step = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            unbiased = variance.detach() * count.detach() / (count.detach() - 1)
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), step)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), step)
        scale = (variance + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        form = (1, -1, *[1] * (values.dim() - 2))
        return torch.addcmul(shift.to(values.dtype).view(form), values, scale.to(values.dtype).view(form))


@functools.cache
def _synced(kind: Any) -> Any:
    return type(f"Synced{kind.__name__}", (Synced, kind), {})


@contextmanager
def synced(*nets: nn.Module) -> Iterator[None]:
    """Inside, all batch norms of some networks that train are over all ranks; in a world of one nothing changes."""
    norms = [one for net in nets for one in net.modules() if isinstance(one, _BatchNorm)] if world.size() > 1 else []
    kinds: list[Any] = [type(one) for one in norms]
    for one, kind in zip(norms, kinds, strict=True):
        one.__class__ = _synced(kind)
    try:
        yield
    finally:
        for one, kind in zip(norms, kinds, strict=True):
            one.__class__ = kind
