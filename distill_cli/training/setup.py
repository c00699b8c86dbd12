"""From a composed configuration to everything a job works with: device, data, models, objectives, stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from distill_cli import __version__, models, objectives, trackers
from distill_cli.base import runtime
from distill_cli.base.errors import ConfigError
from distill_cli.config import arrangement, kinds, schema
from distill_cli.config.building import code_digest
from distill_cli.config.compose import choice
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

    `plain` is the configuration as resolved plain values; `names` say what the dataset and the models are called;
    `losses` are by stage; `remarks` are lines for the header by their label; `teachers` has the same job for each of its
    teachers by name, as if that one were its only one.
    """

    plain: dict[str, Any]
    names: dict[str, str]
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
        found = {arrangement.FIRST: replace(self, others={})}
        nodes = arrangement.teachers(self.plain)
        for name, model in self.others.items():
            plain = {**self.plain, "teacher": nodes[name], "teachers": {}}
            names = {**self.names, "teacher": self.names[f"teachers.{name}"]}
            found[name] = replace(self, plain=plain, names=names, teacher=model, others={})
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """How many parameters the teachers have together, and the student."""
        everyone = [self.teacher, *self.others.values()]
        taught_by = sum(models.num_parameters(model) for model in everyone)
        return {"teacher": taught_by, "student": models.num_parameters(self.student)}

    @property
    def root(self) -> Path:
        return Path(self.plain["output_dir"])

    @property
    def batch_size(self) -> int:
        return int(self.plain["batch_size"])

    def settings(self, **changes: Any) -> loop.Settings:
        """How the loop runs the student; with changes, something else."""
        own = {key: self.plain[key] for key in ("seed", "batch_size", "compile", "debug")}
        return loop.Settings(dtype=self.dtype, **{**own, **changes})

    def checkpoints(self, folder: Path) -> Checkpoints:
        """The checkpoints of what is trained in `folder`, saved as often as the configuration says."""
        return Checkpoints(folder / "checkpoints", *schema.every(self.plain["save_every"]))

    def card(self, role: str) -> dict[str, Any]:
        """What model.json says: how to rebuild the model, and what its inputs and classes are."""
        model = self.teacher if role == "teacher" else self.student
        dataset = dict(self.plain["dataset"])
        if dataset.get("root"):
            dataset["root"] = str(Path(dataset["root"]).expanduser().absolute())  # found again from any directory
        return {
            "format": CARD_FORMAT,
            "distill": __version__,
            "role": role,
            "names": {"dataset": self.names["dataset"], "model": self.names[role]},
            "model": models.rebuild_node(self.plain[role], model),
            "classes": list(self.data.classes),
            "input": self.data.input.as_card(),
            "dataset": dataset,
        }


def read(cfg: DictConfig | Mapping[str, Any], called: Mapping[str, str] | None = None) -> Setup:
    """Load the data and build what a configuration names.

    Args:
        cfg: composed, or its plain values. called: what models are called where it is not what was chosen.

    Raises:
        ConfigError, DataError: as the device, the builders and their checks say.
    """
    plain: dict[str, Any] = kinds.plain(cfg) if isinstance(cfg, DictConfig) else dict(cfg)
    runtime.prepare(plain["threads"])
    device, terms, recipe = check(plain)
    names = {"dataset": choice("dataset")}
    names |= {role: str(plain[role].get("name") or choice(role)) for role in ("teacher", "student")}
    names |= {f"teachers.{name}": str(node.get("name") or name) for name, node in plain["teachers"].items()}
    names |= called or {}
    stages = schedule.stages(plain["schedule"], terms)
    how = plain["label_smoothing"], plain["rows_at_once"]
    losses = {s.name: Loss({name: terms[name] for name in s.objectives}, *how) for s in stages}
    if plain["teacher"]["joint"] and not any(loss.asks_teacher for loss in losses.values()):
        raise ConfigError(
            "teacher.joint: no stage asks the teacher, so it would never be trained; choose another objective"
        )
    data = load(plain["dataset"], plain["workers"], store=Path(plain["output_dir"]) / "cache").to(device)
    others = {}
    for name, node in arrangement.teachers(plain).items():
        with runtime.seeded("teacher", node["fit"]["seed"]):
            others[name] = models.build(node, "teacher", data.input, len(data.classes))
    teacher = others.pop(arrangement.FIRST)
    link = plain["link"]  # no two links of a chain start from the same weights
    with runtime.seeded("student", plain["seed"], *filter(None, [link])):
        student = models.build(plain["student"], "student", data.input, len(data.classes))
        remarks = dict(objective.connect(student, teacher, data) for objective in terms.values())
    for module in (teacher, *others.values(), student, *terms.values()):
        module.to(device)
    remarks["precision"] = runtime.unused_bf16(plain["precision"], device)
    remarks = {label: text for label, text in remarks.items() if text}
    dtype = runtime.dtype(plain["precision"], device)
    return Setup(plain, names, device, dtype, data, teacher, student, terms, stages, losses, recipe, remarks, others)


def check(plain: dict[str, Any]) -> tuple[torch.device, dict[str, Objective], Recipe]:
    """Check all that can be without the data, which may take long to read: the device, and the arguments of every class.

    Returns:
        the device, the objectives by name, and the student's optimizer with its curve.

    Raises:
        ConfigError: something does not exist, or does not take what it is given.
    """
    device = runtime.device(plain["device"])
    terms, recipe = objectives.build(plain["objective"]), Recipe.read(plain["optimizer"])
    recipe.check("optimizer")
    fit_recipe(plain["teacher"]["fit"]).check("teacher.fit.optimizer")
    for role in ("teacher", "student"):
        models.check(plain[role], role)
    for name, node in plain["teachers"].items():
        models.check(node, "teacher", f"teachers.{name}")
    for name, node in plain["chain"].items():
        models.check(node, "student", f"chain.{name}")
    trackers.check(plain["logger"])
    return device, terms, recipe


def user_code(plain: Any) -> dict[str, str]:
    """SHA-256 of the code behind every `_target_` in a configuration that is the user's own, by target."""
    nodes = list(plain.values()) if isinstance(plain, dict) else plain if isinstance(plain, list) else []
    found = {target: digest for node in nodes for target, digest in user_code(node).items()}
    target = plain.get("_target_") if isinstance(plain, dict) else None
    digest = code_digest(target) if isinstance(target, str) else None
    return {**found, target: digest} if target and digest else found


def idle_settings(cfg: DictConfig, job: Setup, teacher_epochs: int) -> list[str]:
    """Settings that were typed but change nothing in this job, each with the reason."""
    typed = [override.partition("=")[0].lstrip("+") for override in HydraConfig.get().overrides.task]
    by_stage = str(OmegaConf.to_container(cfg.schedule, resolve=False))
    names, terms = ", ".join(job.objectives), job.objectives.values()
    found = []
    mixed = len(job.teachers) > 1 and job.plain["teacher"]["choose"] == "mean"
    asks_T = mixed or any(own.plain["teacher"]["mutual"] for own in job.teachers.values())
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
    if job.plain["teacher"]["joint"]:
        along = [key for key in typed if key in ("teacher.fit.epochs", "teacher.fit.batch_size")]
        found += [f"{key} has no effect: the teacher is trained along, on the student's batches" for key in along]
    elif not teacher_epochs and not job.plain["chain"]:
        fitting = [key for key in typed if key.startswith("teacher.fit.") and key != "teacher.fit.epochs"]
        found += [f"{key} has no effect: the teacher is not fitted" for key in fitting]
    return found
