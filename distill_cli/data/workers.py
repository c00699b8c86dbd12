"""The processes that a torch loader starts: how they hear signals, how long they get to end, and that none is left."""

from __future__ import annotations

import atexit
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

from distill_cli.base.errors import DistillError, WorkerError

GRACE = 1.0  # seconds that workers get to end by themselves
STOPS = (signal.SIGTERM, signal.SIGINT)
HINT = "try workers=0"


def carry_on(worker: int) -> None:
    """Ctrl-C and SIGTERM go to all processes of a terminal or a job: what they mean for the workers, we decide."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


@dataclass(frozen=True)
class Running:
    """torch's iterator over the workers' batches, the only reference to it, and the workers."""

    batches: list[Any]
    workers: list[BaseProcess]

    def next(self) -> tuple[Any, BaseException | None]:
        """The next batch, None after the last; or what came instead, without a traceback that refers to the iterator."""
        try:
            batch = next(self.batches[0], None)
        except BaseException as error:
            return None, error.with_traceback(None)
        return (None, batch) if isinstance(batch, DistillError) else (batch, None)

    def end(self) -> None:
        """Let the workers end by themselves, as they do when torch's iterator goes, or kill those that do not.

        torch's own way waits 5 s for each and then sends SIGTERM; and it waits for ever for a lock that a killed worker
        held, hence the thread.
        """
        if sys.is_finalizing():  # no thread can be started any more; `kill_daemons` has done it
            return
        ending = threading.Thread(target=self.batches.clear, daemon=True)
        with unannounced():
            try:
                ending.start()
                ending.join(GRACE)
            finally:
                kill(self.workers)
            ending.join(GRACE)


@contextmanager
def started(loader: DataLoader[Any]) -> Iterator[Running]:
    """The loader's workers running inside; afterwards none is left, whatever happened.

    Raises:
        WorkerError: they cannot be started.
    """
    others, running = set(active_children()), Running([], [])
    try:
        try:
            with held_back():
                running.batches.append(iter(loader))
        except (OSError, RuntimeError) as error:
            raise WorkerError(f"the data-loading workers cannot be started: {error}", HINT) from error
        finally:
            running.workers.extend(child for child in active_children() if child not in others)
        with unannounced():
            yield running
    finally:
        running.end()


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
