"""Metrics of a checkpoint or run folder, at T = 1.

usage: distill eval ckpt=PATH [key=value ...] [options]

  distill eval ckpt=outputs/train/<date>/<run>          a run: its student, data and teacher
  distill eval ckpt=student.safetensors                 a copied student, with its model.json beside it
  distill eval ckpt=RUN split=val per_class=true
  distill eval ckpt=RUN predictions=predictions.csv     a row per sample, with probabilities
  distill eval ckpt=RUN dataset.root=elsewhere          the same data in another place
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_cli.base import files, runtime, ui
from distill_cli.base.errors import CheckpointError
from distill_cli.base.names import slug
from distill_cli.config.records import read
from distill_cli.config.schema import Dataset, Eval
from distill_cli.data import Data, Spec, load, read_spec
from distill_cli.models import Classifier, weights
from distill_cli.models.cards import rebuild
from distill_cli.pipeline.summary import COLUMNS
from distill_cli.runs import checkpoints
from distill_cli.tasks import metrics
from distill_cli.teachers.answering import mixture


@dataclass(frozen=True)
class Found:
    """What `ckpt` names: the card, the weights' file, the folder it lies in, and its run's folder if it is in one."""

    card: dict[str, Any]
    path: Path
    run: Path | None

    @property
    def home(self) -> Path:
        """The folder that the card's own paths start from."""
        return self.run or self.path.parent


def run(settings: Eval) -> dict[str, float]:
    """Evaluate one checkpoint; returns the student's metrics.

    Raises:
        CheckpointError: it cannot be used, or names code that is not trusted. DataError: the data cannot.
    """
    assert settings.ckpt is not None
    runtime.prepare(settings.threads)
    device = runtime.device(settings.device)
    found, state = find(Path(settings.ckpt).expanduser())
    trust, name = settings.trust, settings.split
    spec = read_spec(found.card["input"], trust)
    role = "teacher" if found.card.get("role") == "teacher" else "student"
    student = rebuild(found.card, role, spec, state, str(found.path), trust).to(device)
    data = load_data(settings, found.card, spec, trust).to(device)
    split = getattr(data, name)
    logits = metrics.logits_of(student, split, settings.batch_size)
    teachers = load_teachers(found, spec, trust)
    theirs = [metrics.logits_of(model.to(device), split, settings.batch_size) for model, _ in teachers]
    together = mixture(theirs, torch.tensor([share for _, share in teachers])) if theirs else None
    scores = metrics.measure(logits, split.targets, together)
    dataset = found.card["names"]["dataset"] if settings.choices["dataset"] == "stored" else settings.choices["dataset"]
    of_teacher = None if together is None else metrics.measure(together, split.targets)
    show(scores, of_teacher, f"{dataset} {name}", len(split))
    facts: dict[str, Any] = {
        "checkpoint": str(found.path),
        "dataset": dataset,
        "split": name,
        "samples": len(split),
    }
    facts["student"] = scores
    if settings.per_class:
        facts["per_class"] = classes = metrics.per_class(logits, split.targets)
        rows = [[name, *(f"{classes[c][i]:.4f}" for c in ("precision", "recall", "f1")), f"{classes['support'][i]:,}"]
                for i, name in enumerate(found.card["classes"])]  # fmt: skip
        ui.show(ui.table("by class", ["class", "precision", "recall", "f1", "samples"], rows))
    if settings.predictions is not None:
        target = Path(settings.predictions).expanduser()
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write(target, predictions(found.card["classes"], split.targets, logits, together))
        ui.show(f"predictions: {target}")
    ui.show(f"metrics: {write_metrics(found, facts, dataset, name)}")
    return scores


def find(path: Path) -> tuple[Found, Mapping[str, Tensor]]:
    """What `path` names, with the weights read and verified.

    Raises:
        CheckpointError: nothing there can be evaluated.
    """
    path = path.absolute()
    if path.is_dir():
        card = weights.read_card(path)
        path = path / Path(card["weights"]).name
    if path.suffix == ".safetensors":
        card = weights.read_card(path.parent)
        weights.verified(path, card["sha256"])
        return Found(card, path, _run_of(path.parent)), weights.read_weights(path)
    loaded = checkpoints.read(path)
    weights.require_card(loaded.get("card"), path)
    return Found(loaded["card"], path, _run_of(path.parent.parent)), loaded["student"]


def _run_of(folder: Path) -> Path | None:
    return folder if (folder / "status.json").is_file() else None


def load_data(settings: Eval, card: Mapping[str, Any], spec: Spec, trust: list[str]) -> Data:
    """The data to evaluate on, normalised as the checkpoint's were.

    Raises:
        CheckpointError: other classes or another size than the checkpoint was trained on.
    """
    stored = settings.choices["dataset"] == "stored"
    dataset = settings.dataset or _dataset_of(card)
    if stored:
        spec.check_node(dataset.plain)
    data = load(dataset, settings.workers, trust if stored else None)
    if len(data.classes) != len(card["classes"]):
        raise CheckpointError(
            f"the checkpoint knows {len(card['classes'])} classes, this data set has {len(data.classes)}"
        )
    if list(data.classes) != card["classes"]:
        ui.warn("the classes are called otherwise than in training; they are matched by position")
    spec.check(data.input)
    return data.normalised(spec)


def _dataset_of(card: Mapping[str, Any]) -> Dataset:
    """The data that a card describes.

    Raises:
        CheckpointError: it does not.
    """
    problems: list[str] = []
    dataset = read(Dataset, card["dataset"], "dataset.", problems)
    if problems:
        raise CheckpointError("the checkpoint's card is damaged:\n" + "\n".join(problems))
    return dataset


def load_teachers(found: Found, spec: Spec, trust: list[str]) -> list[tuple[Classifier, float]]:
    """The teachers the card names, each with its share, when they are all still there; else none, and a word about it."""
    named = _named(found)
    folders = [found.home / one["path"] for one in named]
    if not folders or not all(folder.is_dir() for folder in folders):
        ui.say("no teacher at hand: KL and agreement are left out")
        return []
    models = []
    for one, folder in zip(named, folders, strict=True):
        card = weights.read_card(folder)
        if card["sha256"] != one.get("sha256"):
            raise CheckpointError(f"{folder} holds another teacher than this student's")
        state = weights.read_weights(weights.kept_file(folder, card))
        model = rebuild(card, "teacher", spec, state, str(folder), trust)
        models.append((model, float(one.get("weight", 1.0))))
    return models


def _named(found: Found) -> list[dict[str, Any]]:
    """What the card says of each teacher; nothing where it names none.

    Raises:
        CheckpointError: it is damaged.
    """
    first, others = found.card.get("teacher"), found.card.get("teachers") or {}
    if first is None:
        return []
    named = [first, *(others.values() if isinstance(others, Mapping) else [None])]
    for one in named:
        whole = isinstance(one, Mapping) and isinstance(one.get("path"), str)
        if not whole or not (len(named) == 1 or isinstance(one.get("weight"), int | float)):
            raise CheckpointError(f"{found.path}: what its card says of the teacher is damaged")
    return named


def predictions(classes: list[str], labels: Tensor, logits: Tensor, theirs: Tensor | None) -> str:
    """CSV text: index, label, predicted, and the probabilities at T = 1 with all their digits."""
    columns = [f"student_{name}" for name in classes]
    table = torch.softmax(logits.cpu().double(), dim=1)
    if theirs is not None:
        columns += [f"teacher_{name}" for name in classes]
        table = torch.cat([table, torch.softmax(theirs.cpu().double(), dim=1)], dim=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", "predicted", *columns])
    decided = logits.argmax(1).tolist()
    for index, (label, guess, row) in enumerate(zip(labels.tolist(), decided, table.tolist(), strict=True)):
        writer.writerow([index, label, guess, *row])
    return text.getvalue()


def show(scores: Mapping[str, float], teacher: Mapping[str, float] | None, title: str, samples: int) -> None:
    """The table of metrics."""
    everyone = {"teacher": teacher, "student": scores} if teacher else {"student": scores}
    rows = [[who, *(f"{s[c]:.4f}" if c in s else "-" for c in COLUMNS)] for who, s in everyone.items()]
    ui.show(ui.table(f"{title}, {samples:,} samples, at T = 1", ["", *COLUMNS], rows))


def write_metrics(found: Found, facts: Mapping[str, Any], dataset: str, split: str) -> Path:
    """RUN/eval/<dataset>-<split>.json, or beside a lone checkpoint; a checkpoint's own name tells it from the student's."""
    own = "" if found.path.suffix == ".safetensors" else f"-{found.path.stem}"
    folder = found.run / "eval" if found.run else found.path.parent
    folder.mkdir(exist_ok=True)
    target = folder / f"{slug(dataset)}-{split}{own}.json"
    files.write_json(target, facts)
    return target
