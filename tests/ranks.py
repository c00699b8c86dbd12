"""Processes that find each other as those of torchrun do: forks of the test's, which need not import torch first."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from distill_cli.base import joining, stopping, world
from distill_cli.cli import main
from distill_cli.training.guard import Guard

# A language model of bytes from another one, over the texts below `texts`.
BYTES = ["train", "dataset=language", "dataset.root=texts", "dataset.separator=\\n\\n", "dataset.length=32",
         "teacher=bytes_tiny", "student=bytes_tiny", "teacher.fit.epochs=1", "optimizer=sgd", "optimizer.lr=0.05",
         "T=1", "schedule=constant", "schedule.train.epochs=1", "report=false"]  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, minus the signal's number where one killed it, and what it printed."""

    code: int
    said: str


@dataclass
class Ranks:
    """Processes under way."""

    pids: list[int]
    outputs: list[Path]

    def wait(self) -> list[Ended]:
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self.pids]
        return [Ended(code, path.read_text()) for code, path in zip(codes, self.outputs, strict=True)]


@contextmanager
def started(number: int, work: Callable[[], Any], **environment: str) -> Iterator[Ranks]:
    """Do `work` in so many processes; what each finds in its environment is what torchrun leaves there, and `environment`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"TORCHELASTIC_USE_AGENT_STORE": "True", "LOCAL_WORLD_SIZE": str(number), **environment}
    kept = None
    if environment["TORCHELASTIC_USE_AGENT_STORE"] == "True":
        kept = torch.distributed.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    place = Path(tempfile.mkdtemp(prefix="ranks", dir="."))
    ranks = Ranks([], [place / str(rank) for rank in range(number)])
    for rank, output in enumerate(ranks.outputs):
        pid = os.fork()
        if not pid:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
            code = 1
            try:
                sys.stdout = sys.stderr = output.open("w", buffering=1)
                code = work()
            finally:
                sys.stdout.flush()
                os._exit(code)
        ranks.pids.append(pid)
    yield ranks
    del kept


def joined(work: Callable[[], Any]) -> Callable[[], int]:
    """What a process does that prints what `work` gives, joined with the others."""

    def inside() -> int:
        with joining.joined():
            print(work())
        return 0

    return lambda: stopping.guarded(inside)


def together(number: int, work: Callable[[], Any]) -> list[Ended]:
    """Do `work`, joined, in so many processes."""
    with started(number, joined(work)) as ranks:
        return ranks.wait()


def distill_ranks(number: int, *words: str) -> list[Ended]:
    """Type `distill ...` in so many processes."""
    with started(number, lambda: main(list(words))) as ranks:
        return ranks.wait()


def stopped(number: int, words: list[str], at: int, act: Callable[[], Any], on: int) -> list[Ended]:
    """Type a line in so many processes, of which one does something before it takes the step `at` of a student."""
    step = Guard.step

    def watched(self: Guard, moment: Any, clip: float | None = None) -> None:
        if moment.stage != "fit" and moment.step == at and world.rank() == on:
            act()
        step(self, moment, clip)

    def work() -> int:
        Guard.step = watched  # type: ignore[method-assign]
        return main(words)

    with started(number, work) as ranks:
        return ranks.wait()


def codes(ended: list[Ended]) -> list[int]:
    """Their exit codes, by rank."""
    return [one.code for one in ended]


def weights(run: Path) -> torch.Tensor:
    """All weights of a run's student, (N,)."""
    return torch.cat([values.flatten() for _, values in sorted(load_file(run / "student.safetensors").items())])
