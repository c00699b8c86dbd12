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
from collections.abc import Mapping, Sequence
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
from distill_cli.data import Batch, Data, load
from distill_cli.models import Classifier, deployable, evaluating, probe
from distill_cli.models.deployable import Deployable
from distill_cli.models.features import Output
from distill_cli.pipeline.words import COLUMNS
from distill_cli.tasks import scores
from distill_cli.tasks import task as tasks
from distill_cli.tasks.rows import Dense, Rows, Signal
from distill_cli.tasks.task import Task, Watcher
from distill_cli.teachers.answer import mixture


def run(settings: Eval) -> dict[str, float]:
    """Evaluate one checkpoint; returns the student's metrics.

    Raises:
        CheckpointError: it cannot be used, or names code that is not trusted. DataError: the data cannot.
    """
    assert settings.ckpt is not None
    runtime.prepare(settings.threads)
    device = runtime.device(settings.device)
    student = Deployable.read(Path(settings.ckpt).expanduser(), settings.trust)
    data = load_data(settings, student).to(device)
    task, split, classes = tasks.of(data), getattr(data, settings.split), student.card["classes"]
    task.check(Output(probe(student.network, data.input, "student")), "student")
    teachers = Teachers.read(student, task, settings.trust, device)
    asked, answers, meters = Decisions(), Predictions(classes), {"student": task.meter()}
    watchers: list[Watcher] = [meters["student"], asked, *([answers] if settings.predictions else [])]
    if teachers:
        meters = {"teacher": task.meter(), **meters}
        watchers.append(tasks.OfTeacher(meters["teacher"]))
    model, batch_size = student.network.to(device), settings.batch_size
    tasks.watch(task, model, split, watchers, teachers.ask if teachers else None, batch_size)
    metrics = {who: meter.compute() for who, meter in meters.items()}
    chosen = settings.choices["dataset"]
    dataset = student.card["names"]["dataset"] if chosen == "stored" else chosen
    show(metrics, f"{dataset} {settings.split}", len(split))
    facts = {"checkpoint": str(student.path), "dataset": dataset, "split": settings.split, "samples": len(split)}
    facts["student"] = metrics["student"]
    if settings.per_class:
        facts["per_class"] = by_class = asked.scores(len(classes))
        rows = [[name, *(f"{by_class[c][i]:.4f}" for c in ("precision", "recall", "f1")), f"{by_class['support'][i]:,}"]
                for i, name in enumerate(classes)]  # fmt: skip
        ui.show(ui.table("by class", ["class", "precision", "recall", "f1", "samples"], rows))
    if settings.predictions is not None:
        target = Path(settings.predictions).expanduser()
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write(target, answers.text())
        ui.show(f"predictions: {target}")
    ui.show(f"metrics: {write_metrics(student, facts, dataset, settings.split)}")
    return metrics["student"]


def run_of(student: Deployable) -> Path | None:
    """The folder of the run that a student lies in, if it lies in one: itself, or below it as its checkpoints do."""
    assert student.path is not None
    weights = student.path.suffix == ".safetensors"
    folder = student.path.parent if weights else student.path.parent.parent
    return folder if (folder / "status.json").is_file() else None


def load_data(settings: Eval, student: Deployable) -> Data:
    """The data to evaluate on, normalised as the checkpoint's were.

    Raises:
        CheckpointError: other classes or another size than the checkpoint was trained on.
    """
    card, spec = student.card, student.spec
    stored = settings.choices["dataset"] == "stored"
    dataset = settings.dataset or _dataset_of(card)
    if stored:
        spec.check_node(dataset.plain)
    data = load(dataset, settings.workers, settings.trust if stored else None)
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


@dataclass(frozen=True)
class Teachers:
    """The teachers that a student's card names, which are asked live: each model, and its share in what they say."""

    task: Task
    models: Sequence[Classifier]
    shares: Tensor

    @classmethod
    def read(cls, student: Deployable, task: Task, trust: Sequence[str], device: torch.device) -> Teachers | None:
        """The teachers when they are all still there; else None, and a word about it.

        Raises:
            CheckpointError: what the card says of them is damaged, or other teachers lie there.
        """
        assert student.path is not None
        named, home = _named(student), run_of(student) or student.path.parent
        folders = [home / one["path"] for one in named]
        if not folders or not all(folder.is_dir() for folder in folders):
            ui.say("no teacher at hand: KL and agreement are left out")
            return None
        models = []
        for one, folder in zip(named, folders, strict=True):
            if deployable.read_card(folder)["sha256"] != one.get("sha256"):
                raise CheckpointError(f"{folder} holds another teacher than this student's")
            teacher = Deployable.read(folder, trust, student.spec)
            models.append(teacher.network.to(device))
        return cls(task, models, torch.tensor([float(one.get("weight", 1.0)) for one in named]))

    def ask(self, batch: Batch) -> Signal:
        """What they say together of a batch."""
        answers = []
        for model in self.models:
            with evaluating(model), torch.inference_mode(), runtime.exact():
                answers.append(self.task.rows(Output(model(batch.inputs)), batch).logits().float().clone())
        return Dense(mixture(answers, self.shares))


def _named(student: Deployable) -> list[dict[str, Any]]:
    """What the card says of each teacher; nothing where it names none.

    Raises:
        CheckpointError: it is damaged.
    """
    first, others = student.card.get("teacher"), student.card.get("teachers") or {}
    if first is None:
        return []
    named = [first, *(others.values() if isinstance(others, Mapping) else [None])]
    for one in named:
        whole = isinstance(one, Mapping) and isinstance(one.get("path"), str)
        if not whole or not (len(named) == 1 or isinstance(one.get("weight"), int | float)):
            raise CheckpointError(f"{student.path}: what its card says of the teacher is damaged")
    return named


class Decisions:
    """Collects what was asked for and what was decided, for the scores by class."""

    def __init__(self) -> None:
        self.pairs: list[Tensor] = []

    def update(self, rows: Rows, signal: Signal | None = None) -> None:
        self.pairs.append(torch.stack([rows.targets, rows.logits().argmax(-1)]).cpu())

    def scores(self, num_classes: int) -> dict[str, list[float]]:
        """See `scores.per_class`."""
        target, decided = torch.cat(self.pairs, dim=1)
        return scores.per_class(target, decided, num_classes)


class Predictions:
    """Writes a CSV row for each row of the data: index, label, predicted, and the probabilities at T = 1 with all their
    digits.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes, self.lines = classes, io.StringIO()
        self.writer, self.both = csv.writer(self.lines, lineterminator="\n"), False

    def update(self, rows: Rows, signal: Signal | None = None) -> None:
        self.both = signal is not None
        tables = [torch.softmax(answers.logits().cpu().double(), dim=-1) for answers in (rows, signal) if answers]
        decided = rows.logits().argmax(-1).tolist()
        values = torch.cat(tables, dim=-1).tolist()
        for index, label, guess, row in zip(rows.index.tolist(), rows.targets.tolist(), decided, values, strict=True):
            self.writer.writerow([index, label, guess, *row])

    def text(self) -> str:
        """The whole file."""
        columns = [f"{who}_{name}" for who in ("student", "teacher")[: 1 + self.both] for name in self.classes]
        head = io.StringIO()
        csv.writer(head, lineterminator="\n").writerow(["index", "label", "predicted", *columns])
        return head.getvalue() + self.lines.getvalue()


def show(metrics: Mapping[str, Mapping[str, float]], title: str, samples: int) -> None:
    """The table of metrics."""
    rows = [[who, *(f"{m[c]:.4f}" if c in m else "-" for c in COLUMNS)] for who, m in metrics.items()]
    ui.show(ui.table(f"{title}, {samples:,} samples, at T = 1", ["", *COLUMNS], rows))


def write_metrics(student: Deployable, facts: Mapping[str, Any], dataset: str, split: str) -> Path:
    """RUN/eval/<dataset>-<split>.json, or beside a lone checkpoint; a checkpoint's own name tells it from the student's."""
    path, run = student.path, run_of(student)
    assert path is not None
    own = "" if path.suffix == ".safetensors" else f"-{path.stem}"
    folder = run / "eval" if run else path.parent
    folder.mkdir(exist_ok=True)
    target = folder / f"{slug(dataset)}-{split}{own}.json"
    files.write_json(target, facts)
    return target
