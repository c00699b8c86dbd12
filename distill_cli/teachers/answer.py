"""A run's teachers at work: their signal on a batch's rows, and what several of them say together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Any, Protocol, Self

import torch
from torch.nn import functional as F

from distill_cli.base import runtime, ui
from distill_cli.config import schema
from distill_cli.config.schema import FIRST
from distill_cli.data import Batch
from distill_cli.models import inference
from distill_cli.models.features import Tap
from distill_cli.tasks.rows import Dense, Rows, Signal
from distill_cli.tasks.signals import Few
from distill_cli.tasks.task import Ask, Task
from distill_cli.teachers.joint import Joint
from distill_cli.teachers.mixture import mixture, weights_of
from distill_cli.teachers.store import Answers, Asked
from distill_cli.teachers.way import Way
from distill_cli.training import loop
from distill_cli.training.job import Job

HOT = 1.5  # above this temperature few words have little of the probability
TOLD = 256  # samples of which that is said
ON_DEVICE = 2**30  # bytes of kept answers moved to a GPU; more stay mapped from the disk and go over by the batch


class Teacher(loop.Teacher, Protocol):
    """What a run needs of its teachers. It is used as a context, and lets go of its models' hooks on the way out."""

    def snapshot(self) -> dict[str, Any]:
        """What a checkpoint must hold of it."""

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Put back what `snapshot` returned."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def start(job: Job, way: Way, weights: Mapping[str, str]) -> Teacher:
    """The job's teachers, ready to answer as one.

    Args:
        weights: SHA-256 of each teacher's weights, which it has by now; of none where they are trained along.
    """
    if way.joint:
        return Joint(job, way.layers)
    frozen = {
        name: Frozen(
            Asked(model, job.chosen[name], job.data.under(model.spec), job.settings, weights[name]), job.task, way
        )
        for name, model in job.teachers.items()
    }
    return Several(job.settings, frozen) if len(frozen) > 1 else frozen[FIRST]


class _Still:
    """A teacher of which nothing moves, so that a checkpoint need hold nothing of it."""

    def __init__(self) -> None:
        self.open = ExitStack()

    def snapshot(self) -> dict[str, Any]:
        return {}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Nothing was kept."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.open.close()


class Frozen(_Still):
    """A teacher that does not change: it answers by view and sample from what is kept, or by running live."""

    def __init__(self, asked: Asked, task: Task, way: Way) -> None:
        super().__init__()
        self.model = asked.model.eval().requires_grad_(False)
        self.task, self.device, self.dtype = task, asked.device, asked.dtype
        self._measured = {name: asked.about(name) for name in ("val", "test")}
        self._views = [asked.about("train", view, way.kept, way.keep) for view in range(way.views)]
        self._kept, self._often = set(way.kept), {}
        if way.keep == "topk":
            self._often = {"val": self._measured["val"].again(self._views[0].keeper)}
            _tell_of_rest(self._views[0], asked.run)
        if sum(view.nbytes for view in self._views) <= ON_DEVICE:
            self._views = [view.to(self.device) for view in self._views]
        live = way.kind == "live" or asked.run.on_policy > 0
        self.model = asked.answering if live else self.model
        self.tap = self.open.enter_context(Tap(self.model.net, way.layers if live else ()))
        self.forward = torch.compile(self.model) if asked.run.compile and live else self.model

    def __call__(self, batch: Batch, T: float, rows: Rows, layers: Collection[str] = ()) -> Signal:
        if self._views and self._kept.issuperset(layers) and not batch.made:
            return self._views[batch.view].on(batch.index)
        with inference.without_gradients(self.model), runtime.exact(), runtime.autocast(self.device, self.dtype):
            output = self.tap(self.forward, batch.inputs)
        # Tensors made in inference mode take no part in a backward pass; their copies do.
        said = self.task.rows(output, batch)
        features = {path: maps.clone() for path, maps in output.features.items()}
        return Dense(said.answers.float().clone(), features, said.head)

    def on(self, split: str, whole: bool = False) -> Ask:
        answers = self._measured[split] if whole else self._often.get(split, self._measured[split])
        return lambda batch: answers.on(batch.index)


def _tell_of_rest(kept: Answers, run: schema.Train) -> None:
    """Say which share of the teacher's probability the words have that are kept, and warn where a high T leaves them little."""
    some = kept.on(torch.arange(min(TOLD, kept.samples)))
    assert isinstance(some, Few)
    words, hottest = some.ids.shape[1], max(T for stage in run.schedule.values() for T in stage.T)
    rest = {T: float(some.share_of_rest(T).mean()) for T in (1.0, hottest)}
    ui.say(f"cache: the {words} likeliest words have {1 - rest[1.0]:.1%} of the teacher's probability at T = 1")
    if hottest > HOT:
        ui.warn(
            f"teacher.keep=topk: at T = {hottest:g} the other words have {rest[hottest]:.0%} of the teacher's probability, and "
            "what it thinks of each is not learnt: T=1, more teacher.words, or teacher.keep=hidden"
        )


class Several(_Still):
    """Frozen teachers that answer as one, by their weights; or, for each row, the one that is surest of its target.

    On validation and test, where targets are for measuring alone, it is always by their weights.
    """

    def __init__(self, settings: schema.Train, members: Mapping[str, Frozen]) -> None:
        super().__init__()
        self.members, self.weights = list(members.values()), weights_of(settings)
        self.best = settings.teacher.choose == "best"
        for member in self.members:
            self.open.enter_context(member)

    def __call__(self, batch: Batch, T: float, rows: Rows, layers: Collection[str] = ()) -> Dense:
        answers = [member(batch, T, rows).logits() for member in self.members]
        if not self.best:
            return Dense(mixture(answers, self.weights, T))
        losses = torch.stack([F.cross_entropy(z, rows.targets, reduction="none") for z in answers])
        surest = losses.argmin(0)
        return Dense(torch.stack(answers)[surest, torch.arange(len(rows), device=surest.device)])

    def on(self, split: str, whole: bool = False) -> Ask:
        asks = [member.on(split) for member in self.members]
        return lambda batch: Dense(mixture([ask(batch).logits() for ask in asks], self.weights))
