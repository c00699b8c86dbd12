"""The training loop, on one screen; what to train with what signal is decided before it, what to write after it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distill_cli import metrics, runtime, schedule, ui
from distill_cli.data import Batch, Data, batch_sizes
from distill_cli.errors import NonFiniteError
from distill_cli.models import Classifier
from distill_cli.models.features import Output, Tap
from distill_cli.objectives import Loss, Objective
from distill_cli.optim import Recipe

REFRESH = 0.2  # seconds between two readings of the loss for the progress bar

Row = dict[str, Any]


@dataclass
class State:
    """All that training moves: what a checkpoint holds and a resumed run puts back."""

    model: Classifier
    objectives: Mapping[str, Objective]
    optimizer: Optimizer
    step: int = 0
    epoch: int = 0
    best: dict[str, Any] | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def snapshot(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it loads without running code."""
        return {
            "student": self.model.net.state_dict(),
            "objectives": {name: objective.state_dict() for name, objective in self.objectives.items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "best": self.best,
            "best_weights": self.best_weights,
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Put back what `snapshot` returned."""
        self.model.net.load_state_dict(snapshot["student"])
        for name, objective in self.objectives.items():
            objective.load_state_dict(snapshot["objectives"][name])
        self.optimizer.load_state_dict(snapshot["optimizer"])
        self.step, self.epoch = snapshot["step"], snapshot["epoch"]
        self.best, self.best_weights = snapshot["best"], snapshot["best_weights"]

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


def begin(model: Classifier, objectives: Mapping[str, Objective], recipe: Recipe) -> State:
    """A state at step 0, with an optimizer over the model's and the objectives' parameters."""
    modules: list[nn.Module] = [model, *objectives.values()]
    return State(model, objectives, recipe.build([p for m in modules for p in m.parameters() if p.requires_grad]))


class Answering(Protocol):
    """A teacher as the loop sees it: answers a batch of train, and knows its logits (N, K) on a whole split."""

    def __call__(self, batch: Batch) -> Output: ...

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
) -> Iterator[Row]:
    """Train through all stages; yields a row after each epoch, with validation metrics and the best weights kept.

    Args:
        losses: by stage's name. teacher: asked only where a stage's objectives need it, and for fidelity.

    Raises:
        NonFiniteError: the loss of an epoch was not finite.
    """
    device = next(state.model.parameters()).device
    forward = torch.compile(state.model) if settings.compile else state.model
    scaler = torch.amp.GradScaler(device.type, enabled=settings.dtype == torch.float16)
    trained = [p for group in state.optimizer.param_groups for p in group["params"]]
    per_epoch = len(batch_sizes(len(data.train), settings.batch_size))
    steps = per_epoch * sum(stage.epochs for stage in stages)
    layers = sorted({path for loss in losses.values() for path in loss.student_layers})
    state.model.train()
    for epoch in schedule.epochs(stages):
        stage, loss_of, meter, started = epoch.stage, losses[epoch.stage.name], Meter(), time.perf_counter()
        order = runtime.sample_order(len(data.train), settings.seed, epoch.number)
        title = f"{label}{stage.name} {epoch.place + 1}/{stage.epochs}"
        view = data.train.view_of(epoch.number)
        with ui.bar(len(data.train), title) as bar, Tap(state.model.net, layers) as tap:
            for number, batch in enumerate(data.train.batches(settings.batch_size, order, view)):
                progress = schedule.progress(epoch.place * per_epoch + number, stage.epochs * per_epoch)
                T, alpha = stage.T.at(progress), stage.alpha.at(progress)
                lr = (stage.lr or recipe.lr) * recipe.curve.at(state.step, steps)
                for group in state.optimizer.param_groups:
                    group["lr"] = lr
                torch.manual_seed(runtime.seed_of("step", settings.seed, state.step))  # dropout, the same when resumed
                for part in batch.parts(recipe.accumulate):
                    answer = teacher(part) if teacher is not None and loss_of.objectives else None
                    with runtime.autocast(device, settings.dtype):
                        output = tap(forward, part.inputs)
                    share = len(part) / len(batch)
                    loss, terms = loss_of(output, answer, part, T, alpha, share)
                    scaler.scale(loss).backward()
                    meter.add({"total": loss.detach() / share, **terms}, len(part))
                if recipe.clip is not None:
                    scaler.unscale_(state.optimizer)
                    nn.utils.clip_grad_norm_(trained, recipe.clip)
                scaler.step(state.optimizer)
                scaler.update()
                state.optimizer.zero_grad(set_to_none=True)
                state.step += 1
                meter.show(bar, len(batch), T, alpha)
        seconds = time.perf_counter() - started
        state.epoch = epoch.number
        row: Row = {"stage": stage.name, "epoch": epoch.number, "step": state.step, "T": T, "alpha": alpha, "lr": lr}
        row["loss"] = meter.means()
        require_finite(row)
        val_logits = metrics.logits_of(state.model, data.val)
        row["val"] = metrics.measure(val_logits, data.val.labels, teacher.logits("val") if teacher else None)
        row["images_per_second"], row["seconds"] = len(data.train) / seconds, seconds
        row["best"] = state.keep_if_best(row)
        yield row


class Meter:
    """Means of the loss's terms over an epoch, kept on the device: reading them would stop it, so that is done rarely."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.shown_at = time.perf_counter()

    def add(self, terms: Mapping[str, Tensor], count: int) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value * count if name in self.sums else value * count
        self.count += count

    def means(self) -> dict[str, float]:
        return {name: value.item() / self.count for name, value in self.sums.items()}

    def show(self, bar: Any, count: int, T: float, alpha: float) -> None:
        bar.update(count)
        if not bar.disable and time.perf_counter() - self.shown_at > REFRESH:
            self.shown_at = time.perf_counter()
            bar.set_postfix_str(f"loss {self.means()['total']:.3f}  T {T:.2f}  α {alpha:.2f}")


def require_finite(row: Row) -> None:
    """Raise NonFiniteError when a term of the epoch's loss is not a finite number."""
    wrong = [name for name, value in row["loss"].items() if not math.isfinite(value) and name != "total"]
    if wrong or not math.isfinite(row["loss"]["total"]):
        raise NonFiniteError(
            f"the loss was not finite in epoch {row['epoch']} (stage {row['stage']}): "
            f"term {', '.join(wrong) or 'total'}, T={row['T']:g}, alpha={row['alpha']:g}, lr={row['lr']:g}",
            "try a smaller optimizer.lr, optimizer.clip=1, or precision=fp32",
        )
