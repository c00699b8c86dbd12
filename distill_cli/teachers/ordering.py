"""A teacher's answers, which come in the order of batches, as blocks in the order of samples; and from where a build goes on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from distill_cli.data import Split, batch_sizes
from distill_cli.models import Classifier, inference
from distill_cli.teachers.kept import rows_of

LAYER = "layer."  # before a path: the array of an entry that holds a layer's features; the others hold rows


def in_order(
    blocks: Iterator[tuple[Tensor, dict[str, Tensor]]], counts: Tensor | None, first: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Blocks of samples in any order as blocks in the split's own; samples wait for those before them.

    Args:
        blocks: the samples' index (n,), and arrays of their rows or features. counts: how many rows each sample has. first: the
            first sample among them.
    """
    waiting = list[tuple[Tensor, dict[str, Tensor]]]()
    for block in blocks:
        waiting.append(block)
        index = torch.cat([index for index, _ in waiting])
        if int(index.max()) + 1 - first > len(index):
            continue
        samples = rows = index.argsort()
        if counts is not None:
            starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts[index].cumsum(0)])
            rows = rows_of(samples, starts)
        together = {name: torch.cat([arrays[name] for _, arrays in waiting]) for name in block[1]}
        yield {name: v[samples if name.startswith(LAYER) else rows].numpy() for name, v in together.items()}
        first, waiting = first + len(index), []


def after(blocks: int, model: Classifier, split: Split) -> tuple[int, int]:
    """How many batches, and how many samples, the first blocks of `in_order` are of."""
    size, seen, beyond = inference.at_once(model, split), 0, 0
    order = split.source.arranged(torch.arange(len(split)), size)
    for number, index in enumerate(order.split(batch_sizes(len(split), size)) if blocks else (), 1):
        seen, beyond = seen + len(index), max(beyond, int(index.max()) + 1)
        blocks -= seen == beyond
        if not blocks:
            return number, seen
    return 0, 0
