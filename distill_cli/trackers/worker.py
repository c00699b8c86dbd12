"""The process that a logger works in: it takes the run's orders one after another, and ends with the run."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn, TextIO

from distill_cli.base import files
from distill_cli.base.errors import CheckpointError
from distill_cli.base.names import slug
from distill_cli.config import building
from distill_cli.trackers import PATIENCE, About, Logger

LONGEST = 300  # characters of a reason

Orders = queue.SimpleQueue[dict[str, Any]]


def main() -> NoReturn:
    """Work until told that nothing more comes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # when to end is the run's to say
    orders: Orders = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(os.dup(0), orders), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # no tracker may ask a question,
    os.dup2(2, 1)  # and what it prints is for the log
    try:
        _work(orders, answers)
    except Exception as error:
        _tell(answers, error)
        sys.exit(1)
    sys.exit(0)


def _listen(source: int, orders: Orders) -> None:
    """Put the run's orders into the queue; when the run is gone, be gone soon after, whatever the logger is at."""
    text = b""
    while said := os.read(source, 65536):
        *lines, text = (text + said).split(b"\n")
        for line in lines:
            orders.put(json.loads(line))
    orders.put({"close": "failed"})
    time.sleep(PATIENCE)
    os.killpg(0, signal.SIGKILL)


def _work(orders: Orders, answers: TextIO) -> None:
    job = orders.get()["start"]
    run = About(**{**job["run"], "folder": Path(job["run"]["folder"])})
    logger = building.build(job["node"], Logger, f"logger.{job['name']}")
    record = Record(run, job["name"])
    answers.write(json.dumps({"place": logger.start(run, record.step)}) + "\n")
    answers.flush()
    status = "failed"
    try:
        while "close" not in (order := orders.get()):
            if "row" in order and order["row"]["step"] > record.step:
                logger.epoch(order["row"])
                record.keep(step=order["row"]["step"])
            if "summary" in order and not record.finished:
                logger.finish(order["summary"], Path(order["report"]) if order["report"] else None)
                record.keep(finished=True)
        status = order["close"]
    except Exception as error:
        _tell(answers, error)  # at once: closing may take a while
    logger.close(status)


def _tell(answers: TextIO, error: Exception) -> None:
    """Say why the logger cannot go on: one line to the run, all of it to the log."""
    traceback.print_exception(error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    answers.write(json.dumps({"failed": lines[0][:LONGEST]}) + "\n")
    answers.flush()


class Record:
    """What a logger was told of a run, kept in the run's folder for the next try."""

    def __init__(self, run: About, name: str) -> None:
        self.path, self.run = run.folder / f".logger-{slug(name)}.json", run.id
        self.step, self.finished = 0, False
        try:
            kept = files.read_json(self.path)
        except CheckpointError:  # there is none, or none that can be used
            return
        if kept.get("run") == run.id:
            self.step, self.finished = int(kept["step"]), bool(kept["finished"])

    def keep(self, **changes: Any) -> None:
        vars(self).update(changes)
        files.write_json(self.path, {"run": self.run, "step": self.step, "finished": self.finished})
