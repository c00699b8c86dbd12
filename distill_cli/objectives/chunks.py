"""A weighted sum of objectives computed a chunk of rows at a time, forward and backward, so that its memory is a chunk's.

Which objectives may be cut so, and what each is multiplied with, is the loss's affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill_cli.objectives.base import Objective
from distill_cli.tasks.rows import Rows, Signal, wide


def by_chunks(
    terms: Mapping[str, Objective], factors: Mapping[str, float], rows: Rows, signal: Signal, T: float, size: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the terms, as on all rows at once, and each term's value.

    What is held until the backward pass is the gradient of the logits (M, C), in fp32 at least, and nothing per term.

    Args:
        factors: what each term is multiplied with. size: rows in a chunk.

    Returns:
        The sum, a scalar to call backward on once, and each term by name, scalars without a graph.
    """
    learnt = [p for term in terms.values() for p in term.parameters() if p.requires_grad]
    inputs = [rows.logits(), *learnt]
    # Wide, as in half precision a gradient that is not yet scaled would round to 0.
    gradients = [torch.zeros_like(each, dtype=torch.promote_types(each.dtype, torch.float32)) for each in inputs]
    total = torch.zeros((), device=rows.targets.device)
    values = dict.fromkeys(terms, total)
    for chunk in rows.chunks(size):
        weight = (chunk.stop - chunk.start) / len(rows)
        piece = wide(rows.logits(chunk)).detach().requires_grad_()
        part, answer = Rows(piece, rows.targets[chunk], rows.index[chunk]), signal.part(chunk)
        with torch.enable_grad():
            loss = torch.zeros_like(total)
            for name, term in terms.items():
                value = term(part, answer, T) * (1.0 if term.summed else weight)
                loss = loss + factors[name] * value
                values[name] = values[name] + value.detach()
            slopes = torch.autograd.grad(loss, [piece, *learnt], allow_unused=True)
        total = total + loss.detach()
        for gradient, slope in zip((gradients[0][chunk], *gradients[1:]), slopes, strict=True):
            if slope is not None:
                gradient.add_(slope)
    return _Differentiated.apply(total, gradients, *inputs), values


class _Differentiated(torch.autograd.Function):
    """A value whose gradients are computed already: they are only scaled on the way back."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *inputs: Tensor) -> Tensor:
        ctx.gradients, ctx.dtypes = gradients, [each.dtype for each in inputs]
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "backward was called twice"
        return None, None, *(g.mul_(slope).to(dtype) for g, dtype in zip(gradients, ctx.dtypes, strict=True))
