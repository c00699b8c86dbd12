"""Inputs answered one after the other, and a row written for each; what an input is stands in inputs.py."""

from __future__ import annotations

import csv
import filecmp
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from distill_cli.base import files
from distill_cli.base.files import Sink
from distill_cli.base.names import folder_name
from distill_cli.deploy.inputs import Entry, Named
from distill_cli.models import Classifier
from distill_cli.tasks.watchers import Facts, Replies


class Answered(NamedTuple):
    """An input with what was said of it; None where it could not be read."""

    entry: Entry
    facts: Facts | None = None


@dataclass(frozen=True)
class Asked:
    """How inputs are answered: by whom, as what, in which batches."""

    model: Classifier
    replies: Replies
    device: torch.device
    workers: int
    batch_size: int
    window: int

    def answers(self, inputs: Named) -> Iterator[Answered]:
        """The inputs in their order, each with its answer."""
        waits = inputs.number is not None  # what comes through a pipe is answered as soon as a batch of it is there
        for window in _windows(inputs.entries, self.batch_size * (self.window if waits else 1), waits):
            yield from self._answered(window, inputs)

    def _answered(self, window: Sequence[Entry], inputs: Named) -> Iterator[Answered]:
        readable = [entry for entry in window if not entry.fault]
        said, faults = dict[int, Facts](), dict[int, str]()
        if readable:
            split = inputs.split([entry.content for entry in readable])
            split = replace(
                split, spec=self.model.spec, workers=self.workers
            )  # an exported file takes samples as they are
            said = dict(self.replies.of(self.model, split.to(self.device), self.batch_size))
            faults = split.source.faults()
        row = -1
        for entry in window:
            row += not entry.fault
            if entry.fault or row in faults:
                yield Answered(entry._replace(fault=entry.fault or faults[row]))
            else:
                yield Answered(entry, said[row])


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
    """The output: a row for each input, its told columns and those of what was said; JSON lines, or else CSV."""

    def __init__(self, sink: Sink, replies: Replies, lines: bool) -> None:
        self.sink, self.replies, self.lines = sink, replies, lines
        self.table, self.begun = csv.writer(self, lineterminator="\n"), False

    def write(self, text: str) -> None:
        """What the csv module writes to."""
        self.sink.write(text.encode())

    def add(self, answered: Answered) -> None:
        """Write one row."""
        (told, _, fault), facts = answered
        if self.lines:
            said = {"error": fault} if facts is None else facts
            self.write(json.dumps({**told, **said}, ensure_ascii=False) + "\n")
            return
        columns = self.replies.columns
        if not self.begun:
            self.table.writerow([*told, *columns])
            self.begun = True
        cells = {"error": fault, **({} if facts is None else self.replies.cells(facts))}
        self.table.writerow([*told.values(), *(cells.get(name, "") for name in columns)])


def copied(path: Path, home: Path, name: str) -> Path:
    """Copy a file into the folder of its class, and return where it lies: nothing is overwritten, and no file lies there twice."""
    folder = home / folder_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / path.name, 1
    while target.exists() and not filecmp.cmp(path, target, shallow=False):
        number += 1
        target = folder / f"{path.stem}-{number}{path.suffix}"
    if not target.exists():
        try:
            shutil.copy2(path, target)
        except BaseException as error:
            target.unlink(missing_ok=True)  # of half a picture nobody is told that it is one
            if isinstance(error, OSError):
                raise files.explained(error, target, path.stat().st_size) from error
            raise
    return target
