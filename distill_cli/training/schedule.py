"""Stages, and T, alpha and the learning rate as pure functions of progress: nothing about them is ever saved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distill_cli.config import schema


@dataclass(frozen=True)
class Ramp:
    """A value that moves from `start` to `end`, linearly or along half a cosine."""

    start: float
    end: float
    shape: str = "linear"

    def at(self, progress: float) -> float:
        """The value at progress 0 (start) to 1 (end)."""
        if self.start == self.end:
            return self.start
        moved = progress if self.shape == "linear" else (1 - math.cos(math.pi * progress)) / 2
        return self.start + (self.end - self.start) * moved

    def __str__(self) -> str:
        return f"{self.start:g}" if self.start == self.end else f"{self.start:g}→{self.end:g}"


@dataclass(frozen=True)
class Stage:
    """Some epochs, or instead some steps, under one pair of ramps; `lr` replaces the optimizer's own while it lasts, `quantize` is
    for 8 bits.
    """

    name: str
    epochs: int
    T: Ramp
    alpha: Ramp
    objectives: tuple[str, ...]
    lr: float | None = None
    quantize: bool = False
    steps: int | None = None

    def length(self, per_epoch: int) -> int:
        """Its steps, where a pass over train has `per_epoch`."""
        return self.epochs * per_epoch if self.steps is None else self.steps

    def passes(self, per_epoch: int) -> int:
        """Its passes over train, with one that its last step cuts short."""
        return math.ceil(self.length(per_epoch) / per_epoch)

    def __str__(self) -> str:
        number, unit = (self.epochs, "epoch") if self.steps is None else (self.steps, "step")
        return f"{number:,} {unit}{'s' if number > 1 else ''}"


@dataclass(frozen=True)
class Epoch:
    """One pass over train, or the part of one that ends its stage.

    Attributes:
        number: over the whole run, from 1. begins: the step that its stage begins with. first: its own. steps: how many it has.
        title: its stage, and its place in that.
    """

    number: int
    stage: Stage
    begins: int
    first: int
    steps: int
    title: str


def stages(chosen: Mapping[str, schema.Stage], objectives: Sequence[str]) -> list[Stage]:
    """The stages of a schedule, in order; those of 0 epochs are left out.

    Args:
        objectives: the names of those that are chosen, which a stage uses unless it says its own.
    """
    return [
        Stage(
            name,
            stage.epochs,
            Ramp(*stage.T, stage.shape),
            Ramp(*stage.alpha, stage.shape),
            schema.stage_objectives(stage, objectives),
            stage.lr,
            stage.quantize is not None,
            stage.steps,
        )
        for name, stage in chosen.items()
        if stage.steps or stage.epochs
    ]


def plain(epochs: int, objective: str = "ce") -> list[Stage]:
    """One stage of labels only: how a teacher is fitted."""
    return [Stage("fit", epochs, Ramp(1.0, 1.0), Ramp(0.0, 0.0), (objective,))]


def epochs(stages: Sequence[Stage], per_epoch: int) -> Iterator[Epoch]:
    """Every epoch of every stage, in order, where a pass over train has `per_epoch` steps."""
    number = begins = 0
    for stage in stages:
        steps, passes = stage.length(per_epoch), stage.passes(per_epoch)
        for place, done in enumerate(range(0, steps, per_epoch), 1):
            number += 1
            title = f"{stage.name} {place}/{passes}"
            yield Epoch(number, stage, begins, begins + done, min(per_epoch, steps - done), title)
        begins += steps


def span(stages: Sequence[Stage], stage: Stage, per_epoch: int) -> tuple[int, int]:
    """The steps before the stages that train the same network as `stage`, and of these: the learning rate's curve is theirs."""
    before, alike = (
        sum(one.length(per_epoch) for one in stages if one.quantize == kind)
        for kind in (not stage.quantize, stage.quantize)
    )
    return (before if stage.quantize else 0), alike


def progress(step: int, steps: int) -> float:
    """Where step 0 .. steps - 1 stands between 0 (the first) and 1 (the last)."""
    return step / (steps - 1) if steps > 1 else 0.0
