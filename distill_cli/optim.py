"""The optimizer and its learning-rate curve; the curve is a pure function of progress through all stages."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from distill_cli import config, schema

# Keys of an optimizer's node that are ours rather than its class's.
OURS = ("curve", "warmup", "milestones", "gamma", "clip", "accumulate")


@dataclass(frozen=True)
class Curve:
    """The learning rate's factor over a run.

    Args:
        shape: constant, cosine (to 0), or step (times `gamma` at each of `milestones`).
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
        if self.shape == "cosine":
            return (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2
        if self.shape == "step":
            return self.gamma ** sum(step >= milestone * steps for milestone in self.milestones)
        return 1.0


@dataclass(frozen=True)
class Recipe:
    """An optimizer's node, read: what to build and how the loop is to drive it."""

    node: Mapping[str, Any]
    lr: float
    curve: Curve
    clip: float | None
    accumulate: int

    @classmethod
    def read(cls, node: Mapping[str, Any]) -> Recipe:
        known = {f.name: f.default for f in dataclasses.fields(schema.Optimizer)}
        get = {key: node.get(key, known[key]) for key in ("lr", "curve", "warmup", "gamma", "clip", "accumulate")}
        curve = Curve(get["curve"], get["warmup"], tuple(node.get("milestones") or ()), get["gamma"])
        return cls(node, get["lr"], curve, get["clip"], get["accumulate"])

    def check(self, where: str) -> None:
        """Raise ConfigError, as `build` would, before there is anything to train."""
        self.build([nn.Parameter(torch.zeros(1))], where)

    def build(self, parameters: Iterable[nn.Parameter], where: str = "optimizer") -> Optimizer:
        """The optimizer over `parameters`, fused where its class can be: the same arithmetic in fewer passes.

        Raises:
            ConfigError: an unknown class or arguments it does not take.
        """
        return config.build(self.node, Optimizer, where, leave_out=OURS, params=list(parameters), fused=True)


def fit_recipe(fit: Mapping[str, Any]) -> Recipe:
    """The optimizer of `teacher.fit`: the file it names, with its own lr and weight decay where given."""
    own = {key: fit[key] for key in ("lr", "weight_decay") if fit[key] is not None}
    return Recipe.read({**config.optimizer_node(fit["optimizer"]), **own})
