"""From a composed configuration to everything a job works with: device, data, models, objectives, stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distill_cli import __version__, models, objectives, trackers
from distill_cli.base import runtime
from distill_cli.base.errors import ConfigError
from distill_cli.config import arrangement
from distill_cli.config.building import code_digest
from distill_cli.config.schema import Train
from distill_cli.data import Data, load
from distill_cli.models import Classifier
from distill_cli.objectives import Loss, Objective
from distill_cli.runs.checkpoints import Checkpoints
from distill_cli.training import loop, schedule
from distill_cli.training.optim import Recipe, fit_recipe
from distill_cli.training.schedule import Stage

CARD_FORMAT = 1


@dataclass(frozen=True)
class Setup:
    """One job's parts, built and checked against each other; nothing trained or loaded yet.

    `losses` are by stage; `remarks` are lines for the header by their label; `teachers` has the same job for each of its
    teachers by name, as if that one were its only one.
    """

    config: Train
    device: torch.device
    dtype: torch.dtype
    data: Data
    teacher: Classifier
    student: Classifier
    objectives: dict[str, Objective]
    stages: list[Stage]
    losses: dict[str, Loss]
    recipe: Recipe
    remarks: dict[str, str]
    others: dict[str, Classifier]

    @property
    def teachers(self) -> dict[str, Setup]:
        models = {arrangement.FIRST: self.teacher, **self.others}
        return {
            name: replace(self, config=replace(self.config, teacher=one, teachers={}), teacher=models[name], others={})
            for name, one in arrangement.teachers(self.config).items()
        }

    @property
    def sizes(self) -> dict[str, int]:
        """How many parameters the teachers have together, and the student."""
        everyone = [self.teacher, *self.others.values()]
        taught_by = sum(models.num_parameters(model) for model in everyone)
        return {"teacher": taught_by, "student": models.num_parameters(self.student)}

    @property
    def root(self) -> Path:
        return Path(self.config.output_dir)

    def settings(self, **changes: Any) -> loop.Settings:
        """How the loop runs the student; with changes, something else."""
        own = self.config
        said = {"seed": own.seed, "batch_size": own.batch_size, "compile": own.compile, "debug": own.debug}
        return loop.Settings(dtype=self.dtype, **{**said, **changes})

    def checkpoints(self, folder: Path) -> Checkpoints:
        """The checkpoints of what is trained in `folder`, saved as often as the configuration says."""
        return Checkpoints(folder / "checkpoints", *self.config.save_every)

    def card(self, role: str) -> dict[str, Any]:
        """What model.json says: how to rebuild the model, and what its inputs and classes are."""
        own, model = (self.config.teacher, self.teacher) if role == "teacher" else (self.config.student, self.student)
        dataset = dict(self.config.dataset.plain)
        if dataset.get("root"):
            dataset["root"] = str(Path(dataset["root"]).expanduser().absolute())  # found again from any directory
        return {
            "format": CARD_FORMAT,
            "distill": __version__,
            "role": role,
            "names": {"dataset": self.config.dataset.name, "model": own.name},
            "model": models.rebuild_node(own.plain, model),
            "classes": list(self.data.classes),
            "input": self.data.input.as_card(),
            "dataset": dataset,
        }


def read(config: Train) -> Setup:
    """Load the data and build what settings name.

    Raises:
        ConfigError, DataError: as the device, the builders and their checks say.
    """
    runtime.prepare(config.threads)
    device, terms, recipe = check(config)
    stages = schedule.stages(config.schedule, list(terms))
    how = config.label_smoothing, config.rows_at_once
    losses = {s.name: Loss({name: terms[name] for name in s.objectives}, *how) for s in stages}
    if config.teacher.joint and not any(loss.asks_teacher for loss in losses.values()):
        raise ConfigError(
            "teacher.joint: no stage asks the teacher, so it would never be trained; choose another objective"
        )
    data = load(config.dataset, config.workers, store=Path(config.output_dir) / "cache").to(device)
    others = {}
    for name, one in arrangement.teachers(config).items():
        with runtime.seeded("teacher", one.fit.seed):
            others[name] = models.build(one.plain, "teacher", data.input, len(data.classes))
    teacher = others.pop(arrangement.FIRST)
    # no two links of a chain start from the same weights
    with runtime.seeded("student", config.seed, *filter(None, [config.link])):
        student = models.build(config.student.plain, "student", data.input, len(data.classes))
        remarks = dict(objective.connect(student, teacher, data) for objective in terms.values())
    for module in (teacher, *others.values(), student, *terms.values()):
        module.to(device)
    remarks["precision"] = runtime.unused_bf16(config.precision, device)
    remarks = {label: text for label, text in remarks.items() if text}
    dtype = runtime.dtype(config.precision, device)
    return Setup(config, device, dtype, data, teacher, student, terms, stages, losses, recipe, remarks, others)


def check(config: Train) -> tuple[torch.device, dict[str, Objective], Recipe]:
    """Check all that can be without the data, which may take long to read: the device, and the arguments of every class.

    Returns:
        the device, the objectives by name, and the student's optimizer with its curve.

    Raises:
        ConfigError: something does not exist, or does not take what it is given.
    """
    device = runtime.device(config.device)
    terms, recipe = objectives.build(config.objective), Recipe(config.optimizer)
    recipe.check("optimizer")
    fit_recipe(config.teacher.fit).check("teacher.fit.optimizer")
    models.check(config.teacher, "teacher")
    models.check(config.student, "student")
    for group, chosen in (("teachers", config.teachers), ("chain", config.chain)):
        for name, model in chosen.items():
            models.check(model, f"{group}.{name}")
    trackers.check({name: one.node for name, one in config.logger.items()})
    return device, terms, recipe


def user_code(plain: Any) -> dict[str, str]:
    """SHA-256 of the code behind every `_target_` in a configuration that is the user's own, by target."""
    nodes = list(plain.values()) if isinstance(plain, dict) else plain if isinstance(plain, list) else []
    found = {target: digest for node in nodes for target, digest in user_code(node).items()}
    target = plain.get("_target_") if isinstance(plain, dict) else None
    digest = code_digest(target) if isinstance(target, str) else None
    return {**found, target: digest} if target and digest else found


def idle_settings(job: Setup, teacher_epochs: int) -> list[str]:
    """Settings that were typed but change nothing in this job, each with the reason."""
    config = job.config
    typed = [override.partition("=")[0].lstrip("+") for override in config.typed]
    by_stage = config.source.written("schedule")
    names, terms = ", ".join(job.objectives), job.objectives.values()
    found = []
    mixed = len(config.teachers) > 0 and config.teacher.choose == "mean"
    asks_T = mixed or any(one.mutual for one in arrangement.teachers(config).values())
    for key, used in (("T", asks_T or any(o.uses_T for o in terms)), ("alpha", any(o.alpha_weighted for o in terms))):
        if key in typed and not used:
            found.append(f"{key} has no effect with objective={names}")
        elif key in typed and f"${{{key}}}" not in by_stage:
            found.append(f"{key} has no effect: every stage of this schedule sets its own")
    if not job.data.train.draws:
        still = [key for key in typed if key in ("dataset.views", "dataset.view_seed")]
        found += [f"{key} has no effect: no augmentation is chosen (dataset.augmentation.flip=true)" for key in still]
    curve = job.recipe.curve.shape
    found += [
        f"optimizer.{key} has no effect with optimizer.curve={curve}"
        for key in ("milestones", "gamma")
        if f"optimizer.{key}" in typed and curve != "step"
    ]
    asked = {name for stage in job.stages for name in stage.objectives}
    found += [f"objective.{name} has no effect: no stage uses it" for name in job.objectives if name not in asked]
    if config.teacher.joint:
        along = [key for key in typed if key in ("teacher.fit.epochs", "teacher.fit.batch_size")]
        found += [f"{key} has no effect: the teacher is trained along, on the student's batches" for key in along]
    elif not teacher_epochs and not config.chain:
        fitting = [key for key in typed if key.startswith("teacher.fit.") and key != "teacher.fit.epochs"]
        found += [f"{key} has no effect: the teacher is not fitted" for key in fitting]
    return found
