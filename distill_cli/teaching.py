"""How a prepared teacher answers a run: from its cached logits, live, or trained along with the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli import engine, logits, metrics, runtime
from distill_cli.data import Batch
from distill_cli.errors import ConfigError
from distill_cli.guard import Guard, Moment
from distill_cli.models.features import Output, Tap
from distill_cli.names import size
from distill_cli.optim import fit_recipe, restore
from distill_cli.setup import Setup
from distill_cli.teacher import Prepared

ON_DEVICE = 2**30  # bytes of logits moved to a GPU; more stay mapped from the disk and go over by the batch


@dataclass(frozen=True)
class Way:
    """How a job's teacher answers, and why so in words for the header; `views`: of how many views logits are cached."""

    kind: str  # joint | cached | live | unused
    layers: tuple[str, ...]
    note: str
    views: int = 0

    @property
    def joint(self) -> bool:
        return self.kind == "joint"


def way_of(job: Setup) -> Way:
    """Choose how the teacher answers: from cached logits where they are all that is asked and belong to fixed pixels.

    Raises:
        ConfigError: teacher.cache=on, but the teacher would have to run on the training pictures.
    """
    asked = [(name, o) for loss in job.losses.values() for name, o in loss.objectives.items() if o.needs_teacher]
    layers = tuple(sorted({path for _, objective in asked for path in objective.teacher_layers}))
    train, mode = job.data.train, job.plain["teacher"]["cache"]
    if job.plain["teacher"]["joint"]:
        way = Way("joint", layers, "is trained along with the student")
    elif not asked:
        return Way("unused", (), "not asked: labels only")
    elif layers:
        names = ", ".join(sorted({name for name, objective in asked if objective.teacher_layers}))
        way = Way("live", layers, f"runs live: objective {names} needs its features")
    elif train.augmentation and not train.views:
        way = Way("live", (), "runs live: with dataset.views=0 every epoch shows new pixels (dataset.views=4: cached)")
    elif mode == "off":
        way = Way("live", (), "runs live: teacher.cache=off")
    else:
        views = min(max(1, train.views), sum(stage.epochs for stage in job.stages))
        needed = size(4 * len(train) * len(job.data.classes) * views)
        of = f" of {views} view{'s' if views > 1 else ''}" if train.augmentation else ""
        return Way("cached", (), f"its logits{of} are cached, {needed}", views)
    if mode == "on":
        raise ConfigError(f"teacher.cache=on: not in this run, where the teacher {way.note}", "use teacher.cache=auto")
    return way


class Teacher(engine.Answering, Protocol):
    """What a run needs of a teacher: answers to batches, its logits on a split, and what a checkpoint must hold of it."""

    def snapshot(self) -> dict[str, Any]: ...

    def restore(self, snapshot: Mapping[str, Any]) -> None: ...


def start(job: Setup, way: Way, prepared: Prepared | None) -> Teacher:
    """The job's teacher, prepared before unless it is trained along, ready to answer."""
    if prepared is None:
        return Joint(job, way.layers)
    return Frozen(job, way, prepared.weights)


class Frozen:
    """A teacher that does not change: answers by view and sample index from its cached logits, or by running live."""

    def __init__(self, job: Setup, way: Way, weights: str) -> None:
        self.model = job.teacher.eval().requires_grad_(False)
        self.device, self.dtype = job.device, job.dtype
        self.tap = Tap(self.model.net, way.layers)
        self.forward = torch.compile(self.model) if job.plain["compile"] and way.kind == "live" else self.model
        self._measured = {name: logits.of_teacher(job, weights, name) for name in ("val", "test")}
        self._views = [logits.of_teacher(job, weights, "train", view) for view in range(way.views)]
        if sum(view.nbytes for view in self._views) <= ON_DEVICE:
            self._views = [view.to(self.device) for view in self._views]

    def __call__(self, batch: Batch, T: float = 1.0, student: Tensor | None = None) -> Output:
        if self._views:
            kept = self._views[batch.view]
            return Output(kept[batch.index.to(kept.device)].to(self.device))
        with torch.inference_mode(), runtime.exact(), runtime.autocast(self.device, self.dtype):
            output = self.tap(self.forward, batch.inputs)
        # Tensors made in inference mode take no part in a backward pass; their copies do.
        return Output(output.logits.float().clone(), {path: maps.clone() for path, maps in output.features.items()})

    def logits(self, split: str) -> Tensor:
        return self._measured[split]

    def snapshot(self) -> dict[str, Any]:
        return {}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Nothing of it moves."""


class Joint:
    """A teacher that takes a step of its own on each batch's labels, and answers with its logits before that step."""

    def __init__(self, job: Setup, layers: Sequence[str]) -> None:
        self.model, self.data = job.teacher.train(), job.data
        self.optimizer = fit_recipe(job.plain["teacher"]["fit"]).build(self.model.parameters(), "teacher.fit")
        self.tap, self.guard, self.steps = Tap(self.model.net, layers), Guard(self.optimizer, job.device), 0

    def __call__(self, batch: Batch, T: float = 1.0, student: Tensor | None = None) -> Output:
        output = self.tap(self.model, batch.inputs)
        loss = F.cross_entropy(output.logits.float(), batch.labels)
        self.guard.backward(loss, {"teacher's ce": loss.detach()})
        self.guard.step(Moment(self.steps, "the teacher", self.optimizer.param_groups[0]["lr"]))
        self.steps += 1
        return Output(output.logits.detach(), {path: maps.detach() for path, maps in output.features.items()})

    def logits(self, split: str) -> Tensor:
        return metrics.logits_of(self.model, getattr(self.data, split))

    def snapshot(self) -> dict[str, Any]:
        self.guard.check()
        return {"model": self.model.net.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self.model.net.load_state_dict(snapshot["model"])
        restore(self.optimizer, snapshot["optimizer"])
        self.steps = snapshot["steps"]
