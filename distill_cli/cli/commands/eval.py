"""Metrics of a checkpoint or run folder, at T = 1.

usage: distill eval ckpt=PATH [key=value ...] [options]

  distill eval ckpt=outputs/train/<date>/<run>          a run: its student, data and teacher
  distill eval ckpt=student.safetensors                 a copied student, with its model.json beside it
  distill eval ckpt=model.onnx                          an exported one, likewise
  distill eval ckpt=RUN split=val per_class=true
  distill eval ckpt=RUN predictions=predictions.csv     a row per sample, with probabilities; of a language model its NLL
  distill eval ckpt=RUN dataset.root=elsewhere          other data of the same classes, or the same in another place
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from distill_cli.base import files, runtime, ui
from distill_cli.base.errors import CheckpointError, ConfigError, DataError
from distill_cli.base.names import slug
from distill_cli.config.schema import Eval
from distill_cli.data import Batch, Data
from distill_cli.data.source import Source
from distill_cli.deploy.judged import data_of, run_of
from distill_cli.deploy.onnx_file import SUFFIX
from distill_cli.deploy.predictor import Predictor
from distill_cli.models import deployable, evaluating, probe
from distill_cli.models.deployable import Deployable
from distill_cli.models.features import Output
from distill_cli.pipeline.outcome import scored
from distill_cli.tasks import scores
from distill_cli.tasks import task as tasks
from distill_cli.tasks.classification import ClassificationMeter
from distill_cli.tasks.rows import Dense, Signal
from distill_cli.tasks.task import Ask, Task
from distill_cli.tasks.watchers import Answers, OfTeacher, Watcher
from distill_cli.teachers.mixture import mixture


def run(settings: Eval) -> dict[str, float]:
    """Evaluate one checkpoint; returns the student's metrics.

    Raises:
        CheckpointError: it cannot be used, or names code that is not trusted. DataError: the data cannot.
        ConfigError: `predictions` names a folder, or per_class asks for what is not told.
    """
    assert settings.ckpt is not None
    written = files.place(settings.predictions, "predictions") if settings.predictions else None
    if written and written.is_dir():
        raise ConfigError(
            f"predictions: {written} is a folder", f"name a file: predictions={written / 'predictions.csv'}"
        )
    runtime.prepare(settings.threads)
    device = runtime.device(settings.device)
    student = Predictor.read(files.place(settings.ckpt, "ckpt"), settings.trust)
    data = data_of(student, settings, settings.split).to(device)
    task, split, classes = tasks.of(data), getattr(data, settings.split), student.card["classes"]
    task.check(Output(probe(student.network, "student"), head=student.network.head), "student")
    if settings.per_class and not task.by_class:
        raise ConfigError(
            f"per_class=true: {task.unit} are not judged by class", "predictions=FILE.csv tells it of each sample"
        )
    ask = teachers_of(student, task, data, settings.split, settings.trust, device)
    meters = {who: task.meter() for who in (("teacher", "student") if ask else ("student",))}
    decisions, answers = ClassificationMeter(len(classes)), task.answers(ask is not None)
    watchers: list[Watcher] = [meters["student"], *([OfTeacher(meters["teacher"])] if ask else [])]
    watchers += [decisions] if settings.per_class else []
    watchers += [answers] if written else []
    if not (ask or written or len(split.labelled)):
        raise DataError(f"{settings.split} has no labels, and there is no teacher: nothing can be measured",
                        "predictions=FILE.csv writes what the student says")  # fmt: skip
    tasks.watch(task, student.network.to(device), split, watchers, ask, settings.batch_size)
    metrics = {who: meter.compute() for who, meter in meters.items()}
    chosen = settings.choices["dataset"]
    dataset = student.card["names"]["dataset"] if chosen == "stored" else chosen
    names, cells = scored(metrics)
    known = "" if split.complete else f" ({len(split.labelled):,} with labels)"
    ui.show(ui.table(f"{dataset} {settings.split}, {len(split):,} samples{known}, at T = 1", ["", *names],
                     [[who, *row] for who, row in cells.items()]))  # fmt: skip
    facts = {"checkpoint": str(student.path), "dataset": dataset, "split": settings.split, "samples": len(split)}
    facts["student"] = metrics["student"]
    if settings.per_class:
        target, decided = decisions.column("target"), decisions.column("decided")
        facts["per_class"] = by_class = scores.per_class(target, decided, len(classes))
        table = [[name, *(f"{by_class[c][i]:.4f}" for c in ("precision", "recall", "f1")), f"{by_class['support'][i]:,}"]
                 for i, name in enumerate(classes)]  # fmt: skip
        ui.show(ui.table("by class", ["class", "precision", "recall", "f1", "samples"], table))
    if written:
        written.parent.mkdir(parents=True, exist_ok=True)
        files.write(written, table_of(answers, split.source))
        ui.show(f"predictions: {written}")
    ui.show(f"metrics: {write_metrics(student, facts)}")
    return metrics["student"]


def teachers_of(
    student: Deployable, task: Task, data: Data, split: str, trust: Sequence[str], device: torch.device
) -> Ask | None:
    """A function that asks the teachers of a student's card what they say together of a batch of a split; None where one is
    missing.

    Raises:
        CheckpointError: what the card says of them is damaged, or other teachers lie there.
    """
    teachers = _named_teachers(student)
    if not teachers or not all(folder.is_dir() for folder, _, _ in teachers):
        ui.say("there is no teacher to ask: KL and agreement are left out")
        return None
    models, shares = [], torch.tensor([share for _, _, share in teachers])
    for folder, digest, _ in teachers:
        if deployable.read_card(folder)["sha256"] != digest:
            raise CheckpointError(f"{folder} holds another teacher than this student's")
        models.append(Deployable.read(folder, trust, student.spec).network.to(device))

    splits = [getattr(data.under(model.spec), split) for model in models]

    def ask(batch: Batch) -> Signal:
        said = []
        for model, theirs in zip(models, splits, strict=True):
            read = batch if model.spec == student.spec else next(theirs.batches(len(batch), batch.index.cpu()))
            with evaluating(model), torch.inference_mode(), runtime.exact():
                said.append(task.rows(Output(model(read.inputs), head=model.head), read))
        if len(said) == 1:
            return Dense(said[0].answers.float().clone(), head=said[0].head)
        return Dense(mixture([rows.logits().float().clone() for rows in said], shares))

    return ask


def _named_teachers(student: Deployable) -> list[tuple[Path, Any, float]]:
    """The folder of each teacher that the card names, the SHA-256 of its weights, and its share in what they say.

    Raises:
        CheckpointError: the card is damaged.
    """
    assert student.path is not None
    home = run_of(student) or student.path.parent
    first, others = student.card.get("teacher"), student.card.get("teachers") or {}
    try:
        facts = [] if first is None else [first, *others.values()]
        return [(home / one["path"], one.get("sha256"), float(one["weight"] if others else 1.0)) for one in facts]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{student.path}: its card is damaged where it names the teacher") from error


def table_of(answers: Answers, source: Source) -> str:
    """A CSV of single answers, each after its sample's index and what its source tells of it."""
    told, text = source.columns, io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["index", *told(0), *answers.head])
    for index, values in answers.table():
        table.writerow([index, *told(index).values(), *values])
    return text.getvalue()


def write_metrics(student: Deployable, facts: Mapping[str, Any]) -> Path:
    """Write RUN/eval/<dataset>-<split>.json, or the same name beside a lone checkpoint; a .pt file adds its own name."""
    path, run = student.path, run_of(student)
    assert path is not None
    suffix = "" if path.suffix in (".safetensors", SUFFIX) else f"-{path.stem}"
    folder = run / "eval" if run else path.parent
    folder.mkdir(exist_ok=True)
    file = folder / f"{slug(facts['dataset'])}-{facts['split']}{suffix}.json"
    files.write_json(file, facts)
    return file
