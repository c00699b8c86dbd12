"""A run's parts in memory: device, data, task, models, objectives, stages, built from settings and checked together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from distill_cli import models, objectives, trackers
from distill_cli.base import runtime, world
from distill_cli.base.errors import ConfigError
from distill_cli.base.files import sha256
from distill_cli.base.names import fingerprint
from distill_cli.config import arrangement
from distill_cli.config.schema import FIRST, Lora, Open, Teacher, Train
from distill_cli.data import Data, load
from distill_cli.models import EDITS, Classifier, adapters, deployable, edits, foreign, naming, origin
from distill_cli.models.features import Output
from distill_cli.objectives import Loss, Objective
from distill_cli.tasks import task as tasks
from distill_cli.tasks.task import Task
from distill_cli.training import labelling, policy, schedule
from distill_cli.training.loop import Pace
from distill_cli.training.optim import Recipe, fit_recipe
from distill_cli.training.policy import OnPolicy, Policy
from distill_cli.training.schedule import Stage


@dataclass(frozen=True)
class Job:
    """The parts of a run, built and checked against each other; nothing is trained or loaded yet.

    Attributes:
        dtype: in which the student computes while it learns.
        teachers: by name, the one of the `teacher` group first. chosen: the settings of each, with what its checkpoint says.
        start: what the student starts from, by a digest, where that is a file's weights or its teacher's; else empty.
        losses: by stage. remarks: lines for the header, by their label.
    """

    settings: Train
    device: torch.device
    dtype: torch.dtype
    data: Data
    task: Task
    teachers: Mapping[str, Classifier]
    chosen: Mapping[str, Teacher]
    student: Classifier
    start: str
    objectives: Mapping[str, Objective]
    stages: list[Stage]
    losses: Mapping[str, Loss]
    recipe: Recipe
    remarks: Mapping[str, str]

    @property
    def sizes(self) -> dict[str, int]:
        """How many parameters the teachers have together, and the student."""
        together = sum(models.num_parameters(model) for model in self.teachers.values())
        return {"teacher": together, "student": models.num_parameters(self.student)}

    @property
    def pace(self) -> Pace:
        """How the loop runs the student."""
        chosen = self.settings
        best = tasks.judged_by(chosen.optimize, self.task)
        return Pace(chosen.seed, chosen.batch_size, self.dtype, chosen.compile, chosen.debug, chosen.sync_bn, best)

    @property
    def per_epoch(self) -> int:
        """Steps of a pass over train."""
        return len(self.pace.sizes(self.data))

    @property
    def steps(self) -> int:
        """Of all stages together."""
        return sum(stage.length(self.per_epoch) for stage in self.stages)

    @property
    def epochs(self) -> int:
        """Passes over train in all, the last of each stage cut short where that has so many steps."""
        return sum(stage.passes(self.per_epoch) for stage in self.stages)

    @property
    def policy(self) -> Policy:
        """What a step of the student learns from."""
        chosen = self.settings
        if not chosen.on_policy:
            return policy.as_given
        return OnPolicy(chosen.on_policy, self.task.continuing(policy.KEY), chosen.seed, self.dtype)


def read(settings: Train) -> Job:
    """Load the data and build what settings name.

    Raises:
        ConfigError, DataError: as the device, the builders and their checks say.
    """
    runtime.prepare(settings.threads)
    device, terms, recipe = check(settings)
    stages = schedule.stages(settings.schedule, list(terms))
    if settings.teacher.joint and not any(terms[name].needs_teacher for s in stages for name in s.objectives):
        raise ConfigError(
            "teacher.joint: no stage asks the teacher, so it would never be trained; choose another objective"
        )
    data = data_of(settings, device)
    labelling.check(settings, data, stages, terms)
    task = tasks.of(data)
    own_words = policy.told(settings.on_policy, task)
    labels = settings.label_smoothing, settings.rows_at_once, data.row_weights, len(data.train.labelled) > 0
    for name, term in terms.items():
        if term.compares and task.counts(data.train.targets[:1]) is not None:
            raise ConfigError(
                f"objective.{name}: compares samples with each other, and a sample of these data has many {task.unit}",
                "choose one that works row by row, as in objective=kd",
            )
    losses = {s.name: Loss({name: terms[name] for name in s.objectives}, *labels) for s in stages}
    task.require(settings.optimize)
    chosen, teachers = teachers_of(settings, data, task)
    # No two links of a chain start from the same weights.
    with runtime.seeded("student", settings.seed, *filter(None, [settings.link])):
        student = build(settings.student, "student", data, task, teachers[FIRST])
        student.freeze(settings.student.freeze, "student.freeze")
        data = data.under(student.spec)
        start, told = _started(student, settings, data)
        remarks = dict(objective.connect(student, teachers[FIRST], data) for objective in terms.values())
    for term in terms.values():
        term.to(device)
    for model in (*teachers.values(), student):
        if settings.parallel == "fsdp" and world.called().size > 1:
            model.spread = device
        else:
            model.to(device)
    remarks["lora"] = adapted(student, settings.student.lora, "student.lora", bool(start))
    remarks["on_policy"] = own_words
    remarks["labels"] = labelling.said(data)
    remarks["start"] = told
    remarks["precision"] = runtime.unused_bf16(settings.precision, device)
    remarks = {label: text for label, text in remarks.items() if text}
    dtype = runtime.dtype(settings.precision, device)
    return Job(
        settings, device, dtype, data, task, teachers, chosen, student, start, terms, stages, losses, recipe, remarks
    )


def data_of(settings: Train, device: torch.device) -> Data:
    """The data that settings name, read as their teacher needs; raises as `load`."""
    names, folder = partial(origin.classes_of, settings.teacher), partial(origin.folder_of, settings.teacher)
    store = Path(settings.output_dir) / "cache"
    return load(settings.dataset, settings.workers, store=store, classes=names, folder=folder).to(device)


def teachers_of(settings: Train, data: Data, task: Task) -> tuple[dict[str, Teacher], dict[str, Classifier]]:
    """The teachers' settings, with what their checkpoints say, and the teachers built from them, by name; raises as `build`."""
    members, key_of, built = arrangement.teachers(settings), arrangement.key_of, dict[str, Classifier]()
    chosen = {name: origin.completed(one, data, key_of(name)) for name, one in members.items()}
    for name, one in chosen.items():
        with runtime.seeded("teacher", one.fit.seed):
            built[name] = build(one, key_of(name), data, task)
        adapted(built[name], one.fit.lora, f"{key_of(name)}.fit.lora", True)
    return chosen, built


def adapted(model: Classifier, lora: Lora, key: str, started: bool) -> str:
    """How a model learns by adapters, in words, if it does; raises as `adapters.words`."""
    return adapters.words(model, lora, key, started) if lora.rank else ""


def _started(student: Classifier, settings: Train, data: Data) -> tuple[str, str]:
    """Give the student the weights that its settings name, if any; returns a digest of them, and what was taken, in words.

    Raises:
        CheckpointError: they cannot be used. ConfigError: it is made of its teacher, which gives it others, or none.
    """
    chosen, of_teacher = settings.student, getattr(student.net, models.OF_TEACHER, "")
    if of_teacher and (chosen.checkpoint or settings.teacher.joint):
        other = (
            "student.checkpoint names its weights" if chosen.checkpoint else "teacher.joint trains that along with it"
        )
        raise ConfigError(f"student: it is made of its teacher, but {other}", "leave one of the two out")
    if not chosen.checkpoint:
        return models.brought(student.net) or "", of_teacher
    path, card = origin.weights_file(chosen.checkpoint, "student")
    if card is not None:
        edits.redo(student.net, [edit for edit in card["model"].get(EDITS, ()) if edit["kind"] != "quantize"])
    taken = foreign.take(path, student.net, "student", fitted=True)
    student.net.load_state_dict(taken.state)
    others = "its classes are others, or in another order" if card and card["classes"] != list(data.classes) else ""
    return fingerprint([sha256(path), taken.place]), "; ".join(filter(None, [str(path), taken.note, others]))


def with_teacher(job: Job, weights: str) -> Job:
    """The job whose student has the weights of its teacher, which is prepared by now, where it is made of that.

    Args:
        weights: SHA-256 of the teacher's.
    """
    student, chosen = job.student, job.settings.student
    if not hasattr(student.net, models.OF_TEACHER):
        return job
    with runtime.seeded("student", job.settings.seed, *filter(None, [job.settings.link])):
        described = chosen.plain, "student", job.data.input, len(job.data.classes)
        made = models.network(*described, teacher=job.teachers[FIRST])
    student.net.load_state_dict(made.state_dict())
    return replace(
        job, start=fingerprint([weights, {key: value for key, value in chosen.plain.items() if value is not None}])
    )


def build(chosen: Open, role: str, data: Data, task: Task, teacher: Classifier | None = None) -> Classifier:
    """The model that settings name, checked to be one that can answer the task.

    Args:
        teacher: a student's; see `models.build`.

    Raises:
        ConfigError: it cannot be built, or answers something else.
    """
    num_classes, order = naming.answers(chosen.plain, role, data.classes)
    model = models.build(chosen.plain, role, data.input, num_classes, order=order, teacher=teacher)
    task.check(Output(models.probe(model, role), head=model.head), role)
    return model


def check(settings: Train) -> tuple[torch.device, dict[str, Objective], Recipe]:
    """Check all that can be without the data, which may take long to read: the device, and the arguments of every class.

    Returns:
        the device, the objectives by name, and the student's optimizer with its curve.

    Raises:
        ConfigError: something does not exist, or does not take what it is given. CheckpointError: there is no such file.
    """
    device = runtime.device(settings.device)
    terms, recipe = objectives.build(settings.objective), Recipe(settings.optimizer)
    models.check(settings.teacher, "teacher")
    models.check(settings.student, "student")
    for group, chosen in (("teachers", settings.teachers), ("chain", settings.chain)):
        for name, model in chosen.items():
            models.check(model, f"{group}.{name}")
    starts = {arrangement.key_of(name): one.checkpoint for name, one in arrangement.teachers(settings).items()}
    for key, file in {"student": settings.student.checkpoint, **starts}.items():
        if file:
            deployable.source(file, f"{key}.checkpoint")
    recipe.check("optimizer")
    fit_recipe(settings.teacher.fit).check("teacher.fit.optimizer")
    trackers.check({name: one.node for name, one in settings.logger.items()})
    return device, terms, recipe
