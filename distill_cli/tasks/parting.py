"""A student's logits as a signal of few classes tells them apart: each of those, and all the others together, by one softmax."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOWEST = -1e4  # the log of what has no probability: finite, so that 0 times it is 0


class Parted(NamedTuple):
    """Of M rows the logits of the named classes (M, E) and of the target (M,), and logsumexp over those not named (M, 1)."""

    named: Tensor
    target: Tensor
    others: Tensor


def parted(logits: Tensor, ids: Tensor, targets: Tensor) -> Parted:
    """What is told apart in logits (M, C), in two passes over them and one more back, whoever reads it.

    Args:
        ids: the classes that are named, (M, E) int64. targets: (M,) int64; any class where a row has none.
    """
    return Parted(*_Parted.apply(logits, ids, targets.clamp(min=0)))


class _Parted(torch.autograd.Function):
    """The others are summed by themselves: as 1 minus the named ones' sum they would be lost where those have nearly all."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shares = logits.scatter(-1, ids, LOWEST).softmax(-1)  # 0 at `ids`, and so is the gradient of the others
        most, at = shares.max(-1, keepdim=True)
        ctx.save_for_backward(shares, ids, targets)
        named, target = logits.gather(-1, ids), logits.gather(-1, targets[:, None])[:, 0]
        return named, target, logits.gather(-1, at) - most.log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, named: Tensor, target: Tensor, others: Tensor) -> tuple[Tensor, None, None]:
        shares, ids, targets = ctx.saved_tensors
        gradient = shares * others
        gradient.scatter_add_(-1, ids, named)
        gradient.scatter_add_(-1, targets[:, None], target[:, None])
        return gradient, None, None
