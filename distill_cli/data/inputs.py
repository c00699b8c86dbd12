"""The inputs of a model: one tensor, or several by name. Only this module asks which of the two they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
    return len(inputs if isinstance(inputs, Tensor) else next(iter(inputs.values())))


def content(inputs: Inputs) -> list[bytes | memoryview]:
    """The bytes of all tensors, to be hashed: one tensor's are its values alone; of several, names come between them."""
    if isinstance(inputs, Tensor):
        return [np.ascontiguousarray(inputs.cpu().numpy()).data]
    return [piece for name in sorted(inputs) for piece in (name.encode(), *content(inputs[name]))]


def _each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    if isinstance(inputs, Tensor):
        return change(inputs)
    return {name: change(tensor) for name, tensor in inputs.items()}
