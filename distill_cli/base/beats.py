"""Finds a process of a run that no longer moves, and ends the others, whatever they wait in: they would wait for ever.

Each process counts up in the store, and looks at the number of the next one. A process that was stopped, that keeps Python's lock
to itself, or whose machine is gone counts no more. One that loops for ever in Python does, and is not found. Time is counted in
looks of one's own: where the whole machine sleeps, nobody looks; and clocks may jump.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from distill_cli.base import last_words, ui
from distill_cli.base.errors import WorkerError, exit_code_of
from distill_cli.base.world import World

EVERY = 1.0  # seconds between two looks
LOOKS = 16  # after so many without a sign of life a process counts as lost
FIRST = 600  # where it has never been seen: it may still import
GRACE = 5.0  # seconds in which this process may end by itself, once one is lost
LOST = "lost"  # in the store: which process is


@contextmanager
def kept(store: Any, here: World) -> Iterator[None]:
    """Inside, this process counts, and ends when another one of `here` is lost, with the exit code 9."""
    beats = _Beats(store.clone(), here)  # a connection of its own: the main thread may wait in the other one
    try:
        yield
    finally:
        beats.over.set()


class _Beats:
    def __init__(self, store: Any, here: World) -> None:
        self.store, self.rank, self.next = store, here.rank, (here.rank + 1) % here.size
        self.over, self.turns, self.first = threading.Event(), 0, 0
        self.local = int(os.environ.get("LOCAL_RANK", here.rank))
        first = here.rank - self.local
        self.beside = range(first, first + int(os.environ.get("LOCAL_WORLD_SIZE", 0)))  # the processes of this machine
        store.set(f"pid {here.rank}", str(os.getpid()))
        store.add(f"beats {here.rank}", 1)
        threading.Thread(target=self._beat, daemon=True).start()
        # A launcher that is stopped, by Ctrl-Z, may keep the store of processes which are all beside it.
        self.agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        if len(self.beside) < here.size or not self.agent:
            threading.Thread(target=self._listen, daemon=True).start()

    def _beat(self) -> None:
        before, looks = 0, 0
        with suppress(RuntimeError):  # the store is gone
            self.first = int(self.store.get("pid 0"))
            while not self.over.wait(EVERY):
                self.turns += 1
                self.store.add(f"beats {self.rank}", 1)
                now = self.store.add(f"beats {self.next}", 0)
                before, looks = now, looks + 1 if now == before else 0
                if looks >= (LOOKS if now else FIRST):
                    self._tell(looks)
                if self.store.check([LOST]):
                    self._end(int(self.store.get(LOST)))
                    return

    def _listen(self) -> None:
        """Look whether the store still answers `_beat`."""
        before, looks = 0, 0
        while not self.over.wait(EVERY):
            before, looks = self.turns, looks + 1 if self.turns == before else 0
            if looks >= LOOKS:
                if self.first and 0 in self.beside and not self.agent:
                    self._kill(self.first)
                place = os.environ["MASTER_ADDR"]
                ui.mute(self.local > 0 and self.rank != 1)  # one on each machine speaks
                self._exit(WorkerError(f"the run stopped: its first process, on {place}, is lost", last_words.GO_ON))

    def _tell(self, looks: int) -> None:
        """Write down that the next one is lost, unless another reason is known already."""
        if not self.store.check([last_words.FAILED]):
            why = WorkerError(f"the run stopped: its process {self.next} is lost: {looks * EVERY:.0f} s without a sign of life",
                              last_words.GO_ON)  # fmt: skip
            self.store.set(last_words.FAILED, last_words.written(why))
        self.store.set(LOST, str(self.next))

    def _end(self, lost: int) -> None:
        """End the lost one, if it is on this machine: who waits for it then fails, and ends as after any death; or is ended."""
        if lost in self.beside and lost != self.rank:
            self._kill(int(self.store.get(f"pid {lost}")))
        if not self.over.wait(GRACE):
            error = last_words.found(self.store)
            last_words.leave(self.store, self.rank, error)
            self._exit(error)

    def _kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _exit(self, error: BaseException) -> None:
        ui.fail(str(error))
        os._exit(exit_code_of(error))
