"""The process that a tracker works in: it reads the run's folder, tells the tracker what is new, and ends with the run."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from distill_cli.base import files, locks, stopping, ui
from distill_cli.base.errors import CheckpointError
from distill_cli.base.names import fingerprint, slug
from distill_cli.config import building
from distill_cli.runs import identity
from distill_cli.trackers import PATIENCE, Logger, about
from distill_cli.trackers.following import TOLD, stamp

GLANCE = 0.25  # seconds between two looks at metrics.jsonl
CLOSING = 3  # seconds that a tracker which has failed has to put things in order


def main() -> NoReturn:
    """Work until the run is over, or its process is gone."""
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the run says when to end
    orders, voice = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(2), "w", 1, "utf-8")
    job = json.loads(orders.readline())
    name, folder = job["name"], Path(job["folder"])
    ui.log_to(folder / "train.log")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # no tracker may ask a question,
    for stream in (1, 2):  # and what it prints is for the log
        os.dup2(os.open(folder / "train.log", os.O_WRONLY | os.O_APPEND), stream)
    ends: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders, ends), daemon=True).start()

    def say(text: str, speak: Callable[[str], None] = ui.say) -> None:
        with suppress(OSError), redirect_stderr(voice):  # a terminal that is gone is no reason to stop
            voice.write("\r\x1b[K" * voice.isatty())  # over the run's progress bar, which is drawn again
            speak(text)

    def fail(error: BaseException) -> None:
        """Say in a line why the tracker cannot go on; all of it goes to the log."""
        traceback.print_exception(error)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        say(f"logger={name}: {lines[0][:300]}", ui.warn)

    code, turn = TOLD[0], folder / f".logger-{slug(name)}.lock"
    try:
        with locks.exclusive(turn, lambda: say(f"{name}: waiting for another process that sends this run there")):
            work = Work(job)
            say(f"{name}: {work.place}" + f"; it has this run up to step {work.step}" * bool(work.step))
            try:
                status = work.follow(ends)
            except (Exception, SystemExit) as error:
                fail(error)  # at once: closing may take a while
                signal.alarm(CLOSING)
                with suppress(Exception, SystemExit):
                    work.tracker.close("failed")
            else:
                work.tracker.close(status)
                code = 0
    except (Exception, SystemExit) as error:
        fail(error)
    sys.exit(code)


def _listen(orders: BinaryIO, ends: queue.SimpleQueue[str]) -> None:
    """Pass on how the run ended. When the run's process is gone, end this one soon after, whatever the tracker does."""
    ends.put(orders.readline().decode().strip() or "failed")
    orders.read()
    time.sleep(PATIENCE)
    os.killpg(0, signal.SIGKILL)


class Work:
    """A tracker, started to follow a run. The run's folder keeps which step each place that it sends to has.

    Args:
        job: as `Following` gives it.
    """

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.folder, self.seen = Path(job["folder"]), job["stale"]
        run = about(self.folder, job["patience"])
        self.tracker = building.build(job["node"], Logger, f"logger.{job['name']}")  # type: ignore[type-abstract]
        self.record, self.told = self.folder / f".logger-{slug(job['name'])}.json", dict[str, Any]()
        with suppress(CheckpointError):  # there is none, or none that can be used
            self.told = files.read_json(self.record)
        self.target = fingerprint([run.id, self.tracker.target])
        self.step, self.finished = self.told.get(self.target, (0, False))
        self.place = self.tracker.start(run, self.step)

    def follow(self, ends: queue.SimpleQueue[str]) -> str:
        """Tell the tracker of every new row until the run is over, and of its final numbers; returns how it ended."""
        status = ""
        while not status:
            with suppress(queue.Empty):
                status = ends.get(timeout=GLANCE)
            if (now := stamp(self.folder)) != self.seen:
                self.seen = now
                for row in map(json.loads, (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()):
                    if row["step"] > self.step:
                        self.tracker.epoch(row)
                        self._remember(row["step"], False)
        if status == "finished" and not self.finished:
            report = self.folder / "report.html"
            self.tracker.finish(files.read_json(self.folder / identity.SUMMARY), report if report.is_file() else None)
            self._remember(self.step, True)
        return status

    def _remember(self, step: int, finished: bool) -> None:
        self.step, self.finished = step, finished
        files.write_json(self.record, {**self.told, self.target: [step, finished]})
