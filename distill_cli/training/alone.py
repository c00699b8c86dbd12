"""A model trained on labels alone: how a teacher is fitted, and the student that distillation is held against."""

from __future__ import annotations

from collections.abc import Sequence

from distill_cli.base import ui
from distill_cli.base.errors import CheckpointError
from distill_cli.data import Data
from distill_cli.models import Classifier
from distill_cli.objectives import Loss
from distill_cli.runs.checkpoints import Checkpoints
from distill_cli.tasks.task import Task
from distill_cli.training import loop, saving, schedule
from distill_cli.training.loop import Pace
from distill_cli.training.optim import Recipe
from distill_cli.training.state import Row, begin


def fit(
    model: Classifier,
    stages: Sequence[schedule.Stage],
    recipe: Recipe,
    data: Data,
    task: Task,
    pace: Pace,
    loss: Loss,
    label: str,
    checkpoints: Checkpoints,
) -> list[Row]:
    """Train a model on labels only, from the newest checkpoint if there is one; leaves it with its best weights on
    validation, and returns the epochs' rows. The checkpoints stay until what is made of it is written: see `remove`.

    Args:
        loss: of every stage; it asks no teacher. label: what is trained, for messages.
    """
    losses = {stage.name: loss for stage in stages}
    state = begin(model, {}, recipe, pace.dtype)
    epochs = sum(stage.epochs for stage in stages)
    try:
        saving.go_on(state, checkpoints, state.restore, f"{label}: ")
    except CheckpointError as error:
        ui.warn(f"{error.message}\nthe {label} starts again")
        state = begin(model, {}, recipe, pace.dtype)
    steps = loop.fit(state, stages, losses, recipe, data, task, pace, label=f"{label} ")
    for row in saving.kept(state, steps, checkpoints):
        ui.say(f"{label:<8} {row['epoch']:>3}/{epochs}  lr {row['lr']:.1e}  loss {row['loss']['total']:.3f}  "
               f"{task.judged(row)}  {task.told_speed(row)}")  # fmt: skip
    model.net.load_state_dict(state.best_weights)
    return state.rows
