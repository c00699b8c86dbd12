"""A model of which each rank keeps a shard of every weight, made of a whole one; how tensors are sharded is in base/sharding.py."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base import sharding
from distill_cli.base.errors import ConfigError
from distill_cli.models import Classifier, num_parameters


def sharded(model: Classifier) -> Classifier:
    """The model itself or, where it is to be kept in shards, a copy with this rank's on its device; called by all ranks.

    Its repeated blocks are gathered one at a time as they compute, and what is outside of them together.

    Raises:
        ConfigError: it has parameters that cannot be sharded.
    """
    if model.spread is None:
        return model
    copied = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    try:
        sharding.shard([*blocks(copied.net), copied.net], model.spread)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"parallel=fsdp: {type(model.net).__name__} cannot be sharded: {error}", "parallel=ddp"
        ) from error
    copied.to(model.spread)
    return copied


def gathered(model: Classifier) -> Classifier:
    """A sharded model, with all whole that is outside of its repeated blocks, until it learns; called by all ranks."""
    net: Any = model.net
    net.unshard()
    return model


def laid(state: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """A state dict of whole tensors or shards as a network keeps them."""
    own = net.state_dict()
    return {name: sharding.laid(value, own.get(name)) for name, value in state.items()}


def whole(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with whole tensors in the memory of the machine, on every rank; called by all."""
    return {name: sharding.whole(value).cpu() for name, value in state.items()}


def blocks(net: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a network: modules of one class with others inside that stand in one list, outermost ones."""
    found: list[nn.Module] = []
    for child in net.children():
        listed = list(child.children()) if isinstance(child, nn.ModuleList | nn.Sequential) else []
        kinds = [type(one) for one in listed if any(True for _ in one.children()) and num_parameters(one)]
        if alike := [one for one in listed if kinds.count(type(one)) > 1]:
            found += alike
        else:
            found += blocks(child)
    return found
