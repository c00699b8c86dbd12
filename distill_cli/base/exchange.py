"""Rows of all ranks through which gradients find their way back; what is exchanged without gradients: world.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill_cli.base import world


def rows(values: Tensor) -> Tensor:
    """The rows (N, ...) of all ranks, one rank's after the other's, however many each has; gradients are summed over all ranks."""
    return _Rows.apply(values) if world.size() > 1 else values


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        counts = torch.zeros(world.size(), dtype=torch.int64)
        counts[world.rank()] = len(values)
        counts = world.total(counts)
        first = int(counts[: world.rank()].sum())
        ctx.own = slice(first, first + len(values))
        every = values.new_zeros(int(counts.sum()), *values.shape[1:])
        every[ctx.own] = values
        return world.total(every)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return world.total(slope.clone())[ctx.own]
