"""Preparing the teacher: fitted, fine-tuned or loaded once, and shared by every run that needs the same one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distill_cli import __version__, models
from distill_cli.base import files, locks, ui
from distill_cli.base.errors import CheckpointError
from distill_cli.base.names import fingerprint, slug
from distill_cli.config import schema
from distill_cli.config.building import code_digest
from distill_cli.data import Data
from distill_cli.models import Classifier, weights
from distill_cli.objectives import Loss
from distill_cli.objectives.logits import CE
from distill_cli.runs.checkpoints import Checkpoints, fitting
from distill_cli.tasks import metrics
from distill_cli.teachers import logits
from distill_cli.training import loop, saving, schedule
from distill_cli.training.optim import Recipe, fit_recipe
from distill_cli.training.setup import Setup

FIT_EPOCHS = 6  # of a teacher that starts without a checkpoint, unless teacher.fit.epochs says otherwise


@dataclass(frozen=True)
class Prepared:
    """A teacher ready to teach: where it is kept, what is known of it, and the SHA-256 of its weights."""

    folder: Path
    facts: dict[str, Any]
    weights: str


def fit_epochs(teacher: schema.Teacher) -> int:
    """How many epochs the teacher is fitted for: as said, else a few without a checkpoint and none with one."""
    if teacher.fit.epochs is not None:
        return teacher.fit.epochs
    return 0 if teacher.checkpoint else FIT_EPOCHS


def prepare(job: Setup) -> Prepared:
    """Load the job's teacher from root/teachers/, after making it there if no run has needed it before.

    Raises:
        CheckpointError: teacher.checkpoint cannot be used.
    """
    teacher, model, card = job.config.teacher, job.teacher, job.card("teacher")
    checkpoint = checkpoint_of(teacher.checkpoint, teacher, job.data) if teacher.checkpoint else None
    recipe, epochs, pretrained = fit_recipe(teacher.fit), fit_epochs(teacher), teacher.node.get("weights")
    settings = job.settings(seed=teacher.fit.seed, batch_size=teacher.fit.batch_size, compile=False)
    fitting = {"epochs": epochs, **recipe.node, "batch_size": settings.batch_size, "seed": settings.seed}
    ingredients = {
        "model": logits.network_of(job),
        "weights": pretrained,
        "data": job.data.digest,
        "checkpoint": files.sha256(checkpoint) if checkpoint else None,
        "fit": {**fitting, "precision": str(settings.dtype), **_augmented(job.data)} if epochs else None,
        "seed": None if checkpoint else settings.seed,
        "code": code_digest(teacher.node["_target_"]),
    }
    digest = fingerprint(ingredients)
    folder = job.root / "teachers" / f"{slug(job.config.dataset.name)}-{slug(teacher.name)}-{digest}"

    def make(place: Path) -> None:
        started = time.perf_counter()
        if checkpoint:
            weights.load_into(model.net, weights.read_weights(checkpoint), str(checkpoint))
        if epochs:
            ui.say(
                f"teacher: fitting {teacher.name} on {job.config.dataset.name}, {epochs} epoch(s); later runs reuse it"
            )
            stages = schedule.plain(epochs)
            fit_alone(model, stages, recipe, _new_views(job.data), settings, "teacher", job.checkpoints(place))
        facts: dict[str, Any] = {"fingerprint": digest, "ingredients": ingredients, "distill": __version__}
        facts["origin"] = "checkpoint" if checkpoint else "pretrained" if pretrained else "scratch"
        facts |= {"fitted_epochs": epochs, "params": models.num_parameters(model)}
        written = weights.write_model(place, "teacher", model.net, card)
        for name, split in (("val", job.data.val), ("test", job.data.test)):
            facts[name] = metrics.measure(logits.of_teacher(job, written, name), split.targets)
        files.write_json(place / "teacher.json", {**facts, "seconds": time.perf_counter() - started})
        job.checkpoints(place).remove()

    def waiting() -> None:
        ui.say("teacher: another run is preparing this one; waiting for it")

    made = locks.once(folder, make, waiting, resumable=True)
    try:
        facts = files.read_json(folder / "teacher.json")
        kept = weights.load_kept(folder, model.net)["sha256"]
    except CheckpointError as error:
        raise CheckpointError(error.message, f"delete {folder} to have it made again") from error
    if not made:
        ui.say(f"teacher: reusing {folder}")
    warn_if_at_chance(facts["val"]["accuracy"], job.data)
    return Prepared(folder, facts, kept)


def _augmented(data: Data) -> dict[str, Any]:
    """What a fit depends on where the data are augmented: nothing is added where they are not."""
    return {"augmentation": dict(data.train.draws)} if data.train.draws else {}


def _new_views(data: Data) -> Data:
    """The same data with a new view in every epoch: `dataset.views` is about what the student is shown."""
    return replace(data, train=replace(data.train, views=0))


def checkpoint_of(named: str, teacher: schema.Teacher, data: Data) -> Path:
    """The weights' file that `teacher.checkpoint` names: a file, or a folder of ours, whose card is then held against
    the data.

    Raises:
        CheckpointError: it was trained on other classes, or its bytes are not those that were written.
    """
    path = Path(named).expanduser()
    folder = path if path.is_dir() else path.parent
    if path.is_file() and not (path.suffix == ".safetensors" and (folder / "model.json").is_file()):
        return path
    if not path.exists():
        raise CheckpointError(f"there is no file {path.absolute()}", "check teacher.checkpoint")
    card = weights.read_card(folder)
    path = weights.kept_file(folder, card)
    if card["classes"] != list(data.classes):
        raise CheckpointError(
            f"{path} was trained on other classes, or in another order: {', '.join(card['classes'][:5])}, ... "
            f"against {', '.join(data.classes[:5])}, ..."
        )
    scaled = [key for key in ("mean", "std") if key in card["input"]]
    trained = {key: list(card["model"].get(key) or card["input"][key]) for key in scaled}
    now = {key: list(getattr(teacher, key) or data.input.as_card()[key]) for key in scaled}
    if trained != now:
        flags = " ".join(f"teacher.{key}={values}".replace(" ", "") for key, values in trained.items())
        ui.warn(f"{path} was trained under another normalisation; {flags} restores it")
    return path


def warn_if_at_chance(accuracy: float, data: Data) -> None:
    """Say so when a teacher knows no more than always naming the most frequent class."""
    counts = torch.bincount(data.val.targets, minlength=len(data.classes))
    chance = float(counts.max() / counts.sum())
    if accuracy <= 1.1 * chance:
        ui.warn(
            f"the teacher's validation accuracy is {accuracy:.1%}, no better than chance ({chance:.1%}): "
            "check its classes' order, its normalisation (teacher.mean, teacher.std) and its checkpoint"
        )


def fit_alone(
    model: Classifier,
    stages: Sequence[schedule.Stage],
    recipe: Recipe,
    data: Data,
    settings: loop.Settings,
    label: str,
    checkpoints: Checkpoints,
    label_smoothing: float = 0.0,
    rows_at_once: int | None = None,
) -> list[loop.Row]:
    """Train a model on labels only, from the newest checkpoint if there is one; leaves it with its best weights on
    validation, and returns the epochs' rows. The checkpoints stay until what is made of it is written: see `remove`.
    """
    terms = {"ce": CE()}
    losses = {stage.name: Loss(terms, label_smoothing, rows_at_once) for stage in stages}
    state = loop.begin(model, terms, recipe, settings.dtype)
    epochs = sum(stage.epochs for stage in stages)
    try:
        snapshot = checkpoints.latest()
    except CheckpointError as error:
        ui.warn(f"{error.message}\nthe {label} starts again")
        snapshot = None
    if snapshot is not None:
        with fitting(checkpoints.folder):
            state.restore(snapshot)
        ui.say(f"{label}: going on after step {state.step}, {state.epoch} epoch(s) done")
    steps = loop.fit(state, stages, losses, recipe, data, settings, label=f"{label} ")
    for row in saving.kept(state, steps, checkpoints):
        ui.say(f"{label:<8} {row['epoch']:>3}/{epochs}  lr {row['lr']:.1e}  loss {row['loss']['total']:.3f}  "
               f"val acc {row['val']['accuracy']:.4f}  {row['images_per_second']:,.0f} img/s")  # fmt: skip
    model.net.load_state_dict(state.best_weights)
    return state.rows
