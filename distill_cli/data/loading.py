"""A source read batch by batch, here or by worker processes; how a worker can fail, and that none is left, is kept here.

Processes and not threads: decoders release the interpreter, but all that stands around them does not. Pictures a second by
threads as a share of those by processes, on 16 idle cores: JPEGs of 64 pixels 1.1, 0.75 and 0.27 with 1, 2 and 4 workers,
of 224 pixels 1.1, 1.1 and 0.78; a data set written in Python 1.2, 0.6 and 0.4.
"""

from __future__ import annotations

import math
import os
import signal
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.sharedctypes import RawArray
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from distill_cli.base.errors import DataError, DistillError, WorkerError
from distill_cli.data.inputs import Inputs
from distill_cli.data.source import Source
from distill_cli.data.workers import GRACE, HINT, Running, carry_on, started

POLL = 1.0  # seconds between two looks at the workers while a batch is awaited
TIMEOUT = 300.0  # seconds after which the worker that was to read the awaited batch counts as hung
IDLE = -1
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
        at, pids = (RawArray("q", [IDLE] * max(num_workers, 1)) for _ in range(2))
        reading = Reading(self.source, at, pids)
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
        with started(loader) as running:
            while (batch := reading.awaited(running)) is not None:
                yield batch


@dataclass(frozen=True)
class Reading(Dataset[Inputs | DistillError]):
    """Whole batches as a worker reads them; shared are `at`, which sample each worker is reading, and `pids`, which
    process it is.
    """

    source: Source
    at: Any
    pids: Any

    def __getitem__(self, indices: list[int]) -> Inputs | DistillError:
        """The batch, or in a worker the error met: raised there, it would come with its traceback for a message."""
        worker = get_worker_info()
        if worker is None:
            return self._batch(indices, 0)
        self.pids[worker.id] = os.getpid()
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

    def awaited(self, running: Running) -> Inputs | None:
        """The next of the workers' batches, None after the last."""
        for _ in range(math.ceil(TIMEOUT / POLL)):  # counted, not timed: a run may be suspended with all its workers
            batch, failure = running.next()
            if failure is None:
                return batch
            if not str(failure).startswith("DataLoader timed out"):
                raise failure if not isinstance(failure, Exception) or _ours(failure) else self._lost(running, failure)
        busy = [worker for worker, index in enumerate(self.at) if index != IDLE]
        raise WorkerError(f"a data-loading worker hung for {TIMEOUT:g} s{self._where(busy)}", HINT)

    def _failed(self, worker: int, error: Exception) -> WorkerError:
        return WorkerError(f"a data-loading worker failed{self._where([worker])}: {in_a_line(error)}", HINT)

    def _lost(self, running: Running, error: Exception) -> WorkerError:
        """What became of a worker, whose end may show in a broken connection before it shows in the worker."""
        ended = wait([worker.sentinel for worker in running.workers], GRACE)
        for worker in running.workers:
            if worker.sentinel in ended:
                worker.join()
                code = worker.exitcode or 0
                how = f"died: {signal.strsignal(-code)}" if code < 0 else f"exited with code {code}"
                read = [number for number, pid in enumerate(self.pids) if pid == worker.pid]
                return WorkerError(f"a data-loading worker {how}{self._where(read)}", HINTS.get(code, HINT))
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


def _ours(error: Exception) -> bool:
    """Whether an error says all there is to say, and is no sign of a worker that was lost."""
    return isinstance(error, DistillError | MemoryError) or "out of memory" in str(error)


def in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
