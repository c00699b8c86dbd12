"""A source read batch by batch, here or by worker processes; how a worker can fail, and that none is left, is kept here.

Processes and not threads: decoders release the interpreter, but what stands around them does not. Pictures a second by
threads as a share of those by processes, on 16 idle cores: JPEGs of 64 pixels 1.1, 0.75 and 0.27 with 1, 2 and 4 workers,
of 224 pixels 1.1, 1.1 and 0.78; a data set written in Python 1.2, 0.6 and 0.4.
"""

from __future__ import annotations

import atexit
import math
import multiprocessing
import signal
import traceback
import weakref
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from typing import Any

import torch

from distill_cli.base.errors import DataError, DistillError, WorkerError
from distill_cli.data import inputs as of_inputs
from distill_cli.data.inputs import Inputs
from distill_cli.data.source import Source

OPEN = weakref.WeakSet[Generator[Inputs]]()  # what reads and may not have come to its end
AHEAD = 2  # batches that a worker reads before they are asked for
BLOCK = 256  # samples that are read at a time where no batch size says
GRACE = 1.0  # seconds that the end of a process may take to show
POLL = 1.0  # seconds between two looks at a worker whose batch is awaited
TIMEOUT = 300.0  # seconds after which that worker counts as hung
IDLE = -1
STOPS = (signal.SIGTERM, signal.SIGINT)
HINT = "try workers=0"
HINTS = {  # by exit code
    -signal.SIGKILL: f"often the machine is out of memory: {HINT}",
    -signal.SIGBUS: f"often shared memory (/dev/shm) is full: {HINT}",
}


def blocks(rows: Any) -> list[list[int]]:
    """Rows (n,) in blocks that are read at a time."""
    return [rows[start : start + BLOCK].tolist() for start in range(0, len(rows), BLOCK)]


@dataclass(frozen=True)
class Loader:
    """The batches of a source's samples at the given rows, read by `workers` processes or, with 0 of them, here.

    Iterating raises:
        DataError: a sample cannot be read. WorkerError: a worker was killed, hung, or raised what is no error of ours.
    """

    source: Source
    batches: Sequence[list[int]]
    workers: int = 0
    pin_memory: bool = False

    def __iter__(self) -> Iterator[Inputs]:
        batches = self._by_workers() if self.workers else self._here()
        OPEN.add(batches)
        for batch in batches:
            yield of_inputs.pinned(batch) if self.pin_memory else batch

    def _here(self) -> Generator[Inputs]:
        at = RawValue("q", IDLE)
        for rows in self.batches:
            yield _read(self.source, rows, at)

    def _by_workers(self) -> Generator[Inputs]:
        """Batch i is read by worker i modulo their number: each has its own, in order."""
        number, workers = min(self.workers, len(self.batches)), list[Worker]()
        try:
            try:
                with _signals_held_back():
                    for first in range(number):
                        workers.append(_started(self.source, self.batches[first::number]))
            except (OSError, RuntimeError) as error:
                raise WorkerError(f"the data-loading workers cannot be started: {error}", HINT) from error
            for batch in range(len(self.batches)):
                yield workers[batch % number].next()
        finally:
            _kill([worker.process for worker in workers])


@dataclass(frozen=True)
class Worker:
    """A process that reads batches of a source, the pipe they come by, and the row it is reading now, or IDLE."""

    source: Source
    process: BaseProcess
    pipe: Connection
    at: Any

    def next(self) -> Inputs:
        """The worker's next batch."""
        for _ in range(math.ceil(TIMEOUT / POLL)):  # counted, not timed: a run may be suspended with all its workers
            if ready := wait([self.pipe, self.process.sentinel], POLL):
                break
        else:
            raise WorkerError(f"a data-loading worker hung for {TIMEOUT:g} s{_where(self.source, self.at)}", HINT)
        try:
            if self.pipe not in ready:
                raise EOFError
            answer: Inputs | DistillError = self.pipe.recv()
            self.pipe.send(None)
        except (EOFError, OSError) as error:
            raise self._lost(error) from None
        if isinstance(answer, DistillError):
            raise answer
        return answer

    def _lost(self, error: Exception) -> WorkerError:
        """What became of the worker, whose end may show in its pipe before it shows in the process."""
        self.process.join(GRACE)
        code = self.process.exitcode
        if code is None:
            return _failed(self.source, self.at, error)
        how = f"died: {signal.strsignal(-code)}" if code < 0 else f"exited with code {code}"
        return WorkerError(f"a data-loading worker {how}{_where(self.source, self.at)}", HINTS.get(code, HINT))


@dataclass(frozen=True)
class Noted(Sequence[int]):
    """Rows that a source goes through; the one that it is at stands in `at`."""

    rows: Sequence[int]
    at: Any

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        return self.rows[place]

    def __iter__(self) -> Iterator[int]:
        for row in self.rows:
            self.at.value = row
            yield row
        self.at.value = IDLE


def _started(source: Source, batches: Sequence[list[int]]) -> Worker:
    at = RawValue("q", IDLE)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_work, args=(source, batches, at, theirs, ours), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process ends the pipe
    return Worker(source, process, ours, at)


def _work(source: Source, batches: Sequence[list[int]], at: Any, pipe: Connection, ours: Connection) -> None:
    """Read the batches, until killed: the main process takes their tensors from this one's memory.

    Ctrl-C and SIGTERM go to all processes of a terminal or a job: what they mean for a worker, the main one decides.
    """
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    torch.set_num_threads(1)
    ours.close()
    with suppress(EOFError, ConnectionError):  # the main process is gone
        for number, rows in enumerate(batches):
            if number >= AHEAD:
                pipe.recv()
            try:
                pipe.send(_read(source, rows, at))
            except ConnectionError:
                raise
            except Exception as error:
                told = error if isinstance(error, DistillError) else _failed(source, at, error)
                told.add_note("in a data-loading worker:\n" + "".join(traceback.format_exception(error)))
                pipe.send(told)
        while True:
            pipe.recv()


def _read(source: Source, rows: Sequence[int], at: Any) -> Inputs:
    try:
        return source.read(Noted(rows, at))
    except OSError as error:
        name = "its samples" if at.value == IDLE else source.name_of(at.value)
        raise DataError(f"cannot read {name}: {error}") from error


def _failed(source: Source, at: Any, error: Exception) -> WorkerError:
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return WorkerError(f"a data-loading worker failed{_where(source, at)}: {what}", HINT)


def _where(source: Source, at: Any) -> str:
    return "" if at.value == IDLE else f" while reading {source.name_of(at.value)}"


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Processes started inside begin with SIGTERM and SIGINT blocked, until they have said what to do about them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join(GRACE)


@atexit.register
def close_all() -> None:
    """At exit multiprocessing sends its daemons SIGTERM and waits for them: those of an iterator that is still open would not hear
    it. Later the iterator could not end them itself: what it needs for that is gone then.
    """
    for batches in list(OPEN):
        batches.close()
