"""Which runs lie under given paths, and what the files of each say; judges none of it, and needs no torch."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distill_cli.base import files, metrics, ui
from distill_cli.base.errors import CheckpointError
from distill_cli.base.metrics import Metric
from distill_cli.base.names import flat
from distill_cli.runs import identity

HINT = "give the folder of a run or a sweep, or one above"
MOST = 300  # epochs that are read; of more, every second, third, ...

# What every finished run's summary holds, and the leaderboard is made of.
NEEDED = (
    *("params.teacher", "params.student", "compression", "seed"),
    *("val.student.METRIC", "test.student.METRIC", "test.student_last.METRIC"),  # or, without labels, agreement
)


@dataclass(frozen=True)
class Record:
    """A finished run, from run.json and summary.json.

    `overrides` are settings as typed. `names` has the names of the "dataset", the "teacher" and the student ("model"), and
    what was chosen of the other groups as far as that is known. `started` is in seconds since 1970.
    """

    folder: Path
    config: dict[str, Any]
    overrides: list[str]
    seed: int
    summary: dict[str, Any]
    names: dict[str, str]
    started: float = 0.0

    @property
    def judged(self) -> Metric:
        """What its task is judged by."""
        return metrics.judged(self.summary)

    @property
    def metric(self) -> str:
        """What it is compared by, the same or, where validation or test has no labels, agreement with the teacher."""
        return metrics.compared(self.summary, "val", "test")

    @property
    def unit(self) -> str:
        """What is judged and what speed counts, as in images."""
        return str(self.summary.get("unit", "images"))


def finished(paths: Sequence[Path]) -> list[Record]:
    """Return the finished runs in and below the paths, each once, in the order of their folders; warn of damaged ones.

    Raises:
        CheckpointError: a path is no folder, or there is no finished run.
    """
    records = []
    for folder in _folders(paths, done=True):
        try:
            records.append(read(folder))
        except CheckpointError as error:
            ui.warn(f"{error.message}; this run is left out")
    if not records:
        message, hint = f"{', '.join(map(str, paths))}: no finished run lies there", HINT
        if number := len(unfinished(paths)):
            message, hint = f"{message} ({number} not finished)", f"distill resume RUN goes on with one; {hint}"
        raise CheckpointError(message, f"{hint}, as in distill report outputs/train")
    return records


def unfinished(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Return the runs in and below the paths that have no final numbers: the settings as typed, and how each stands, as
    in running or why it failed.

    Raises:
        CheckpointError: a path is no folder.
    """
    runs = []
    for folder in _folders(paths, done=False):
        status = _quietly(folder / identity.STATUS)
        settings = " ".join(_quietly(folder / identity.FILE).get("overrides", []))
        runs.append((settings or str(folder), status.get("reason") or status.get("status", "unknown")))
    return runs


def read(folder: Path) -> Record:
    """Return the finished run in `folder`.

    Raises:
        CheckpointError: it is missing, not finished or damaged.
    """
    try:
        about = identity.read(folder)
        if not (folder / identity.SUMMARY).exists():
            again = f"distill resume {shlex.quote(str(folder))} goes on with it"
            raise CheckpointError(f"{folder}: this run is not finished", again)
        summary = files.read_json(folder / identity.SUMMARY)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}") from error
    _check(folder / identity.SUMMARY, summary)
    names = _names(folder, about["config"], typed(about["overrides"]))
    started = _quietly(folder / identity.STATUS).get("started", 0.0)
    return Record(folder, about["config"], about["overrides"], summary["seed"], summary, names, started)


def epochs(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's epochs, thinned to at most about MOST; the last one stays.

    Raises:
        CheckpointError: they are missing or damaged.
    """
    path = folder / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not rows:
        raise CheckpointError(f"{path} is damaged: it holds no epoch")
    step = -(-len(rows) // MOST)
    return rows[:-1:step] + rows[-1:]


def speed(measured: Mapping[str, Any], unit: str) -> float:
    """Return the speed of an epoch's row or of a model's cost in a unit: samples a second, which older files call
    images_per_second, where they do not tell that of their rows.
    """
    rates = (f"{unit}_per_second", "samples_per_second", "images_per_second")
    return float(next(measured[rate] for rate in rates if rate in measured))


def typed(overrides: Sequence[str]) -> dict[str, str]:
    """Return settings as typed, value by key; of one typed twice the last."""
    return {key: value for key, _, value in (text.lstrip("+").partition("=") for text in overrides)}


def _folders(paths: Sequence[Path], done: bool) -> Iterator[Path]:
    """Yield every folder in and below the paths that holds a run with (`done`) or without final numbers, once."""
    seen = set()
    for path in paths:
        if not path.is_dir():
            raise CheckpointError(f"{path}: {'is a file' if path.exists() else 'there is no such folder'}", HINT)
        for place, inner, names in os.walk(path):  # which follows no links
            # The links of a chain belong to the run that they lie in.
            parts = {"checkpoints", "chain"} if identity.FILE in names else {"checkpoints"}
            inner[:] = sorted(name for name in inner if name[0] != "." and name not in parts)
            folder = Path(place)
            if identity.FILE in names and (identity.SUMMARY in names) == done and folder.resolve() not in seen:
                seen.add(folder.resolve())
                yield folder


def _check(path: Path, summary: Mapping[str, Any]) -> None:
    values = dict(flat(summary))
    for key in (key.replace("METRIC", summary.get("metric", metrics.DEFAULT)) for key in NEEDED):
        value = values.get(key, values.get(f"{key.rpartition('.')[0]}.agreement"))
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise CheckpointError(f"{path} is damaged: it does not say {key}")


def _names(folder: Path, config: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, str]:
    """Return the names from the cards of student and teacher; where a card is gone, what was chosen, or the class."""
    chosen = _choices(folder)

    def guess(group: str) -> str:
        node = config.get(group) or {}
        name = node.get("name") or chosen.get(group) or texts.get(group)
        return str(name or str(node.get("_target_", "?")).rpartition(".")[2])

    card = _quietly(folder / "model.json")
    teacher = _quietly(folder / card.get("teacher", {}).get("path", "teacher") / "model.json").get("names", {})
    names = {**chosen, "dataset": guess("dataset"), "model": guess("student"), **card.get("names", {})}
    return {**names, "teacher": teacher.get("model") or guess("teacher")}


def _choices(folder: Path) -> dict[str, str]:
    """Return which file of each group was chosen, defaults among them, as Hydra wrote it down."""
    try:
        with (folder / ".hydra" / "hydra.yaml").open(encoding="utf-8") as file:
            choices = yaml.safe_load(file)["hydra"]["runtime"]["choices"]
        return {group: name for group, name in choices.items() if "/" not in group and isinstance(name, str)}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return {}


def _quietly(path: Path) -> dict[str, Any]:
    """Return what a JSON file of ours holds, nothing where it is gone or damaged."""
    try:
        return files.read_json(path)
    except (CheckpointError, OSError):
        return {}
