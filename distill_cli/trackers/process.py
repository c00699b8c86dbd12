"""The run's side of a logger's process: it is started, told, listened to and ended, and never waited for in between."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_cli.base import ui

# -P: what lies in the current directory must not stand in for an installed package; the run's own path is given.
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from distill_cli.trackers.worker import main; main()"
)


class LoggerError(Exception):
    """Why a logger cannot go on, in one line."""


class Process:
    """One logger's process; orders go to it and answers come back as lines of JSON.

    What it prints goes to the run's log. Every method raises LoggerError when the logger has failed, or OSError.

    Args:
        package: what the logger imports, or "".

    Attributes:
        failed: set by whoever has told the user; no more orders are sent then.
    """

    def __init__(self, name: str, node: Mapping[str, Any], run: Mapping[str, Any], package: str) -> None:
        self.name, self.package, self.failed = name, package, False
        self._job = {"name": name, "node": dict(node), "run": dict(run)}
        self._log = Path(run["folder"]) / "train.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._orders, self._answers = bytearray(), b""  # not sent yet; not understood yet
        self._over = self._silent = False  # nothing more is sent; nothing more is heard

    def start(self) -> None:
        """Start the process, unless what it needs is missing."""
        found = importlib.util.find_spec(self.package) if self.package else None
        if self.package and (found is None or found.origin is None):  # a mere folder of that name has no origin
            raise LoggerError(f"{self.package} is not installed; pip install 'distill-cli[log]'")
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-c", START, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C and a closing terminal are for the run to hear
            )
        finally:
            os.close(log)
        for pipe in self._pipes():
            os.set_blocking(pipe, False)
        self.send(start=self._job)

    def send(self, **order: Any) -> None:
        """Give an order, as far as the process takes it now; the rest goes with the next one."""
        if self._child is None or (self.failed and "close" not in order):
            return
        self._over = self._over or "close" in order
        self._orders += json.dumps(order).encode() + b"\n"
        self._push()
        self._hear()

    def wait(self, deadline: float, patience: float) -> None:
        """Wait until the process has ended.

        Args:
            deadline: on the monotonic clock. patience: how long that was from the start, for the message.
        """
        if self._child is None:
            return
        failure: LoggerError | None = None
        while not self._silent and (left := deadline - time.monotonic()) > 0:
            orders, answers = self._pipes()
            select.select([answers], [orders] if self._orders else [], [], left)
            try:
                self._push()
                self._hear()
            except LoggerError as error:  # it may still be putting things in order
                failure = failure or error
        try:
            code = self._child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise failure or LoggerError(
                f"not done {patience:.0f} s after the run, it may lack the run's end"
            ) from None
        if code or failure:
            raise failure or self._lost()

    def end(self) -> None:
        """Have no process any more."""
        if self._child is None:
            return
        if self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self._child = None

    def _pipes(self) -> tuple[int, int]:
        assert self._child is not None and self._child.stdin is not None and self._child.stdout is not None
        return self._child.stdin.fileno(), self._child.stdout.fileno()

    def _push(self) -> None:
        """Hand over what is waiting, as far as there is room for it."""
        orders, _ = self._pipes()
        try:
            while self._orders:
                del self._orders[: os.write(orders, self._orders)]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._orders.clear()  # it is gone: what it has said tells why

    def _hear(self) -> None:
        """Take in what the process has said."""
        _, answers = self._pipes()
        with contextlib.suppress(BlockingIOError):
            while not self._silent:
                said = os.read(answers, 65536)
                self._answers += said
                self._silent = not said
        *lines, self._answers = self._answers.split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if "failed" in answer:
                raise LoggerError(answer["failed"])
            ui.say(f"{self.name}: {answer['place']}")
        if self._silent and not self._over:
            raise self._lost()

    def _lost(self) -> LoggerError:
        return LoggerError(f"its process died; what it printed is in {self._log}")
