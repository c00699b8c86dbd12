"""All that training moves, and the means of an epoch: what a checkpoint holds and a resumed run puts back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from distill_cli.base import ui, world
from distill_cli.config.schema import Lora
from distill_cli.data import Data
from distill_cli.models import Classifier, adapters, calibration, edits, quantized
from distill_cli.models.sharded import laid, sharded, whole
from distill_cli.objectives import Objective
from distill_cli.training.balance import Balance
from distill_cli.training.guard import Guard
from distill_cli.training.optim import Recipe, restore
from distill_cli.training.schedule import Stage
from distill_cli.training.student import Student

REFRESH = 0.2  # seconds between two readings of the loss for the progress bar

Row = dict[str, Any]


class Averages:
    """Means of the loss's terms over an epoch, kept on the device: reading them would stop it, so that is done rarely."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, float] = {}  # of the rows that each term was computed on
        self.rows: float = 0
        self.influence: dict[str, dict[str, float]] = {}
        self.before, self.started = 0.0, time.perf_counter()
        self.shown_at = self.started

    def add(self, terms: Mapping[str, Tensor], rows: float) -> None:
        """Add means over so many rows, or parts of them where others count them too."""
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value * rows if name in self.sums else value * rows
            self.counts[name] = self.counts.get(name, 0) + rows
        self.rows += rows

    def means(self) -> dict[str, float]:
        """By term, the mean over all rows that it was computed on."""
        return {name: value.item() / self.counts[name] for name, value in self.sums.items()}

    @property
    def seconds(self) -> float:
        """Since the epoch's begin, without the time between a checkpoint and its restoring."""
        return self.before + time.perf_counter() - self.started

    def show(self, bar: Any, samples: int, T: float, alpha: float) -> None:
        """Move a progress bar by so many samples."""
        bar.update(samples)
        if not bar.disable and time.perf_counter() - self.shown_at > REFRESH:
            self.shown_at = time.perf_counter()
            bar.set_postfix_str(f"loss {self.means()['total']:.3f}  T {T:.2f}  α {alpha:.2f}")

    def snapshot(self) -> dict[str, Any]:
        """Tensors and plain values."""
        sums = {name: value.cpu() for name, value in self.sums.items()}
        counted = {"sums": sums, "counts": self.counts, "count": self.rows}
        return {**counted, "seconds": self.seconds, "influence": self.influence}

    @classmethod
    def restored(cls, snapshots: Sequence[Mapping[str, Any]], device: torch.device) -> Averages:
        """The averages over what the snapshots of all ranks hold; the time is the first one's."""
        averages = cls()
        averages.before, averages.influence = snapshots[0]["seconds"], snapshots[0]["influence"]
        for one in snapshots:
            averages.rows += one["count"]
            counts = one.get("counts") or dict.fromkeys(one["sums"], one["count"])
            for name, value in one["sums"].items():
                value = value.to(device)
                averages.sums[name] = averages.sums[name] + value if name in averages.sums else value
                averages.counts[name] = averages.counts.get(name, 0) + counts[name]
        return averages

    def of_all(self) -> Averages:
        """The averages over all ranks."""
        if world.size() == 1:
            return self
        device = next(iter(self.sums.values())).device
        return Averages.restored(world.gathered(self.snapshot()), device)


@dataclass
class State:
    """All that training moves.

    T, alpha, the learning rate, the order of samples, their augmentation and every random number of a step are functions
    of seeds and `step`, so nothing about them is kept. `epoch` counts those whose row is written; between two of them
    `step` is ahead, and `averages` holds the sums so far.

    Attributes:
        dtype: in which the model computes.
        exact: where a stage has made the network one of 8 bits, the weights that it started from, and the epoch they are of.
    """

    student: Student
    recipe: Recipe
    dtype: torch.dtype = torch.float32
    optimizer: Optimizer = field(init=False)
    guard: Guard = field(init=False)
    balance: Balance = field(init=False)
    step: int = 0
    epoch: int = 0
    best: dict[str, Any] | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    averages: Averages = field(default_factory=Averages)
    exact: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._drive()

    def _drive(self) -> None:
        """An optimizer over the parameters as they are now, and what goes with it."""
        self.optimizer = self.recipe.build(self.student.named_parameters(), dtype=self.dtype)
        self.guard = Guard(self.optimizer, self.device, self.dtype)
        own = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        looked_at: Any = {} if self.model.spread else dict(self.student.objectives.items())  # not through shards
        self.balance = Balance(looked_at, own, self.guard.scaler)

    @property
    def model(self) -> Classifier:
        """What is deployed."""
        return self.student.model

    @property
    def device(self) -> torch.device:
        return self.model.device

    def enter(self, stage: Stage, data: Data) -> None:
        """Make the network the one that a stage trains: for 8 bits it is rounded where its best weights so far stand, it gets
        an optimizer of its own, and its best epoch is chosen among those to come.

        Raises:
            ConfigError: it has no layers for that.
        """
        if not stage.quantize or quantized.is_quantized(self.model.net):
            return
        if not self.best_weights:  # no stage was before
            self._keep({"epoch": 0, "stage": "start", "score": []})
        self.model.net.load_state_dict(self.best_weights)
        self.exact = {"weights": self.best_weights, "best": self.best}
        with world.alone():
            found = calibration.quantize(self.model, data.train)
        ui.say(f"{stage.name}: int8 from here on: {found}")
        self.best, self.best_weights = None, {}
        ratios = self.balance.snapshot()
        self._drive()
        self.balance.restore(ratios)

    def snapshot(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it loads without running code.

        Raises:
            NonFiniteError: a step since the last look was not finite.
        """
        self.guard.check()
        meter, *meters = world.gathered(self.averages.snapshot())
        return {
            "student": adapters.merged(self.model.net),
            "adapters": adapters.learnt(self.model.net),
            "edits": edits.of(self.model.net),
            "objectives": {name: objective.state_dict() for name, objective in self.student.objectives.items()},
            "optimizer": self.optimizer.state_dict(),
            "guard": self.guard.snapshot(),
            "balance": self.balance.snapshot(),
            "step": self.step,
            "epoch": self.epoch,
            "best": self.best,
            "best_weights": self.best_weights,
            "rows": self.rows,
            "meter": meter,
            "meters": meters,
            "exact": self.exact,
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Put back what `snapshot` returned."""
        if edits.redo(self.model.net, snapshot.get("edits", ())):
            self._drive()
        self.exact = dict(snapshot.get("exact", {}))
        learnt = snapshot.get("adapters")  # beside weights that stay as they start
        self.model.net.load_state_dict(laid(learnt or snapshot["student"], self.model.net), strict=not learnt)
        for name, objective in self.student.objectives.items():
            objective.load_state_dict(snapshot["objectives"][name])
        restore(self.optimizer, snapshot["optimizer"])
        self.guard.restore(snapshot["guard"])
        self.balance.restore(snapshot.get("balance", {}))
        self.step, self.epoch = snapshot["step"], snapshot["epoch"]
        best = laid(snapshot["best_weights"], self.model.net)
        self.best, self.best_weights = snapshot["best"], {name: value.cpu() for name, value in best.items()}
        if self.best and "score" not in self.best:  # of a version that knew one criterion
            self.best = {**self.best, "score": [self.best["accuracy"], -self.best["nll"]]}
        self.rows = list(snapshot["rows"])
        meters = [snapshot["meter"], *snapshot.get("meters", ())]
        if len(meters) != world.size():  # saved by another number of ranks: the first one has what all had
            meters = [Averages.restored(meters, self.device).snapshot(), *[Averages().snapshot()] * world.size()]
        self.averages = Averages.restored([meters[world.rank()]], self.device)

    def finish(self, model: Classifier) -> None:
        """Leave the weights in the model that was begun with, whole and without adapters; the best ones are whole from then on."""
        adapters.take_out(self.model.net)
        if self.model is not model:
            model.net.load_state_dict(whole(self.model.net.state_dict()))
            self.best_weights = whole(self.best_weights)

    def keep_if_best(self, row: Row, metrics: Sequence[str]) -> bool:
        """Keep the weights when this epoch is the best on validation, by the first of these metrics in which it differs
        from the best so far; a metric after a minus is better when it is lower, and of equals the earlier epoch is best.
        """
        score = [-row["val"][name[1:]] if name[0] == "-" else row["val"][name] for name in metrics]
        if self.best is not None and score <= self.best["score"]:
            return False
        self._keep({"epoch": row["epoch"], "stage": row["stage"], "score": score})
        return True

    def _keep(self, best: dict[str, Any]) -> None:
        """Keep the weights as the best so far."""
        self.best = best
        weights = adapters.merged(self.model.net)
        self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}


def begin(
    model: Classifier,
    objectives: Mapping[str, Objective],
    recipe: Recipe,
    dtype: torch.dtype = torch.float32,
    lora: Lora | None = None,
    seed: int = 0,
) -> State:
    """A state at step 0, with an optimizer over the parameters of the model and the objectives.

    Args:
        dtype: in which the model computes. lora: adapters that are put into the model to learn in its place, if any are asked for;
            they are to be taken out at the end. seed: of their start.
    """
    if lora and lora.rank:
        adapters.put_in(model, lora, seed, "lora")
    return State(Student(sharded(model), objectives), recipe, dtype)
