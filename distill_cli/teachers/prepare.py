"""Preparing a teacher: fitted, fine-tuned or loaded once, and shared by every run that needs the same one."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distill_cli import __version__, models
from distill_cli.base import files, locks, runtime, ui, world
from distill_cli.base.errors import CheckpointError
from distill_cli.base.names import fingerprint, slug
from distill_cli.config import schema
from distill_cli.config.building import code_digest
from distill_cli.data import Data
from distill_cli.models import Classifier, deployable, foreign, origin
from distill_cli.models.deployable import Deployable
from distill_cli.runs.checkpoints import Checkpoints
from distill_cli.tasks import task as tasks
from distill_cli.tasks.rows import Rows
from distill_cli.tasks.task import Task
from distill_cli.teachers import head
from distill_cli.teachers.store import Asked, network_of
from distill_cli.training import alone, schedule
from distill_cli.training.loop import Pace
from distill_cli.training.optim import fit_recipe


@dataclass(frozen=True)
class Prepared:
    """A teacher ready to teach.

    Attributes:
        folder: where it is kept. facts: what teacher.json says of it. weights: their SHA-256.
    """

    folder: Path
    facts: dict[str, Any]
    weights: str


def prepare(model: Classifier, teacher: schema.Teacher, data: Data, run: schema.Train, key: str) -> Prepared:
    """Load a teacher from output_dir/teachers/, after making it there if no run has needed it before.

    Args:
        model: built from `teacher`; it gets the weights. run: the settings of the run. key: of the teacher, for messages.

    Raises:
        CheckpointError: teacher.checkpoint cannot be used.
    """
    data = data.under(model.spec)
    task, device = tasks.of(data), model.device
    recipe, epochs, pretrained = fit_recipe(teacher.fit), origin.fit_epochs(teacher, model), teacher.node.get("weights")
    taken = _taken(teacher.checkpoint, model, epochs > 0, key) if teacher.checkpoint else None
    pace = Pace(teacher.fit.seed, teacher.fit.batch_size, runtime.dtype(run.precision, device), sync_bn=run.sync_bn)
    fitting = {"epochs": epochs, **recipe.node, "batch_size": pace.batch_size, "seed": pace.seed}
    ingredients = {
        "model": network_of(teacher, model),
        "weights": pretrained or models.brought(model.net),
        "data": data.digest,
        "checkpoint": files.sha256(taken.path) if taken else None,
        **({"set": taken.place} if taken and taken.others else {}),
        "fit": {**fitting, "precision": str(pace.dtype), **_shown(data, teacher)} if epochs else None,
        "seed": None if taken else pace.seed,
        "code": code_digest(teacher.node["_target_"]),
    }
    digest = fingerprint(ingredients)
    folder = Path(run.output_dir) / "teachers" / f"{slug(run.dataset.name)}-{slug(teacher.name)}-{digest}"

    def make(place: Path) -> None:
        started, checkpoints = time.perf_counter(), Checkpoints(place / "checkpoints", *run.save_every)
        if taken:
            model.net.load_state_dict(taken.state)
        if epochs:
            ui.say(f"teacher: fitting {teacher.name} on {run.dataset.name}, {epochs} epoch(s); later runs reuse it")
            learns, shown = _learning(model, teacher, data, run)
            job_of = (learns, schedule.plain(epochs), recipe, shown, tasks.of(shown), pace)
            alone.fit(*job_of, "teacher", checkpoints, lora=teacher.fit.lora)
        facts: dict[str, Any] = {"fingerprint": digest, "ingredients": ingredients, "distill": __version__}
        facts["origin"] = "checkpoint" if taken else "pretrained" if ingredients["weights"] else "scratch"
        facts |= {"fitted_epochs": epochs, "params": models.num_parameters(model)}
        card = deployable.card_of("teacher", teacher, model, data, run.dataset)
        facts |= _judged(Asked(model, teacher, data, run, Deployable(card, model).write(place)), task)
        facts |= {"seconds": time.perf_counter() - started}
        world.decided(lambda: files.write_json(place / "teacher.json", facts))
        checkpoints.remove()

    def waiting() -> None:
        ui.say("teacher: another run is preparing this one; waiting for it")

    made = locks.once(folder, make, waiting, resumable=Path.exists)
    try:
        facts = files.read_json(folder / "teacher.json")
        kept = deployable.load_into(model.net, folder)["sha256"]
    except CheckpointError as error:
        raise CheckpointError(error.message, f"delete {folder}: the next run makes it again") from error
    if not made:
        ui.say(f"teacher: reusing {folder}")
    if facts.get("doubt"):
        ui.warn(facts["doubt"])
    return Prepared(folder, facts, kept)


def _taken(named: str, model: Classifier, fitted: bool, key: str) -> foreign.Taken:
    """What `teacher.checkpoint` has for the model; a line says what was chosen of it."""
    path, _ = origin.weights_file(named, key)
    taken = foreign.take(path, model.net, key, fitted)
    if taken.note:
        ui.say(f"{key}: {taken.note}")
    return taken


def _judged(asked: Asked, task: Task) -> dict[str, Any]:
    """The metrics of the teacher's kept answers on validation and test, and what is odd about those on validation."""
    judged = dict[str, Any]()
    for name in ("val", "test"):
        split, meter = getattr(asked.data, name), task.meter()
        said, head = asked.about(name).to(asked.device).whole().answers()  # where the head is that makes logits of them
        targets, index = split.targets.to(asked.device).long(), torch.arange(len(split), device=asked.device)
        rows = Rows(said, *task.asked(targets, index), head=head)
        meter.update(rows)
        judged[name] = meter.compute()
        if name == "val":
            judged["doubt"] = task.suspicious(rows, asked.teacher.classes or asked.data.classes)
    return judged


def _shown(data: Data, teacher: schema.Teacher) -> dict[str, Any]:
    """What a fit depends on where samples are augmented, classes are weighed or the encoder is frozen: else nothing is added."""
    frozen = {"freeze": teacher.fit.freeze, "views": data.train.views} if teacher.fit.freeze else {}
    frozen |= {"lora": vars(teacher.fit.lora)} if teacher.fit.lora.rank else {}
    return {**frozen, **({"augmentation": dict(data.train.draws)} if data.train.draws else {}), **alone.weighing(data)}


def _learning(model: Classifier, teacher: schema.Teacher, data: Data, run: schema.Train) -> tuple[Classifier, Data]:
    """What is fitted, and on what: the head alone, or all of it, with a new view in every epoch: `dataset.views` is about
    what the student is shown.
    """
    if teacher.fit.freeze:
        return head.alone_with(model, teacher, data, run)
    return model, replace(data, train=replace(data.train, views=0))
