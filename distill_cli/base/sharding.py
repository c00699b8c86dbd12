"""Tensors of which each rank keeps a shard: how a network's become so, and whole again; how they are written: shard_files.py."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base import world


def is_shard(value: Any) -> bool:
    """Whether each rank has a shard of a tensor alone."""
    return hasattr(value, "full_tensor")


def shard(units: Sequence[nn.Module], device: torch.device) -> None:
    """Keep a shard of the parameters of some modules alone, on a device: those of a unit are gathered for as long as it computes.

    Gradients are summed over ranks.

    Args:
        units: a module comes after those inside it, and the network is the last.
    """
    from torch.distributed.fsdp import fully_shard

    for unit in units:
        sharded: Any = fully_shard(unit, mesh=_mesh(device.type))
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo can do nothing else
        sharded.set_custom_all_gather(_Gathering())
        sharded.set_custom_reduce_scatter(_Summing())


class _Exchange:
    """What FSDP2 exchanges through: as by default, but that it tells of another process's end as all that ranks do together."""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _Gathering(_Exchange):
    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False) -> Any:
        import torch.distributed as dist

        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # as older versions call it
        return world.together(gather, output_tensor, input_tensor, group, async_op)


class _Summing(_Exchange):
    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False) -> Any:
        import torch.distributed as dist

        reduce = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
        return world.together(reduce, output_tensor, input_tensor, op, group, async_op)


def whole(value: Tensor) -> Tensor:
    """A tensor itself, on every rank; called by all of them."""
    if not is_shard(value):
        return value
    given: Any = value
    return world.together(given.to(given.device_mesh.device_type).full_tensor)


def zeros(shape: Sequence[int], kind: torch.dtype, device: torch.device) -> Tensor:
    """This rank's shard of zeros, on a device."""
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor import zeros as made

    return made(shape, dtype=kind, device_mesh=_mesh(device.type), placements=[Shard(0)])


def laid(value: Any, like: Any) -> Any:
    """A tensor laid out as another one of its shape is: as this rank's shard where it has a shard alone, else in memory."""
    if not (isinstance(value, Tensor) and isinstance(like, Tensor)) or is_shard(value) or value.shape != like.shape:
        return value
    if not is_shard(like):
        return value if value.stride() == like.stride() else torch.empty_like(like, dtype=value.dtype).copy_(value)
    from torch.distributed.tensor import distribute_tensor

    place: Any = like
    return distribute_tensor(value.to(like.device), place.device_mesh, place.placements, src_data_rank=None)


def _mesh(kind: str) -> Any:
    import torch.distributed as dist

    return _mesh_of(kind, dist.group.WORLD)


@functools.cache
def _mesh_of(kind: str, group: Any) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(kind, (group.size(),))
