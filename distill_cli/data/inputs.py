"""The inputs of a model: one tensor, or several by name. Only this module asks which of the two they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

Inputs = Tensor | Mapping[str, Tensor]  # the first dimension of every tensor counts samples


def to(inputs: Inputs, device: torch.device, non_blocking: bool = False) -> Inputs:
    """The inputs on `device`; `non_blocking` as in `Tensor.to`."""
    return _each(inputs, lambda tensor: tensor.to(device, non_blocking=non_blocking))


def take(inputs: Inputs, rows: Tensor) -> Inputs:
    """The samples at `rows` (n,) int64, in that order."""
    return _each(inputs, lambda tensor: tensor[rows])


def pinned(inputs: Inputs) -> Inputs:
    """A copy in page-locked memory, from which a GPU can read while the CPU goes on."""
    return _each(inputs, Tensor.pin_memory)


def count(inputs: Inputs) -> int:
    """How many samples there are."""
    return len(inputs) if isinstance(inputs, Tensor) else len(next(iter(inputs.values())))


def joined(batches: Sequence[Inputs]) -> Inputs:
    """Several batches as one, in order."""
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.cat([batch for batch in batches if isinstance(batch, Tensor)])
    return {name: torch.cat([batch[name] for batch in batches if not isinstance(batch, Tensor)]) for name in first}


def stacked(samples: Sequence[Inputs]) -> Inputs:
    """Single samples, whose tensors have no dimension that counts them, as one batch."""
    return joined([_each(sample, lambda tensor: tensor[None]) for sample in samples])


def content(inputs: Inputs) -> list[memoryview]:
    """The bytes of all tensors, to be hashed: one tensor's are its values alone; of several, names come between them."""
    if isinstance(inputs, Tensor):
        return [np.ascontiguousarray(inputs.cpu().numpy()).data]
    pieces = [[memoryview(name.encode()), *content(inputs[name])] for name in sorted(inputs)]
    return [piece for named in pieces for piece in named]


def are_inputs(value: object) -> TypeGuard[Inputs]:
    """Whether `value` is a tensor, or tensors by name."""
    return isinstance(value, Tensor | Mapping)


def _each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    if isinstance(inputs, Tensor):
        return change(inputs)
    return {name: change(tensor) for name, tensor in inputs.items()}
