"""Inputs answered one after the other, and a row written for each; what an input is stands in inputs.py."""

from __future__ import annotations

import csv
import filecmp
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distill_cli.base.files import Sink
from distill_cli.base.names import slug
from distill_cli.data import UNKNOWN, Split
from distill_cli.deploy.inputs import Entry, Named
from distill_cli.deploy.predictor import Predictor

WINDOW = 64  # batches that are read before their rows are written


class Answered(NamedTuple):
    """An input with its answer.

    Attributes:
        probabilities: (C,) float64; None where it could not be read. predicted: the class, empty below the threshold.
    """

    entry: Entry
    probabilities: Tensor | None = None
    predicted: str = ""

    @property
    def confidence(self) -> float:
        """The largest probability."""
        assert self.probabilities is not None
        return float(self.probabilities.max())


@dataclass(frozen=True)
class Asked:
    """How inputs are answered: by whom, in which batches, and from which confidence on a class is named."""

    predictor: Predictor
    device: torch.device
    workers: int
    batch_size: int
    window: int
    threshold: float

    def answers(self, inputs: Named) -> Iterator[Answered]:
        """The inputs in their order, each with its answer."""
        waits = inputs.number is not None  # what comes through a pipe is answered as soon as a batch of it is there
        for window in _windows(inputs.entries, self.batch_size * (self.window if waits else 1), waits):
            yield from self._answered(window, inputs)

    def _answered(self, window: Sequence[Entry], inputs: Named) -> Iterator[Answered]:
        readable = [entry for entry in window if not entry.fault]
        found, faults = dict[int, Tensor](), dict[int, str]()
        if readable:
            source = inputs.source([entry.content for entry in readable])
            split = Split(source, torch.full((len(readable),), UNKNOWN), self.predictor.spec, self.workers)
            for batch, values in self.predictor.answers(split.to(self.device), self.batch_size):
                found.update(zip(batch.index.tolist(), values, strict=True))
            faults = source.faults()
        row = -1
        for entry in window:
            row += not entry.fault
            if entry.fault or row in faults:
                yield Answered(entry._replace(fault=entry.fault or faults[row]))
            else:
                yield self._named(entry, found[row])

    def _named(self, entry: Entry, values: Tensor) -> Answered:
        sure = float(values.max()) >= self.threshold
        return Answered(entry, values, self.predictor.card["classes"][int(values.argmax())] if sure else "")


def _windows(entries: Iterable[Entry], size: int, ahead: bool) -> Iterator[list[Entry]]:
    """So many entries at a time; a lone last one stays with those before it, as in evaluation, where we may look `ahead`."""
    window = list[Entry]()
    for entry in entries:
        window.append(entry)
        if len(window) == size + 2 * ahead:
            yield window[:size]
            window = window[size:]
    if window:
        yield window


class Table:
    """The output: a row for each input, its told columns, predicted, confidence, error, and probabilities by class.

    Args:
        classes: names. top: so many of the likeliest classes, in place of every class. lines: JSON lines, else CSV.
    """

    def __init__(self, sink: Sink, classes: Sequence[str], top: int | None, lines: bool) -> None:
        self.sink, self.classes, self.top, self.lines = sink, classes, top, lines
        self.table, self.begun = csv.writer(self, lineterminator="\n"), False

    def write(self, text: str) -> None:
        """What the csv module writes to."""
        self.sink.write(text.encode())

    def add(self, answered: Answered) -> None:
        """Write one row."""
        entry, values = answered.entry, answered.probabilities
        if self.lines:
            self.write(json.dumps(self._object(answered), ensure_ascii=False) + "\n")
            return
        names = self._columns()
        if not self.begun:
            self.table.writerow([*entry.told, "predicted", "confidence", "error", *names])
            self.begun = True
        numbers: Sequence[Any] = [""] * len(names)
        if values is not None and self.top is None:
            numbers = values.tolist()
        elif values is not None:
            numbers = [part for pair in likeliest(values, self.classes, self.top or 1) for part in pair]
        sure = "" if values is None else answered.confidence
        self.table.writerow([*entry.told.values(), answered.predicted, sure, entry.fault, *numbers])

    def _columns(self) -> list[str]:
        if self.top is None:
            return [f"p_{name}" for name in self.classes]
        most = range(1, 1 + min(self.top, len(self.classes)))
        return [part for place in most for part in (f"top_{place}", f"p_{place}")]

    def _object(self, answered: Answered) -> Mapping[str, Any]:
        told, values = answered.entry.told, answered.probabilities
        if values is None:
            return {**told, "error": answered.entry.fault}
        pairs = dict(zip(self.classes, values.tolist(), strict=True))
        if self.top is not None:
            pairs = dict(likeliest(values, self.classes, self.top))
        return {
            **told,
            "predicted": answered.predicted or None,
            "confidence": answered.confidence,
            "probabilities": pairs,
        }


def likeliest(values: Tensor, classes: Sequence[str], number: int) -> list[tuple[str, float]]:
    """The classes of the largest of some probabilities (C,), with these; of equal ones the first comes first."""
    places = values.argsort(descending=True, stable=True)[:number].tolist()
    return [(classes[place], float(values[place])) for place in places]


def copied(path: Path, home: Path, name: str) -> Path:
    """Copy a file into the folder of its class, and return where it lies: nothing is overwritten, and no file lies there twice."""
    folder = home / slug(name)
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / path.name, 1
    while target.exists() and not filecmp.cmp(path, target, shallow=False):
        number += 1
        target = folder / f"{path.stem}-{number}{path.suffix}"
    if not target.exists():
        shutil.copy2(path, target)
    return target
