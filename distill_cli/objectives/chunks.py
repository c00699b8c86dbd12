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

    What is held until the backward pass is the gradient of the answers (M, D), in fp32 at least, and that of the head's weights
    where there is a head, and nothing per term. The head is run once for all terms.

    Args:
        factors: what each term is multiplied with. size: rows in a chunk.

    Returns:
        The sum, a scalar to call backward on once, and each term by name, scalars without a graph.
    """
    learnt: list[Tensor] = [p for term in terms.values() for p in term.parameters() if p.requires_grad]
    learnt += _of_head(rows)
    inputs = [rows.answers, *learnt]
    # Wide, as in half precision a gradient that is not yet scaled would round to 0.
    gradients = [torch.zeros_like(each, dtype=torch.promote_types(each.dtype, torch.float32)) for each in inputs]
    total = torch.zeros((), device=rows.targets.device)
    values = dict.fromkeys(terms, total)
    for chunk in rows.chunks(size):
        weight = (chunk.stop - chunk.start) / len(rows)
        piece, answer = rows.answers[chunk], signal.part(chunk)
        piece = (wide(piece) if rows.head is None else piece).detach().requires_grad_()
        with torch.enable_grad():
            logits = piece if rows.head is None else wide(rows.head(piece))
            part = Rows(logits, rows.targets[chunk], rows.index[chunk], few=answer.few)
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


def _of_head(rows: Rows) -> list[Tensor]:
    """The weights that the head of some rows learns by: those that its graph reaches."""
    if rows.head is None:
        return []
    with torch.enable_grad():
        start = rows.answers[:1].detach().requires_grad_()
        nodes, leaves = [rows.head(start).grad_fn], dict[int, Tensor]()
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if (leaf := getattr(node, "variable", None)) is not None and leaf is not start:
            leaves[id(leaf)] = leaf
        new = {following for following, _ in getattr(node, "next_functions", ()) if following is not None} - seen
        seen |= new
        nodes += new
    return list(leaves.values())


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
