"""What the steps of gpu.py share: their sizes, made-up data, runs whose epochs are taken one at a time, and a watch."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from distill_cli.base import joining, world
from distill_cli.config.load import load
from distill_cli.data import Data, Part, assemble
from distill_cli.pipeline.distillation import prepare_all
from distill_cli.teachers import answer
from distill_cli.teachers.way import way_of
from distill_cli.training import job as jobs
from distill_cli.training import loop, saving
from distill_cli.training.job import Job
from distill_cli.training.state import Row, State, begin

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Steps = Generator[Row | None, None, None]
GPU = DEVICE.type == "cuda"
SGD = ["optimizer=sgd", "optimizer.lr=0.01", "optimizer.momentum=0.9"]
CORES = len(os.sched_getaffinity(0))


class Found(NamedTuple):
    """A piece of a step's line: what was measured, what was asked for, if anything, and whether that was reached."""

    measured: str
    asked: str = ""
    good: bool = True


@dataclass(frozen=True)
class Sizes:
    """All that is otherwise in a dry run."""

    side: int  # of matrices that are multiplied
    mib: int  # that are copied
    rounds: int  # of which medians are taken
    files: int  # pictures on disk
    workers: int
    photo: int  # pixels a side of what a ResNet-50 is trained on
    batch: int  # of these
    steps: int  # of them an epoch
    small: int  # pictures of 32 pixels
    small_batch: int
    classes: int
    large: str  # networks
    middle: str
    student: tuple[str, ...]  # the language model's
    layers: int  # of that of which shards are kept, which two processes send each other through the host
    words: int  # its tokens
    blocks: int  # of `length` tokens, in train
    length: int
    language_batch: int
    limit: int  # of the digits, where whole runs are held against each other
    epochs: int  # of a run that is to be stopped
    dry: bool = False


REAL = Sizes(
    side=8192,
    mib=4096,
    rounds=5,
    files=6400,
    workers=CORES,
    photo=224,
    batch=128,
    steps=20,
    small=25_600,
    small_batch=512,
    classes=1000,
    large="resnet50",
    middle="resnet18",
    student=("layers=20", "width=1024", "heads=16", "inner=4096"),
    layers=8,
    words=50_257,
    blocks=128,
    length=512,
    language_batch=32,
    limit=1000,
    epochs=80,
)
DRY = Sizes(
    side=128,
    mib=8,
    rounds=2,
    files=192,
    workers=2,
    photo=32,
    batch=8,
    steps=2,
    small=128,
    small_batch=32,
    classes=10,
    large="resnet8x4",
    middle="tinycnn",
    student=("layers=2", "width=32", "heads=2", "inner=64"),
    layers=2,
    words=2000,
    blocks=8,
    length=16,
    language_batch=4,
    limit=128,
    epochs=40,
    dry=True,
)


def made_up(
    number: int, size: int, names: int, mean: list[float] | None = None, std: list[float] | None = None
) -> Data:
    """Random pixels as a data set in memory: `number` to train on, 64 to judge by."""
    draw = torch.Generator().manual_seed(0)

    def part(many: int) -> Part:
        pixels = torch.randint(256, (many, 3, size, size), dtype=torch.uint8, generator=draw)
        return Part(pixels, np.arange(many) % names)

    parts = part(number), part(64), part(64)
    titles = [str(name) for name in range(names)]
    return assemble(*parts, titles, val_fraction=0.1, split_seed=0, mean=[0.5], std=[0.25], note="made up")


def of_pixels(number: int, size: int, classes: int) -> list[str]:
    """The words of a run on such data; the folder with their YAML is made here."""
    yaml = Path("conf/dataset/made_up.yaml")
    yaml.parent.mkdir(parents=True, exist_ok=True)
    yaml.write_text("_target_: gpu_made.made_up\nnumber: 128\nsize: 32\nnames: 10\nmean: null\nstd: null\n")
    return ["dataset=made_up", f"dataset.number={number}", f"dataset.size={size}", f"dataset.names={classes}"]


class Nowhere:
    """Checkpoints that are not kept: a disk's speed is no part of a step's."""

    def due(self, step: int) -> bool:
        return False

    def save(self, snapshot: Mapping[str, Any], best: bool = False) -> None:
        """Nothing is kept."""


class Taken:
    """A run whose every `epoch` is one, its teacher prepared and its cache warm."""

    def __init__(self, *words: str, see: Callable[[State], None] | None = None) -> None:
        settings = load("train", ["schedule=constant", "schedule.train.epochs=1000", "report=false", *words])
        self.job: Job = jobs.read(settings)
        self.way = way_of(self.job)
        started = time.perf_counter()
        prepared = prepare_all(self.job, self.way)
        self.teacher = answer.start(self.job, self.way, {name: one.weights for name, one in prepared.items()})
        self.prepared_in = time.perf_counter() - started
        job = self.job
        self.state = state = begin(job.student, job.objectives, job.recipe, job.dtype)
        asked = self.teacher if self.way.kind != "unused" else None
        steps = loop.fit(state, job.stages, job.losses, job.data, job.task, job.pace, asked)
        self._rows = saving.kept(state, _seen(state, steps, see) if see else steps, Nowhere())  # type: ignore[arg-type]
        self.rows: list[Row] = []

    def epoch(self) -> float:
        """Take the next epoch; its seconds, without those of judging."""
        self.rows.append(next(self._rows))
        return float(self.rows[-1]["seconds"])


def _seen(state: State, steps: Steps, see: Callable[[State], None]) -> Steps:
    """The same steps; `see` is called after each."""
    for row in steps:
        if row is None:
            see(state)
        yield row


def in_turn(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Each way's median seconds, the first of which does not count: A B C, A B C, ..., so that a GPU's heat falls on all."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            took = way()
            if turn:
                seconds[name].append(took)
    return {name: statistics.median(each) for name, each in seconds.items()}


def wait() -> None:
    """Until the device has done all that it was given."""
    if GPU:
        torch.cuda.synchronize()


def timed(work: Callable[[], object], times: int = 10) -> Callable[[], float]:
    """Seconds of one of so many calls that follow each other."""

    def way() -> float:
        wait()
        started = time.perf_counter()
        for _ in range(times):
            work()
        wait()
        return (time.perf_counter() - started) / times

    return way


class Lone(int):
    """1 that is not taken for one process alone: everything is exchanged, with nobody, so that no number may change."""

    def __eq__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@contextmanager
def lone() -> Iterator[None]:
    """Inside, a run that torchrun has started as the only process does all that one of several would."""
    before, world.called = world.called, lambda: world.World(0, Lone(1))
    patience, joining.PATIENCE = joining.PATIENCE, 0.1  # nobody else leaves
    try:
        yield
    finally:
        world.called, joining.PATIENCE = before, patience


@contextmanager
def exchanging() -> Iterator[None]:
    """Inside, this process is one that torchrun has started alone, and exchanges everything with nobody."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with lone(), joining.joined():
        yield
