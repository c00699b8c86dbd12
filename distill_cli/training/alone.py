"""A model trained on labels alone: how a teacher is fitted, and the student that distillation is held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distill_cli.base import ui
from distill_cli.base.errors import CheckpointError, translated
from distill_cli.config.schema import Lora
from distill_cli.data import Data
from distill_cli.models import Classifier
from distill_cli.objectives import Loss
from distill_cli.runs.checkpoints import Checkpoints
from distill_cli.tasks.task import Task
from distill_cli.training import labelling, loop, saving, schedule
from distill_cli.training.loop import Pace
from distill_cli.training.optim import Recipe
from distill_cli.training.state import Row, begin


def weighing(data: Data) -> dict[str, Any]:
    """What training on labels depends on beside the data, where it is set."""
    chosen = {"class_weights": data.class_weights, "balanced": data.train.balanced or None}
    return {name: value for name, value in chosen.items() if value is not None}


def learnable(data: Data, label: str) -> Data:
    """The data with the training samples alone that have labels, and a line where those are not all.

    Args:
        label: what is trained, for messages.

    Raises:
        ConfigError: train or validation has no labels.
    """
    labelling.require(data, f"fitting the {label}", labelling.READY)
    if data.train.complete:
        return data
    known = data.labelled()
    ui.say(f"{label}: learns from the {len(known.train):,} of {len(data.train):,} training samples that have labels")
    return known


def fit(
    model: Classifier,
    stages: Sequence[schedule.Stage],
    recipe: Recipe,
    data: Data,
    task: Task,
    pace: Pace,
    label: str,
    checkpoints: Checkpoints,
    label_smoothing: float = 0.0,
    rows_at_once: int | None = None,
    lora: Lora | None = None,
) -> list[Row]:
    """Train a model on the samples that have labels, from the newest checkpoint if there is one; leaves it with its best weights on
    validation, and returns the epochs' rows. The checkpoints stay until what is made of it is written: see `remove`.

    Args:
        label: what is trained, for messages. label_smoothing, rows_at_once: as in `Loss`. lora: as in `begin`.

    Raises:
        ConfigError: as `learnable`.
    """
    data = learnable(data, label)
    losses = dict.fromkeys((stage.name for stage in stages), Loss({}, label_smoothing, rows_at_once, data.row_weights))
    state = begin(model, {}, recipe, pace.dtype, lora, pace.seed)
    per_epoch = len(pace.sizes(data))
    epochs = sum(stage.passes(per_epoch) for stage in stages)
    try:
        saving.go_on(state, checkpoints, state.restore, f"{label}: ")
    except CheckpointError as error:
        ui.warn(f"{error.message}\nthe {label} starts again")
        state = begin(model, {}, recipe, pace.dtype, lora, pace.seed)
    steps = loop.fit(state, stages, losses, data, task, pace, label=f"{label} ")
    with translated(data.input.lower):
        for row in saving.kept(state, steps, checkpoints):
            ui.say(f"{label:<8} {row['epoch']:>3}/{epochs}  lr {row['lr']:.1e}  loss {row['loss']['total']:.3f}  "
                   f"{task.judged(row)}  {task.told_speed(row)}")  # fmt: skip
    state.finish(model)
    model.net.load_state_dict(state.best_weights)
    return state.rows
