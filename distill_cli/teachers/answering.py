"""How a run's teachers answer it: from their cached logits, live, or trained along; and what several say together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.base import runtime
from distill_cli.base.errors import ConfigError
from distill_cli.base.names import size
from distill_cli.config import arrangement
from distill_cli.data import Batch
from distill_cli.models.features import Output, Tap, shapes
from distill_cli.objectives import Objective
from distill_cli.objectives.logits import kd
from distill_cli.tasks import metrics
from distill_cli.teachers import logits
from distill_cli.teachers.preparing import Prepared
from distill_cli.training import loop
from distill_cli.training.guard import Guard, Moment
from distill_cli.training.optim import fit_recipe, restore
from distill_cli.training.setup import Setup

ON_DEVICE = 2**30  # bytes of what is cached moved to a GPU; more stay mapped from the disk and go over by the batch


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
    """Choose how the teacher answers: from its cache where the pixels are fixed and what is asked is not too much to keep.

    Raises:
        ConfigError: teacher.cache=on, but the teacher would have to run on the training pictures.
    """
    asked = [(name, o) for loss in job.losses.values() for name, o in loss.objectives.items() if o.needs_teacher]
    layers = tuple(sorted({path for _, objective in asked for path in objective.teacher_layers}))
    train, mode = job.data.train, job.config.teacher.cache
    if layers and job.others:
        raise ConfigError(
            f"objective: {_wanting(asked)} learns from features, and so from one teacher alone",
            "with several teachers choose objectives on logits, as in objective=kd",
        )
    if job.config.teacher.joint:
        way = Way("joint", layers, "is trained along with the student")
    elif not asked:
        return Way("unused", (), "not asked: labels only")
    elif train.draws and not train.views:
        way = Way(
            "live", layers, "runs live: with dataset.views=0 every epoch shows new pixels (dataset.views=4: cached)"
        )
    elif mode == "off":
        way = Way("live", layers, "runs live: teacher.cache=off")
    else:
        views = min(max(1, train.views), sum(stage.epochs for stage in job.stages))
        sizes = shapes(job.teacher, job.data.input) if layers else {}
        features = 4 * len(train) * views * sum(math.prod(sizes[path]) for path in layers)
        needed = size(4 * len(train) * len(job.data.classes) * views * len(job.teachers) + features)
        if features <= job.config.teacher.cache_limit * 2**30:
            what = "logits and features" if layers else "logits"
            of = f" of {views} view{'s' if views > 1 else ''}" if train.draws else ""
            return Way("cached", layers, f"its {what}{of} are cached, {needed}", views)
        way = Way("live", layers, f"runs live: its features take {needed}, more than teacher.cache_limit")
    if mode == "on":
        raise ConfigError(f"teacher.cache=on: not in this run, where the teacher {way.note}", "use teacher.cache=auto")
    return way


def _wanting(asked: Sequence[tuple[str, Objective]]) -> str:
    """The objectives that want features, by name."""
    return ", ".join(sorted({name for name, objective in asked if objective.teacher_layers}))


class Teacher(loop.Answering, Protocol):
    """What a run needs of a teacher: answers to batches, its logits on a split, and what a checkpoint must hold of it."""

    def snapshot(self) -> dict[str, Any]: ...

    def restore(self, snapshot: Mapping[str, Any]) -> None: ...


def start(job: Setup, way: Way, prepared: Mapping[str, Prepared]) -> Teacher:
    """The job's teachers, prepared before unless they are trained along, ready to answer as one."""
    if way.joint:
        return Joint(job, way.layers)
    frozen = {name: Frozen(own, way, prepared[name].weights) for name, own in job.teachers.items()}
    return Several(job, frozen) if job.others else frozen[arrangement.FIRST]


def mixture(logits: Sequence[Tensor], weights: Tensor, T: float = 1.0) -> Tensor:
    """What teachers say together: logits z, (N, K), with softmax(z / T) = sum_m w_m softmax(z_m / T); one's are its own.

    Args:
        logits: of each teacher, (N, K). weights: (M,) for all samples, or (M, N) for each; they are normalised.
    """
    if len(logits) == 1:
        return logits[0]
    log_p = torch.stack([F.log_softmax(z.float() / T, dim=1) for z in logits])
    shares = (weights / weights.sum(0)).to(log_p.device).view(len(logits), -1, 1)
    return T * torch.logsumexp(log_p + shares.log(), dim=0)


def weights_of(job: Setup) -> Tensor:
    """The teachers' weights, (M,)."""
    return torch.tensor([float(one.weight) for one in arrangement.teachers(job.config).values()])


class _Still:
    """A teacher of which nothing moves, so that a checkpoint need hold nothing of it."""

    def snapshot(self) -> dict[str, Any]:
        return {}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Nothing was kept."""


class Frozen(_Still):
    """A teacher that does not change: answers by view and sample index from its cache, or by running live."""

    def __init__(self, job: Setup, way: Way, weights: str) -> None:
        self.model = job.teacher.eval().requires_grad_(False)
        self.device, self.dtype = job.device, job.dtype
        self.tap = Tap(self.model.net, way.layers)
        self.forward = torch.compile(self.model) if job.config.compile and way.kind == "live" else self.model
        self._measured = {name: logits.of_teacher(job, weights, name) for name in ("val", "test")}
        self._views = [
            {layer: logits.of_teacher(job, weights, "train", view, layer) for layer in (None, *way.layers)}
            for view in range(way.views)
        ]
        if sum(kept.nbytes for view in self._views for kept in view.values()) <= ON_DEVICE:
            self._views = [{layer: kept.to(self.device) for layer, kept in view.items()} for view in self._views]

    def __call__(self, batch: Batch, T: float = 1.0, student: Tensor | None = None) -> Output:
        if self._views:
            given = {
                layer: kept[batch.index.to(kept.device)].to(self.device)
                for layer, kept in self._views[batch.view].items()
            }
            return Output(given.pop(None), {str(layer): features for layer, features in given.items()})
        with torch.inference_mode(), runtime.exact(), runtime.autocast(self.device, self.dtype):
            output = self.tap(self.forward, batch.inputs)
        # Tensors made in inference mode take no part in a backward pass; their copies do.
        return Output(output.logits.float().clone(), {path: maps.clone() for path, maps in output.features.items()})

    def logits(self, split: str) -> Tensor:
        return self._measured[split]


class Several(_Still):
    """Frozen teachers that answer as one, by their weights; or, for each sample, the one that is surest of its label.

    On validation and test, where labels are for measuring alone, it is always by their weights.
    """

    def __init__(self, job: Setup, members: Mapping[str, Frozen]) -> None:
        self.members, self.weights = list(members.values()), weights_of(job)
        self.best = job.config.teacher.choose == "best"

    def __call__(self, batch: Batch, T: float = 1.0, student: Tensor | None = None) -> Output:
        answers = [member(batch).logits for member in self.members]
        if not self.best:
            return Output(mixture(answers, self.weights, T))
        losses = torch.stack([F.cross_entropy(z, batch.targets, reduction="none") for z in answers])
        surest = losses.argmin(0)
        return Output(torch.stack(answers)[surest, torch.arange(len(batch), device=surest.device)])

    def logits(self, split: str) -> Tensor:
        return mixture([member.logits(split) for member in self.members], self.weights)


class Joint:
    """Teachers that each take a step of their own on every batch, and answer with their logits before that step.

    Each learns from the labels, CE; with `mutual` (Zhang et al., 2018, arXiv 1706.00384) also from the student and from each
    other: CE + T^2 KL(mean of the others' probabilities || its own), which has the gradient of the mean of their KLs.
    """

    def __init__(self, job: Setup, layers: Sequence[str]) -> None:
        self.data, self.steps, self.weights = job.data, 0, weights_of(job)
        self.learners = [
            _Learner(name, own, layers if name == arrangement.FIRST else ()) for name, own in job.teachers.items()
        ]

    def __call__(self, batch: Batch, T: float = 1.0, student: Tensor | None = None) -> Output:
        outputs = [learner.tap(learner.model, batch.inputs) for learner in self.learners]
        said = [output.logits.detach().float() for output in outputs]
        for place, (learner, output) in enumerate(zip(self.learners, outputs, strict=True)):
            terms = {"ce": F.cross_entropy(output.logits.float(), batch.targets)}
            if learner.mutual:
                assert student is not None
                others = [student, *said[:place], *said[place + 1 :]]
                terms["kd"] = kd(output.logits, mixture(others, torch.ones(len(others)), T), temperature=T)
            learner.step(terms, self.steps)
        self.steps += 1
        features = {path: maps.detach() for path, maps in outputs[0].features.items()}
        return Output(mixture(said, self.weights, T), features)

    def logits(self, split: str) -> Tensor:
        on = getattr(self.data, split)
        return mixture([metrics.logits_of(learner.model, on) for learner in self.learners], self.weights)

    def snapshot(self) -> dict[str, Any]:
        return {"steps": self.steps, "learners": [learner.snapshot() for learner in self.learners]}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        for learner, kept in zip(self.learners, snapshot["learners"], strict=True):
            learner.restore(kept)
        self.steps = snapshot["steps"]


class _Learner:
    """A teacher under training, with its own optimizer."""

    def __init__(self, name: str, job: Setup, layers: Sequence[str]) -> None:
        self.name, self.model, self.mutual = name, job.teacher.train(), job.config.teacher.mutual
        self.optimizer = fit_recipe(job.config.teacher.fit).build(self.model.parameters(), "teacher.fit")
        self.tap, self.guard = Tap(self.model.net, layers), Guard(self.optimizer, job.device)

    def step(self, terms: Mapping[str, Tensor], step: int) -> None:
        found = {f"{self.name}'s {name}": term.detach() for name, term in terms.items()}
        self.guard.backward(torch.stack(list(terms.values())).sum(), found)
        self.guard.step(Moment(step, f"the {self.name}", self.optimizer.param_groups[0]["lr"]))

    def snapshot(self) -> dict[str, Any]:
        self.guard.check()
        return {"model": self.model.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self.model.net.load_state_dict(snapshot["model"])
        restore(self.optimizer, snapshot["optimizer"])
