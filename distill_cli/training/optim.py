"""The optimizer and its learning-rate curve; the curve is a pure function of progress through all stages."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distill_cli.base import sharding
from distill_cli.config import building, places, schema


@dataclass(frozen=True)
class Curve:
    """The learning rate's factor over a run.

    Args:
        shape: constant, cosine or linear (to 0), or step (times `gamma` at each of `milestones`).
        warmup: share of all steps over which the factor first rises linearly from near 0.
        milestones: shares of all steps, for step.
    """

    shape: str = "constant"
    warmup: float = 0.0
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1

    def at(self, step: int, steps: int) -> float:
        """The factor at step 0 .. steps - 1."""
        rising = round(self.warmup * steps)
        if step < rising:
            return (step + 1) / rising
        gone = (step - rising) / max(1, steps - rising)
        if self.shape == "cosine":
            return (1 + math.cos(math.pi * gone)) / 2
        if self.shape == "linear":
            return 1 - gone
        if self.shape == "step":
            return self.gamma ** sum(step >= milestone * steps for milestone in self.milestones)
        return 1.0


@dataclass(frozen=True)
class Recipe:
    """An optimizer's settings: what to build and how the loop is to drive it."""

    settings: schema.Optimizer

    @property
    def node(self) -> Mapping[str, Any]:
        """All that is set of it, as composed."""
        return self.settings.plain

    @property
    def lr(self) -> float:
        return self.settings.lr

    @property
    def clip(self) -> float | None:
        return self.settings.clip

    @property
    def accumulate(self) -> int:
        return self.settings.accumulate

    @functools.cached_property
    def curve(self) -> Curve:
        own = self.settings
        return Curve(own.curve, own.warmup, tuple(own.milestones), own.gamma)

    def check(self, where: str) -> None:
        """Raise ConfigError, as `build` would, before there is anything to train."""
        self.build([("", nn.Parameter(torch.zeros(1)))], where)

    def build(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        where: str = "optimizer",
        dtype: torch.dtype = torch.float32,
    ) -> Optimizer:
        """The optimizer over what is trained, fused where its class can be: the same arithmetic in fewer passes.

        Args:
            parameters: with their names; frozen ones are left out.
            dtype: in which the model computes. With fp16 the first step may be left out, after which fused SGD would go
                on from a momentum that was never written.

        Raises:
            ConfigError: an unknown class or arguments it does not take.
        """
        words = [word.casefold() for word in self.settings.no_decay]
        trained = [(name.casefold(), parameter) for name, parameter in parameters if parameter.requires_grad]
        spared = [parameter for name, parameter in trained if any(word in name for word in words)]
        others = [parameter for name, parameter in trained if not any(word in name for word in words)]
        sharded = any(sharding.is_shard(parameter) for _, parameter in trained)  # which not all fused kernels know
        fused = None if sharded else dtype != torch.float16 or not self.settings.momentum
        groups = [{"params": others}, {"params": spared, "weight_decay": 0.0}] if spared else others
        return building.build(self.settings.node, Optimizer, where, params=groups, fused=fused)


def fit_recipe(fit: schema.Fit) -> Recipe:
    """The optimizer of `teacher.fit`: the file it names, with its own lr and weight decay where given."""
    return Recipe(places.optimizer_of(fit))


def restore(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Put back what its `state_dict` gave.

    A fused kernel writes as far as the parameter's shape reaches, so a tensor of another shape is refused.

    Raises:
        ValueError: it is of another optimizer, or of other parameters.
    """
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    every = {
        place: {name: sharding.laid(value, parameters.get(place)) for name, value in kept.items()}
        for place, kept in state["state"].items()
    }
    built = [group.get("fused") for group in optimizer.param_groups]
    optimizer.load_state_dict({**state, "state": every})
    for group, fused in zip(optimizer.param_groups, built, strict=True):
        group |= {"fused": fused} if "fused" in group else {}  # what was saved may be of shards, or of whole tensors
    fused = any(built)
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if fused and isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                raise ValueError(f"the optimizer's {name} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}")
