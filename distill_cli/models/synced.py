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
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from distill_cli.base import world


class Synced:
    """What a batch norm becomes: mean and variance are those of all ranks' samples, of each rank as many as it has."""

    def forward(self: Any, values: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        if not self.training:
            return super().forward(values)  # type: ignore[misc]
        count, mean, variance = _moments(values.detach())
        if self.track_running_stats:
            self.num_batches_tracked += 1
            step = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            unbiased = variance * count / (count - 1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), step)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), step)
        return _Normalised.apply(values, self.weight, self.bias, count, mean.float(), variance.float(), self.eps)


def _moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many values a channel has over all ranks, (1,); their means and variances, (C,), in double precision."""
    own = torch.zeros(2, values.shape[1], device=values.device)  # makes what is returned fp32, whatever the values are
    mean, variance = torch.batch_norm_update_stats(values, own[0], own[1], 0.0)
    mean, count = mean.double(), mean.new_full((1,), values.numel() / values.shape[1], dtype=torch.float64)
    sums = world.total(torch.cat([count, count * mean, count * (variance.double() + mean.square())]))
    count, total, squares = sums.split([1, len(mean), len(mean)])
    mean = total / count
    return count, mean, (squares / count - mean.square()).clamp(min=0)


class _Normalised(torch.autograd.Function):
    """Values at the mean and variance of all ranks. The kernels are those of batch norm at given statistics; what the statistics
    move is added to their gradient (Ioffe and Szegedy 2015, section 3), from sums over all ranks.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, count: Tensor, *given: Any
    ) -> Tensor:
        mean, variance, ctx.eps = given
        ctx.save_for_backward(values, weight, count, mean, variance)
        return functional.batch_norm(values, mean, variance, weight, bias, eps=ctx.eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, count, mean, variance = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight
        none = mean.new_empty(0)  # a GPU's kernel wants a tensor
        direct, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            slope, values, scale, mean, variance, none, none, False, ctx.eps, [True, True, True]
        )
        moved = world.total(torch.stack([by_weight, by_bias]).double()) / count
        moved = (-scale * (variance + ctx.eps).rsqrt() * moved).float()
        through = functional.batch_norm(values, mean, variance, moved[0], moved[1], eps=ctx.eps)
        found = (None, None) if weight is None else (by_weight, by_bias)
        return direct.add_(through), *found, None, None, None, None


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
