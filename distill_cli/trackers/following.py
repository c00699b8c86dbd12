"""The run's side of its trackers: starts a process for each, which follows the run's folder, and ends it with the run.

Nothing is handed over in between. Only the run's end waits for trackers, and no failure of one reaches the run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from distill_cli.base import ui
from distill_cli.trackers import PATIENCE, check

PATIENCE_STOPPED = 5.0  # seconds when the run was asked to stop: the user waits for it
PATIENCE_LATER = 600.0  # seconds to send what was not sent while the run ran
TOLD = (3, -signal.SIGALRM)  # exit codes of a tracker's process that has failed and said why

# -P: what lies in the current directory must not stand in for an installed package; the run's own path is given.
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from distill_cli.trackers.follower import main; main()"
)


def stamp(folder: Path) -> list[int] | None:
    """What differs each time that the run's metrics.jsonl is written; None while there is none."""
    with contextlib.suppress(FileNotFoundError):
        file = (folder / "metrics.jsonl").stat()
        return [file.st_ino, file.st_mtime_ns]
    return None


class Following:
    """Starts trackers that follow the run in `folder`. As a context it tells them on the way out how the run ended, waits
    for them, and leaves no process.

    Attributes:
        status: how the run ended, as they are told: finished, interrupted or failed.
        failed: the names of those that have failed; the user was told why.

    Args:
        nodes: the trackers' configuration by name, as `trackers.check` passes it.
        later: the run is another process's, or over: all that lies there is sent, and that may take its time.
    """

    def __init__(self, nodes: Mapping[str, Mapping[str, Any]], folder: Path, later: bool = False) -> None:
        self.status, self.failed = "finished", set[str]()
        self._patience = PATIENCE_LATER if later else PATIENCE  # seconds that they have once the run is over
        self._log, self._processes = folder / "train.log", dict[str, subprocess.Popen[bytes]]()
        # A run that goes on writes metrics.jsonl again: until then there lies what an earlier try has left.
        job = {"folder": str(folder), "patience": self._patience, "stale": None if later else stamp(folder)}
        for name, node in nodes.items():
            try:
                _require(getattr(check({name: node})[name], "package", ""))
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-P", "-c", START, json.dumps(sys.path)],
                    stdin=subprocess.PIPE,  # by whose end the process hears that this one is gone
                    bufsize=0,
                    start_new_session=True,  # Ctrl-C and a closing terminal are for the run to hear
                )
                _tell(self._processes[name], json.dumps({**job, "name": name, "node": dict(node)}))
            except Exception as error:  # whatever it is, it costs this tracker only
                self._warn(name, str(error) or type(error).__name__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            self.status, self._patience = "interrupted", PATIENCE_STOPPED
        elif error is not None:
            self.status = "failed"
        deadline = time.monotonic() + self._patience
        try:
            for process in self._processes.values():
                _tell(process, self.status)
            for name, process in self._processes.items():
                try:
                    code = process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self._warn(name, f"not done {self._patience:.0f} s after the run, it may lack the run's end")
                    continue
                if code in TOLD:
                    self.failed.add(name)
                elif code:
                    self._warn(name, f"its process died; what it printed is in {self._log}")
        finally:
            for process in self._processes.values():
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

    def _warn(self, name: str, reason: str) -> None:
        self.failed.add(name)
        ui.warn(f"logger={name}: {reason}")


def _require(package: str) -> None:
    spec = importlib.util.find_spec(package) if package else None
    if package and (spec is None or spec.origin is None):  # a mere folder of that name has no origin
        raise ImportError(f"{package} is not installed; pip install 'distill-cli[log]'")


def _tell(process: subprocess.Popen[bytes], line: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it is gone: its exit code tells why
        process.stdin.write(line.encode() + b"\n")
