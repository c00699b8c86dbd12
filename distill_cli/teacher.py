"""The teacher: prepared once and shared by every run that needs the same one; then live, cached, or trained along."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli import __version__, engine, files, metrics, models, runtime, schedule, ui
from distill_cli.config import code_digest
from distill_cli.data import Batch, Data
from distill_cli.errors import CheckpointError
from distill_cli.models import Classifier, weights
from distill_cli.models.features import Output, Tap
from distill_cli.names import fingerprint, slug
from distill_cli.objectives import Loss
from distill_cli.objectives.logits import CE
from distill_cli.optim import Recipe, fit_recipe
from distill_cli.setup import Setup

FIT_EPOCHS = 6  # of a teacher that starts without a checkpoint, unless teacher.fit.epochs says otherwise
CACHE_LIMIT = 2**30  # bytes of logits kept in memory; beyond it the teacher runs live


@dataclass(frozen=True)
class Prepared:
    """A teacher ready to teach: where it is kept, and what is known of it."""

    folder: Path
    facts: dict[str, Any]


def fit_epochs(node: Mapping[str, Any]) -> int:
    """How many epochs the teacher is fitted for: as said, else a few without a checkpoint and none with one."""
    said = node["fit"]["epochs"]
    if said is not None:
        return int(said)
    return 0 if node["checkpoint"] else FIT_EPOCHS


def prepare(job: Setup) -> Prepared:
    """Load the job's teacher from root/teachers/, after making it there if no run has needed it before.

    Raises:
        CheckpointError: teacher.checkpoint cannot be used.
    """
    node, model, names, card = job.plain["teacher"], job.teacher, job.names, job.card("teacher")
    checkpoint = checkpoint_of(node, job.data) if node["checkpoint"] else None
    given = weights.read_weights(checkpoint) if checkpoint else None
    recipe, epochs = fit_recipe(node["fit"]), fit_epochs(node)
    settings = job.settings(seed=node["fit"]["seed"], batch_size=node["fit"]["batch_size"], compile=False)
    fitting = {"epochs": epochs, **recipe.node, "batch_size": settings.batch_size, "seed": settings.seed}
    ingredients = {
        "model": {key: value for key, value in card["model"].items() if key not in ("checkpoint", "joint", "fit")},
        "weights": node.get("weights"),
        "data": job.data.digest,
        "checkpoint": files.sha256(checkpoint) if checkpoint else None,
        "fit": {**fitting, "precision": str(settings.dtype)} if epochs else None,
        "seed": None if checkpoint else settings.seed,
        "code": code_digest(node["_target_"]),
    }
    digest = fingerprint(ingredients)
    folder = job.root / "teachers" / f"{slug(names['dataset'])}-{slug(names['teacher'])}-{digest}"

    def make(place: Path) -> None:
        started = time.perf_counter()
        if given is not None:
            weights.load_into(model.net, given, str(checkpoint))
        if epochs:
            ui.say(f"teacher: fitting {names['teacher']} on {names['dataset']}, {epochs} epoch(s); later runs reuse it")
            fit_alone(model, schedule.plain(epochs), recipe, job.data, settings, "teacher")
        facts: dict[str, Any] = {"fingerprint": digest, "ingredients": ingredients, "distill": __version__}
        facts["origin"] = "checkpoint" if checkpoint else "pretrained" if node.get("weights") else "scratch"
        facts |= {"fitted_epochs": epochs, "params": models.num_parameters(model)}
        for name, split in (("val", job.data.val), ("test", job.data.test)):
            facts[name] = metrics.measure(metrics.logits_of(model, split, settings.batch_size), split.labels)
        weights.write_model(place, "teacher", model.net, card)
        files.write_json(place / "teacher.json", {**facts, "seconds": time.perf_counter() - started})

    made = files.once(folder, make, lambda: ui.say("teacher: another run is preparing this one; waiting for it"))
    facts = weights.read_facts(folder / "teacher.json")
    try:
        weights.load_kept(folder, model.net)
    except CheckpointError as error:
        raise CheckpointError(error.message, f"delete {folder} to have it made again") from error
    if not made:
        ui.say(f"teacher: reusing {folder}")
    warn_if_at_chance(facts["val"]["accuracy"], job.data)
    return Prepared(folder, facts)


def checkpoint_of(node: Mapping[str, Any], data: Data) -> Path:
    """The weights' file that `teacher.checkpoint` names: a file, or a folder of ours, whose card is then held against
    the data.

    Raises:
        CheckpointError: it was trained on other classes, or its bytes are not those that were written.
    """
    path = Path(node["checkpoint"]).expanduser()
    folder = path if path.is_dir() else path.parent
    if path.is_file() and not (path.suffix == ".safetensors" and (folder / "model.json").is_file()):
        return path
    if not folder.is_dir() or not path.exists():
        return path  # read_weights says that it is missing
    card = weights.read_card(folder)
    path = weights.kept_file(folder, card)
    if card["classes"] != list(data.classes):
        raise CheckpointError(
            f"{path} was trained on other classes, or in another order: {', '.join(card['classes'][:5])}, ... "
            f"against {', '.join(data.classes[:5])}, ..."
        )
    trained = {key: list(card["model"].get(key) or card["input"][key]) for key in ("mean", "std")}
    now = {key: list(node[key] or getattr(data.input, key)) for key in ("mean", "std")}
    if trained != now:
        flags = " ".join(f"teacher.{key}={values}".replace(" ", "") for key, values in trained.items())
        ui.warn(f"{path} was trained under another normalisation; {flags} restores it")
    return path


def warn_if_at_chance(accuracy: float, data: Data) -> None:
    """Say so when a teacher knows no more than always naming the most frequent class."""
    counts = torch.bincount(data.val.labels, minlength=len(data.classes))
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
    settings: engine.Settings,
    label: str,
    label_smoothing: float = 0.0,
) -> list[engine.Row]:
    """Train a model on labels only; leaves it with its best weights on validation, and returns the epochs' rows."""
    terms = {"ce": CE()}
    losses = {stage.name: Loss(terms, label_smoothing) for stage in stages}
    state = engine.begin(model, terms, recipe)
    epochs = sum(stage.epochs for stage in stages)
    rows = []
    for row in engine.fit(state, stages, losses, recipe, data, settings, label=f"{label} "):
        ui.say(f"{label:<8} {row['epoch']:>3}/{epochs}  lr {row['lr']:.1e}  loss {row['loss']['total']:.3f}  "
               f"val acc {row['val']['accuracy']:.4f}  {row['images_per_second']:,.0f} img/s")  # fmt: skip
        rows.append(row)
    model.net.load_state_dict(state.best_weights)
    return rows


@dataclass(frozen=True)
class Way:
    """How a job's teacher answers, and why so in words for the header."""

    kind: str  # joint | cached | live | unused
    layers: tuple[str, ...]
    note: str

    @property
    def joint(self) -> bool:
        return self.kind == "joint"


def way_of(job: Setup) -> Way:
    """Choose how the teacher answers: its logits once for all where they are all that is asked, else live."""
    asked = [(name, o) for loss in job.losses.values() for name, o in loss.objectives.items()]
    layers = tuple(sorted({path for _, objective in asked for path in objective.teacher_layers}))
    size = 4 * len(job.data.train) * len(job.data.classes)
    if job.plain["teacher"]["joint"]:
        return Way("joint", layers, "trained along with the student")
    if not asked:
        return Way("unused", (), "not asked: labels only")
    if layers:
        names = ", ".join(sorted({name for name, objective in asked if objective.teacher_layers}))
        return Way("live", layers, f"runs live: objective {names} needs its features")
    if size > CACHE_LIMIT:
        return Way("live", (), f"runs live: its logits would take {size / 2**30:.1f} GiB")
    return Way("cached", (), "its logits are computed once")


class Teacher(engine.Answering, Protocol):
    """What a run needs of a teacher: answers to batches, its logits on a split, and what a checkpoint must hold of it."""

    def snapshot(self) -> dict[str, Any]: ...


def start(job: Setup, way: Way) -> Teacher:
    """The job's teacher, prepared before unless it is trained along, ready to answer."""
    if way.joint:
        return Joint(job, way.layers)
    return Frozen(job, way)


class Frozen:
    """A teacher that does not change: answers by sample index from logits computed once, or by running live."""

    def __init__(self, job: Setup, way: Way) -> None:
        self.model = job.teacher.eval().requires_grad_(False)
        self.tap = Tap(self.model.net, way.layers)
        splits = {"val": job.data.val, "test": job.data.test}
        if way.kind == "cached":
            splits["train"] = job.data.train
        self._logits = {name: metrics.logits_of(self.model, split, job.batch_size) for name, split in splits.items()}

    def __call__(self, batch: Batch) -> Output:
        if "train" in self._logits:
            return Output(self._logits["train"][batch.index])
        with torch.no_grad(), runtime.exact():  # the same logits as when they are computed once
            return self.tap(self.model, batch.inputs)

    def logits(self, split: str) -> Tensor:
        return self._logits[split]

    def snapshot(self) -> dict[str, Any]:
        return {}


class Joint:
    """A teacher that takes a step of its own on each batch's labels, and answers with its logits before that step."""

    def __init__(self, job: Setup, layers: Sequence[str]) -> None:
        self.model, self.data, self.batch_size = job.teacher.train(), job.data, job.batch_size
        self.optimizer = fit_recipe(job.plain["teacher"]["fit"]).build(self.model.parameters(), "teacher.fit")
        self.tap = Tap(self.model.net, layers)

    def __call__(self, batch: Batch) -> Output:
        output = self.tap(self.model, batch.inputs)
        F.cross_entropy(output.logits.float(), batch.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Output(output.logits.detach(), {path: maps.detach() for path, maps in output.features.items()})

    def logits(self, split: str) -> Tensor:
        return metrics.logits_of(self.model, getattr(self.data, split), self.batch_size)

    def snapshot(self) -> dict[str, Any]:
        return {"model": self.model.net.state_dict(), "optimizer": self.optimizer.state_dict()}
