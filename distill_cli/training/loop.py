"""The training loop, on one screen; what to train with what signal is decided before it, what to write after it."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distill_cli.base import runtime, ui
from distill_cli.data import Batch, Data, batch_sizes
from distill_cli.models import Classifier
from distill_cli.models.features import Output, Tap
from distill_cli.objectives import Loss, Objective, influence
from distill_cli.tasks import metrics
from distill_cli.tasks.rows import Dense, Rows
from distill_cli.training import schedule
from distill_cli.training.guard import Guard, Moment
from distill_cli.training.optim import Recipe, restore

REFRESH = 0.2  # seconds between two readings of the loss for the progress bar

Row = dict[str, Any]


class Meter:
    """Means of the loss's terms over an epoch, kept on the device: reading them would stop it, so that is done rarely."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.influence: dict[str, dict[str, float]] = {}
        self.before, self.started = 0.0, time.perf_counter()
        self.shown_at = self.started

    def add(self, terms: Mapping[str, Tensor], count: int) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value * count if name in self.sums else value * count
        self.count += count

    def means(self) -> dict[str, float]:
        return {name: value.item() / self.count for name, value in self.sums.items()}

    @property
    def seconds(self) -> float:
        """Since the epoch's begin, without the time between a checkpoint and its restoring."""
        return self.before + time.perf_counter() - self.started

    def show(self, bar: Any, count: int, T: float, alpha: float) -> None:
        bar.update(count)
        if not bar.disable and time.perf_counter() - self.shown_at > REFRESH:
            self.shown_at = time.perf_counter()
            bar.set_postfix_str(f"loss {self.means()['total']:.3f}  T {T:.2f}  α {alpha:.2f}")

    def snapshot(self) -> dict[str, Any]:
        return {"sums": self.sums, "count": self.count, "seconds": self.seconds, "influence": self.influence}

    @classmethod
    def restored(cls, snapshot: Mapping[str, Any], device: torch.device) -> Meter:
        meter = cls()
        meter.sums = {name: value.to(device) for name, value in snapshot["sums"].items()}
        meter.count, meter.before = snapshot["count"], snapshot["seconds"]
        meter.influence = snapshot["influence"]
        return meter


@dataclass
class State:
    """All that training moves: what a checkpoint holds and a resumed run puts back.

    T, alpha, the learning rate, the order of samples, their augmentation and every random number of a step are functions
    of seeds and `step`, so nothing about them is kept. `epoch` counts those whose row is written; between two of them
    `step` is ahead, and `meter` holds the sums so far.
    """

    model: Classifier
    objectives: Mapping[str, Objective]
    optimizer: Optimizer
    guard: Guard
    step: int = 0
    epoch: int = 0
    best: dict[str, Any] | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def snapshot(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it loads without running code.

        Raises:
            NonFiniteError: a step since the last look was not finite.
        """
        self.guard.check()
        return {
            "student": self.model.net.state_dict(),
            "objectives": {name: objective.state_dict() for name, objective in self.objectives.items()},
            "optimizer": self.optimizer.state_dict(),
            "guard": self.guard.snapshot(),
            "step": self.step,
            "epoch": self.epoch,
            "best": self.best,
            "best_weights": self.best_weights,
            "rows": self.rows,
            "meter": self.meter.snapshot(),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Put back what `snapshot` returned."""
        self.model.net.load_state_dict(snapshot["student"])
        for name, objective in self.objectives.items():
            objective.load_state_dict(snapshot["objectives"][name])
        restore(self.optimizer, snapshot["optimizer"])
        self.guard.restore(snapshot["guard"])
        self.step, self.epoch = snapshot["step"], snapshot["epoch"]
        self.best, self.best_weights = snapshot["best"], dict(snapshot["best_weights"])
        self.rows = list(snapshot["rows"])
        self.meter = Meter.restored(snapshot["meter"], self.device)

    def keep_if_best(self, row: Row) -> bool:
        """Keep the weights when this epoch is the best on validation: higher accuracy, then lower NLL, then earlier."""
        score = (row["val"]["accuracy"], -row["val"]["nll"])
        if self.best is not None and score <= (self.best["accuracy"], -self.best["nll"]):
            return False
        self.best = {"epoch": row["epoch"], "stage": row["stage"], "accuracy": score[0], "nll": -score[1]}
        self.best_weights = {
            name: tensor.detach().cpu().clone() for name, tensor in self.model.net.state_dict().items()
        }
        return True


@dataclass(frozen=True)
class Settings:
    """How the loop runs, whatever it trains."""

    seed: int
    batch_size: int
    dtype: torch.dtype = torch.float32
    compile: bool = False
    debug: bool = False  # whether each epoch's row tells how much each term moves the student


def begin(
    model: Classifier, objectives: Mapping[str, Objective], recipe: Recipe, dtype: torch.dtype = torch.float32
) -> State:
    """A state at step 0, with an optimizer over the model's and the objectives' parameters.

    Args:
        dtype: in which the model computes.
    """
    modules: list[nn.Module] = [model, *objectives.values()]
    optimizer = recipe.build([p for m in modules for p in m.parameters() if p.requires_grad], dtype=dtype)
    return State(model, objectives, optimizer, Guard(optimizer, next(model.parameters()).device, dtype))


class Answering(Protocol):
    """A teacher as the loop sees it: answers a batch of train, and knows its logits (N, K) on a whole split.

    It is told the temperature at which it is asked and the student's own logits on the batch, which some learn from.
    """

    def __call__(self, batch: Batch, T: float, student: Tensor) -> Output: ...

    def logits(self, split: str) -> Tensor: ...


def fit(
    state: State,
    stages: Sequence[schedule.Stage],
    losses: Mapping[str, Loss],
    recipe: Recipe,
    data: Data,
    settings: Settings,
    teacher: Answering | None = None,
    label: str = "",
) -> Generator[Row | None, None, None]:
    """Train from where `state` stands to the end of the last stage, best weights kept.

    Yields None after every step, and after each epoch its row, with validation metrics. Whenever it yields, `state` is
    whole: put back elsewhere, it goes on from there to the same bits.

    Args:
        losses: by stage's name. teacher: asked only where a stage's objectives need it, and for fidelity.

    Raises:
        NonFiniteError: a step's loss or gradient was not finite; it was not taken.
    """
    device, guard = state.device, state.guard
    forward = torch.compile(state.model) if settings.compile else state.model
    per_epoch = len(batch_sizes(len(data.train), settings.batch_size))
    steps = per_epoch * sum(stage.epochs for stage in stages)
    layers = sorted({path for loss in losses.values() for path in loss.student_layers})
    trained = [p for p in state.model.parameters() if p.requires_grad]

    def moment(epoch: schedule.Epoch, step: int) -> Moment:
        stage, within = epoch.stage, step - (epoch.number - 1 - epoch.place) * per_epoch
        progress = schedule.progress(within, stage.epochs * per_epoch)
        lr = (stage.lr or recipe.lr) * recipe.curve.at(step, steps)
        T, alpha = stage.T.at(progress), stage.alpha.at(progress)
        return Moment(step, stage.name, lr, epoch.number, T, alpha, schedule.progress(step, steps))

    for epoch in schedule.epochs(stages):
        if epoch.number <= state.epoch:
            continue
        done = state.step - state.epoch * per_epoch  # steps of this epoch taken before the state was put back
        stage, loss_of = epoch.stage, losses[epoch.stage.name]
        asks = loss_of.asks_teacher
        state.meter = meter = state.meter if done else Meter()
        order = runtime.sample_order(len(data.train), settings.seed, epoch.number)
        view = data.train.view_of(epoch.number)
        title = f"{label}{stage.name} {epoch.place + 1}/{stage.epochs}"
        state.model.train()
        with ui.bar(len(data.train), title, meter.count) as bar, Tap(state.model.net, layers) as tap:
            for batch in data.train.batches(settings.batch_size, order, view, skip=done):
                at = moment(epoch, state.step)
                for group in state.optimizer.param_groups:
                    group["lr"] = at.lr
                runtime.seed_step(settings.seed, state.step)
                for part in batch.parts(recipe.accumulate):
                    with runtime.autocast(device, settings.dtype):
                        output = tap(forward, part.inputs)
                    answer = teacher(part, at.T, output.logits.detach()) if teacher and asks else None
                    share = len(part) / len(batch)
                    rows = Rows(output.logits, part.targets, part.index, output.features)
                    signal = Dense(answer.logits, answer.features) if answer else None
                    weighed = settings.debug and state.step == epoch.number * per_epoch - 1
                    loss, terms = loss_of(rows, signal, at.T, at.alpha, share, at.progress, whole=weighed)
                    if weighed:
                        meter.influence = influence(terms, loss_of.weights(at.alpha, at.progress), trained)
                    terms = {name: term.detach() for name, term in terms.items()}
                    guard.backward(loss, terms)
                    meter.add({"total": loss.detach() / share, **terms}, len(part))
                guard.step(at, recipe.clip)
                state.step += 1
                meter.show(bar, len(batch), at.T, at.alpha)
                yield None
        guard.check()
        seconds, at = meter.seconds, moment(epoch, state.step - 1)
        row: Row = {"stage": stage.name, "epoch": epoch.number, "step": state.step}
        row |= {"T": at.T, "alpha": at.alpha, "lr": at.lr}
        row["loss"] = meter.means()
        val_logits = metrics.logits_of(state.model, data.val)
        row["val"] = metrics.measure(val_logits, data.val.targets, teacher.logits("val") if teacher else None)
        if settings.debug:
            row["debug"] = meter.influence
        row["images_per_second"], row["seconds"] = len(data.train) / seconds, seconds
        row["best"] = state.keep_if_best(row)
        state.epoch = epoch.number
        state.rows.append(row)
        yield row
