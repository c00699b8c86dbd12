"""A weighted sum of terms computed a chunk of rows at a time, forward and backward, so that its memory is a chunk's.

Which terms may be cut so, and what each is multiplied with, is the loss's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from distill_cli.tasks.rows import Rows, Signal, wide


@dataclass(frozen=True)
class Term:
    """One term of a loss: `value`, at a temperature, is the mean over the rows it is given, or their sum if `summed`.

    `by_row` says that rows may be cut, as for an objective; `parameters` are what the term learns beside the student.
    """

    value: Callable[[Rows, Signal, float], Tensor]
    factor: float
    by_row: bool
    summed: bool = False
    parameters: Sequence[nn.Parameter] = ()


def by_chunks(
    terms: Mapping[str, Term], rows: Rows, signal: Signal, T: float, size: int, share: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the terms, as on all rows at once, and each term's value.

    What is held until the backward pass is the gradient of the logits (M, C), in fp32 at least, and nothing per term.

    Args:
        size: rows in a chunk. share: what means are multiplied with beside their factors.

    Returns:
        The sum, a scalar to call backward on once, and each term by name, scalars without a graph.
    """
    learnt = [p for term in terms.values() for p in term.parameters if p.requires_grad]
    total, *values = _WeightedSum.apply(terms, rows, signal, T, size, share, rows.logits(), *learnt)
    return total, dict(zip(terms, values, strict=True))


class _WeightedSum(torch.autograd.Function):
    """`by_chunks` as autograd sees it: gradients are computed along with the values, and only scaled on the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        terms: Mapping[str, Term],
        rows: Rows,
        signal: Signal,
        T: float,
        size: int,
        share: float,
        logits: Tensor,
        *learnt: nn.Parameter,
    ) -> tuple[Tensor, ...]:
        inputs = (logits, *learnt)
        ctx.dtypes = [each.dtype for each in inputs]
        # Wide, as in half precision a gradient that is not yet scaled would round to 0.
        gradients = [torch.zeros_like(each, dtype=torch.promote_types(each.dtype, torch.float32)) for each in inputs]
        total = torch.zeros((), device=logits.device)
        sums = dict.fromkeys(terms, total)
        for chunk in rows.chunks(size):
            weight = (chunk.stop - chunk.start) / len(rows)
            piece = wide(logits[chunk]).detach().requires_grad_()
            part, answer = Rows(piece, rows.targets[chunk], rows.index[chunk]), signal.part(chunk)
            loss = torch.zeros((), device=logits.device)
            for name, term in terms.items():
                with torch.enable_grad():
                    value = term.value(part, answer, T) * (1.0 if term.summed else weight)
                    loss = loss + term.factor * (1.0 if term.summed else share) * value
                sums[name] = sums[name] + value.detach()
            total = total + loss.detach()
            slopes = torch.autograd.grad(loss, [piece, *learnt], allow_unused=True)
            for gradient, slope in zip((gradients[0][chunk], *gradients[1:]), slopes, strict=True):
                if slope is not None:
                    gradient.add_(slope)
        ctx.gradients = gradients
        ctx.mark_non_differentiable(*sums.values())
        return total, *sums.values()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "backward was called twice"
        scaled = [gradient.mul_(slope).to(dtype) for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return (None, None, None, None, None, None, *scaled)
