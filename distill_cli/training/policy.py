"""What a step learns from: its batch as the data give it, or what the student writes itself; the step is taken in loop.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from distill_cli.base import runtime
from distill_cli.data import Batch
from distill_cli.objectives import Loss
from distill_cli.tasks.task import Continue, Task
from distill_cli.training.state import State

KEY = "on_policy"
Policy = Callable[[State, Batch, Loss], tuple[Batch, Loss]]  # what the next step learns from, and by which loss


def told(share: float, task: Task) -> str:
    """What the header says where a share of the steps is the student's own; of none nothing.

    Raises:
        ConfigError: nothing follows samples of the task.
    """
    if not share:
        return ""
    task.continuing(KEY)
    return f"{share:.0%} of the steps learn from what the student writes, and the teacher runs live on it; no label counts there"


def as_given(state: State, batch: Batch, loss: Loss) -> tuple[Batch, Loss]:
    """The batch of the data."""
    return batch, loss


@dataclass(frozen=True)
class OnPolicy:
    """A share of the steps that ask a teacher, evenly spread, learn from what the student writes behind the beginnings of their
    batch; nobody knows what is right there, so the label term is left out.

    Agarwal et al., 2024, arXiv 2306.13649, algorithm 1, which draws the steps and has no label term at all.

    Args:
        share: of the steps. dtype: in which the student computes.
    """

    share: float
    go_on: Continue
    seed: int
    dtype: torch.dtype

    def __call__(self, state: State, batch: Batch, loss: Loss) -> tuple[Batch, Loss]:
        due = math.floor((state.step + 1) * self.share) > math.floor(state.step * self.share)
        if not due or not loss.asks_teacher:
            return batch, loss
        with runtime.autocast(state.device, self.dtype):
            made = self.go_on(state.model, batch, runtime.seed_of("on policy", self.seed, state.step))
        return made, loss.of_teacher
