"""Pictures read batch by batch, here or by worker processes; how a worker can fail, and that none is left, is kept here."""

from __future__ import annotations

import atexit
import math
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from distill_cli.base.errors import DataError, DistillError, WorkerError
from distill_cli.data.inputs import Inputs
from distill_cli.data.source import Source

POLL = 1.0  # seconds between two looks at the workers while a batch is awaited
TIMEOUT = 300.0  # seconds after which the worker that was to read the awaited batch counts as hung
GRACE = 1.0  # seconds that workers get to end by themselves
STOPS = (signal.SIGTERM, signal.SIGINT)
IDLE = -1
HINT = "try workers=0"
HINTS = {  # by exit code
    -signal.SIGKILL: f"often the machine is out of memory: {HINT}",
    -signal.SIGBUS: f"often shared memory (/dev/shm) is full: {HINT}",
}


@dataclass(frozen=True)
class Loader:
    """The batches of a source's samples at the given rows, read by `workers` processes or, with 0 of them, here.

    Iterating raises:
        DataError: a picture cannot be read. WorkerError: a worker was killed, hung, or raised what is no error of ours.
    """

    source: Source
    batches: Sequence[list[int]]
    workers: int = 0
    pin_memory: bool = False

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Inputs]:
        num_workers = self.workers if self.batches else 0
        reading = Reading(self.source, RawArray("q", [IDLE] * num_workers) if num_workers else [IDLE])
        # A generator of its own: otherwise each loader would draw its seed from, and so move, the global one.
        loader = DataLoader(
            reading,
            batch_size=None,
            sampler=self.batches,
            num_workers=num_workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),
            timeout=POLL if num_workers else 0,
            worker_init_fn=carry_on,
        )
        if not num_workers:
            yield from loader
            return
        with started(loader) as batches:
            while (batch := reading.awaited(batches)) is not None:
                yield batch


@dataclass(frozen=True)
class Reading(Dataset[Inputs | DistillError]):
    """Whole batches as a worker reads them; `at` is shared, and shows which sample each worker is reading."""

    source: Source
    at: Any

    def __getitem__(self, indices: list[int]) -> Inputs | DistillError:
        """The batch, or in a worker the error met: raised there, it would come with its traceback for a message."""
        worker = get_worker_info()
        if worker is None:
            return self._batch(indices, 0)
        try:
            return self._batch(indices, worker.id)
        except Exception as error:
            ours = error if isinstance(error, DistillError) else self._failed(worker.id, error)
            ours.add_note("in a data-loading worker:\n" + "".join(traceback.format_exception(error)))
            return ours

    def _batch(self, indices: list[int], worker: int) -> Inputs:
        try:
            return self.source.read(Noted(indices, self.at, worker))
        except OSError as error:
            raise DataError(f"cannot read {self._name(self.at[worker])}: {error}") from error

    def awaited(self, batches: Any) -> Inputs | None:
        """The next of the workers' batches, None after the last."""
        for _ in range(math.ceil(TIMEOUT / POLL)):  # counted, not timed: a run may be suspended with all its workers
            try:
                batch = next(batches, None)
            except Exception as error:
                text = str(error)
                if text.startswith("DataLoader timed out"):
                    continue
                if isinstance(error, MemoryError) or "out of memory" in text:
                    raise
                raise self._lost(batches, error) from error
            if isinstance(batch, DistillError):
                raise batch
            return batch
        busy = [worker for worker, index in enumerate(self.at) if index != IDLE]
        raise WorkerError(f"a data-loading worker hung for {TIMEOUT:g} s{self._where(busy)}", HINT)

    def _failed(self, worker: int, error: Exception) -> WorkerError:
        return WorkerError(f"a data-loading worker failed{self._where([worker])}: {in_a_line(error)}", HINT)

    def _lost(self, batches: Any, error: Exception) -> WorkerError:
        """What became of a worker, whose end may show in a broken connection before it shows in the worker."""
        ended = wait([worker.sentinel for worker in batches._workers], GRACE)
        for number, worker in enumerate(batches._workers):
            if worker.sentinel in ended:
                worker.join()
                code = worker.exitcode
                how = f"died: {signal.strsignal(-code)}" if code < 0 else f"exited with code {code}"
                return WorkerError(f"a data-loading worker {how}{self._where([number])}", HINTS.get(code, HINT))
        return WorkerError(f"the data-loading workers failed: {in_a_line(error)}", HINT)

    def _where(self, workers: Sequence[int]) -> str:
        names = [self._name(self.at[worker]) for worker in workers if self.at[worker] != IDLE]
        return f" while reading {' or '.join(names)}" if names else ""

    def _name(self, index: int) -> str:
        return self.source.name_of(index) if index != IDLE else "its samples"


@dataclass(frozen=True)
class Noted(Sequence[int]):
    """Rows that a source goes through; the one that it is at stands in `at[worker]`."""

    rows: Sequence[int]
    at: Any
    worker: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        return self.rows[place]

    def __iter__(self) -> Iterator[int]:
        for row in self.rows:
            self.at[self.worker] = row
            yield row
        self.at[self.worker] = IDLE


def in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def carry_on(worker: int) -> None:
    """Ctrl-C and SIGTERM go to all processes of a terminal or a job: what they mean for the workers, we decide."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


@contextmanager
def started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's iterator inside, with its workers running; afterwards none is left, whatever happened.

    Raises:
        WorkerError: they cannot be started.
    """
    others, batches, workers = set(active_children()), None, []
    try:
        try:
            with held_back():
                batches = iter(loader)
        except (OSError, RuntimeError) as error:
            raise WorkerError(f"the data-loading workers cannot be started: {error}", HINT) from error
        finally:
            workers = [child for child in active_children() if child not in others]
        with unannounced():
            yield batches
    finally:
        end(batches, workers)


@contextmanager
def held_back() -> Iterator[None]:
    """Processes started inside begin with SIGTERM and SIGINT blocked, until they have said what to do about them."""
    if not in_main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def unannounced() -> Iterator[None]:
    """torch answers a worker's death with an error wherever we happen to be; inside, we find out when we ask for data."""
    if not in_main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        if in_main_thread():  # a generator may be closed by another one
            signal.signal(signal.SIGCHLD, before)


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def end(batches: Any, workers: Sequence[BaseProcess]) -> None:
    """Let the workers end by themselves, or kill those that do not.

    torch's own way waits 5 s for each and then sends SIGTERM; and it waits for ever for a lock that a killed worker
    held, hence the thread.
    """
    if sys.is_finalizing():  # no thread can be started any more; `kill_daemons` has done it
        return
    ending = threading.Thread(target=None if batches is None else batches._shutdown_workers, daemon=True)
    with unannounced():
        try:
            ending.start()
            ending.join(GRACE)
        finally:
            kill(workers)
        ending.join(GRACE)


def kill(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(GRACE)


@atexit.register
def kill_daemons() -> None:
    """At exit multiprocessing sends its daemons SIGTERM and waits for them: those of an iterator that is still open
    would not hear it.
    """
    with unannounced():
        kill([child for child in active_children() if child.daemon])
