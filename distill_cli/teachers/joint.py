"""Teachers that are trained along with the student, each with an optimizer of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor

from distill_cli.base import runtime, world
from distill_cli.config import schema
from distill_cli.config.schema import FIRST
from distill_cli.data import Batch
from distill_cli.models import Classifier, evaluating
from distill_cli.models.features import Tap
from distill_cli.models.synced import synced
from distill_cli.objectives.logits import ce, kd
from distill_cli.tasks.rows import Dense, Rows
from distill_cli.tasks.task import Ask
from distill_cli.teachers.mixture import mixture, weights_of
from distill_cli.training.guard import Guard, Moment
from distill_cli.training.job import Job
from distill_cli.training.optim import fit_recipe, restore


class Joint:
    """Teachers that each take a step of their own on every batch, and answer as they did before that step.

    Each learns from the labels, CE; with `mutual` (Zhang et al., 2018, arXiv 1706.00384) also from the student and from each
    other: CE + T^2 KL(mean of the others' probabilities || its own), which has the gradient of the mean of their KLs.
    """

    def __init__(self, job: Job, layers: Sequence[str]) -> None:
        self.task, self.steps, self.weights = job.task, 0, weights_of(job.settings)
        self.row_weights, self.sync_bn, self.open = job.data.row_weights, job.settings.sync_bn, ExitStack()
        self.learners = [
            _Learner(name, model, job.chosen[name], job.device, layers if name == FIRST else ())
            for name, model in job.teachers.items()
        ]

    def __call__(self, batch: Batch, T: float, rows: Rows, layers: Collection[str] = ()) -> Dense:
        outputs = [learner.tap(learner.model, batch.inputs) for learner in self.learners]
        theirs = [self.task.rows(output, batch) for output in outputs]
        share = len(rows) / float(world.total(torch.tensor(float(len(rows)))))
        said = [each.logits().detach().float() for each in theirs]
        for place, (learner, each) in enumerate(zip(self.learners, theirs, strict=True)):
            terms = {"ce": ce(each.logits().float(), None, each.targets, row_weights=self.row_weights)}
            if learner.mutual:
                others = [rows.logits(), *said[:place], *said[place + 1 :]]
                terms["kd"] = kd(each.logits(), mixture(others, torch.ones(len(others)), T), temperature=T)
            learner.step(terms, self.steps, share)
        self.steps += 1
        features = {path: maps.detach() for path, maps in outputs[0].features.items()}
        return Dense(mixture(said, self.weights, T), features)

    def on(self, split: str, whole: bool = False) -> Ask:
        def ask(batch: Batch) -> Dense:
            answers = []
            for learner in self.learners:
                with evaluating(learner.model), torch.inference_mode(), runtime.exact():
                    output = learner.tap(learner.model, batch.inputs)
                answers.append(self.task.rows(output, batch).logits().float().clone())
            return Dense(mixture(answers, self.weights))

        return ask

    def snapshot(self) -> dict[str, Any]:
        return {"steps": self.steps, "learners": [learner.snapshot() for learner in self.learners]}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        for learner, kept in zip(self.learners, snapshot["learners"], strict=True):
            learner.restore(kept)
        self.steps = snapshot["steps"]

    def __enter__(self) -> Self:
        self.open.enter_context(synced(*(learner.model for learner in self.learners if self.sync_bn)))
        return self

    def __exit__(self, *exception: object) -> None:
        self.open.close()
        for learner in self.learners:
            learner.tap.close()


class _Learner:
    """A teacher under training, with its own optimizer."""

    def __init__(
        self, name: str, model: Classifier, settings: schema.Teacher, device: torch.device, layers: Sequence[str]
    ) -> None:
        self.name, self.model, self.mutual = name, model.train(), settings.mutual
        self.optimizer = fit_recipe(settings.fit).build(self.model.named_parameters(), "teacher.fit")
        self.tap, self.guard = Tap(self.model.net, layers), Guard(self.optimizer, device)

    def step(self, terms: Mapping[str, Tensor], step: int, share: float) -> None:
        told = {f"{self.name}'s {name}": term.detach() for name, term in terms.items()}
        self.guard.backward(share * torch.stack(list(terms.values())).sum(), told)
        self.guard.step(Moment(step, f"the {self.name}", self.optimizer.param_groups[0]["lr"]))

    def snapshot(self) -> dict[str, Any]:
        self.guard.check()
        return {"model": self.model.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self.model.net.load_state_dict(snapshot["model"])
        restore(self.optimizer, snapshot["optimizer"])
