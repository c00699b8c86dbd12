"""The training loop, on one screen; what to train with what signal is decided before it, what to write after it."""

from __future__ import annotations

import functools
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from distill_cli.base import runtime, sharding, ui, world
from distill_cli.data import Batch, Data, batch_sizes
from distill_cli.models.synced import synced
from distill_cli.objectives import Loss, influence
from distill_cli.tasks import task as tasks
from distill_cli.tasks.rows import Rows, Signal
from distill_cli.tasks.task import Ask, Task
from distill_cli.training import schedule
from distill_cli.training.guard import Moment
from distill_cli.training.policy import Policy, as_given
from distill_cli.training.state import Averages, Row, State


@dataclass(frozen=True)
class Pace:
    """How the loop runs, whatever it trains.

    Attributes:
        dtype: in which the model computes. debug: whether each epoch's row tells how much each term moves the student.
        sync_bn: whether batch norm is over the samples of all ranks.
        best: the metrics that choose the best epoch, see `State.keep_if_best`; empty: the task's own.
    """

    seed: int
    batch_size: int
    dtype: torch.dtype = torch.float32
    compile: bool = False
    debug: bool = False
    sync_bn: bool = True
    best: tuple[str, ...] = ()

    def sizes(self, data: Data) -> list[int]:
        """Of the batches of a pass over train."""
        return batch_sizes(len(data.train), self.batch_size)


class Teacher(Protocol):
    """A teacher as the loop sees it."""

    def __call__(self, batch: Batch, T: float, rows: Rows, layers: Collection[str] = ()) -> Signal:
        """Its signal on the rows of a batch of train.

        Args:
            T: the temperature at which it is asked. rows: the student's, detached: some teachers learn from them.
            layers: paths of its modules whose features are read.
        """

    def on(self, split: str, whole: bool = False) -> Ask:
        """What gives its signal on a batch of validation or test: as it is kept for training or, `whole`, of all classes."""


def fit(
    state: State,
    stages: Sequence[schedule.Stage],
    losses: Mapping[str, Loss],
    data: Data,
    task: Task,
    pace: Pace,
    teacher: Teacher | None = None,
    label: str = "",
    policy: Policy = as_given,
) -> Generator[Row | None, None, None]:
    """Train from where `state` stands to the end of the last stage, best weights kept.

    Yields None after every step, and after each epoch its row, with validation metrics. Whenever it yields, `state` is
    whole: put back elsewhere, it goes on from there to the same bits.

    Longer than it should be, because the whole loop is to be seen at once.

    Args:
        losses: by stage's name. teacher: asked only where a stage's objectives need it, and for fidelity.
        policy: what a step learns from instead of its batch.

    Raises:
        NonFiniteError: a step's loss or gradient was not finite; it was not taken.
    """
    recipe, sizes = state.recipe, pace.sizes(data)
    steps = sum(stage.length(len(sizes)) for stage in stages)
    layers = sorted({path for loss in losses.values() for path in loss.student_layers})
    best = pace.best or task.best

    def moment(epoch: schedule.Epoch, step: int) -> Moment:
        stage = epoch.stage
        progress = schedule.progress(step - epoch.begins, stage.length(len(sizes)))
        first, count = schedule.span(stages, stage, len(sizes))
        lr = (stage.lr or recipe.lr) * recipe.curve.at(step - first, count)
        T, alpha = stage.T.at(progress), stage.alpha.at(progress)
        return Moment(step, stage.name, lr, epoch.number, T, alpha, schedule.progress(step, steps))

    # Weights that were drawn or computed on other processors may differ in their last bits.
    everything = *state.student.parameters(), *state.student.buffers()
    world.alike(values.detach() for values in everything if not sharding.is_shard(values))
    for epoch in schedule.epochs(stages, len(sizes)):
        if epoch.number <= state.epoch:
            continue
        done = state.step - epoch.first  # steps of this epoch taken before the state was put back
        stage, theirs = epoch.stage, losses[epoch.stage.name].teacher_layers
        state.enter(stage, data)
        state.averages = averages = state.averages if done else Averages()
        samples = sum(sizes[: epoch.steps])
        order = data.train.order(pace.batch_size, pace.seed, epoch.number)[:samples]
        view = data.train.view_of(epoch.number)
        state.student.train()
        with (
            ui.bar(samples, f"{label}{epoch.title}", done * pace.batch_size) as bar,
            state.student.listening(layers, pace.compile, pace.debug or state.balance.finds),
            synced(*[state.model] * pace.sync_bn),
        ):
            every = order.split(sizes[: epoch.steps])[done:]
            mine = [world.mine(index, 2 * recipe.accumulate) for index in every]
            for given, index in zip(data.train.read(mine, view), every, strict=True):
                at = moment(epoch, state.step)
                for group in state.optimizer.param_groups:
                    group["lr"] = at.lr
                batch, loss_of = policy(state, given, losses[stage.name])
                runtime.reseed("step", pace.seed, state.step, *world.part())
                # A batch too small to be parted is computed by all ranks.
                apart = len(given) < len(index)
                in_batch = task.num_rows(data.train.targets[index] if apart else batch.targets)
                copies = 1 if apart else world.size()
                weighed = pace.debug and state.step == epoch.first + epoch.steps - 1
                due = state.balance.due(loss_of.objectives, state.step) if "ce" in loss_of.terms else []
                look = functools.partial(state.balance.look, due) if weighed or due else None
                for part in batch.parts(recipe.accumulate):
                    with runtime.autocast(state.device, pace.dtype):
                        output = state.student(part.inputs)
                    rows = task.rows(output, part)
                    signal = teacher(part, at.T, rows.detached(), theirs) if teacher and loss_of.asks_teacher else None
                    share = len(rows) / in_batch
                    loss, terms = loss_of(rows, signal, at.T, at.alpha, share, at.progress, look, apart)
                    if weighed and look:
                        weights = loss_of.weights(at.alpha, at.progress)
                        averages.influence = influence(terms, weights, state.balance.norms)
                    look = None  # the first part of a batch tells enough
                    terms = {name: term.detach() for name, term in terms.items()}
                    state.guard.backward(loss / copies, terms)
                    averages.add({"total": loss.detach() / share, **terms}, len(rows) / copies)
                state.guard.step(at, recipe.clip)
                if not pace.sync_bn:
                    world.alike(state.model.buffers())
                state.step += 1
                averages.show(bar, len(index), at.T, at.alpha)
                yield None
        state.guard.check()
        averages, at = averages.of_all(), moment(epoch, state.step - 1)
        seconds = averages.seconds
        row: Row = {"stage": stage.name, "epoch": epoch.number, "step": state.step}
        row |= {"T": at.T, "alpha": at.alpha, "lr": at.lr, "loss": averages.means()}
        row["val"] = tasks.measure(task, state.model, data.val, teacher.on("val") if teacher else None)
        if found := state.balance.weights(losses[stage.name].objectives):
            row["weights"] = found
        if pace.debug:
            row["debug"] = averages.influence
        row |= task.speed(samples, round(averages.rows), seconds) | {"seconds": seconds}
        row |= {"best": state.keep_if_best(row, best), "chosen_by": tasks.chosen_by(best)}
        state.epoch = epoch.number
        state.rows.append(row)
        yield row
