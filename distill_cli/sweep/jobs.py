"""One run of a sweep: started in a process of its own, which ends when the sweep does, and judged by its folder."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from distill_cli.base import files, launching, locks, metrics, stopping, world
from distill_cli.base.errors import BusyError, CheckpointError, StorageError
from distill_cli.config import overrides
from distill_cli.config.load import load
from distill_cli.config.schema import Train
from distill_cli.config.values import short
from distill_cli.runs.identity import LOCK, STATUS, SUMMARY

CONSOLE = "console.log"  # what a run printed
PATIENCE = 15.0  # seconds for a run to save and stop in, once asked

# The server is started once, has imported torch before its first run, and forks each run from there.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["distill_cli.pipeline.distillation"])


@dataclass(frozen=True)
class Start:
    """How the runs of a sweep are started; it can be pickled, and is what any launcher of Hydra's calls for each run.

    task: what runs settings. optimize: what a run is judged by, see `score_of`.
    """

    task: Callable[[Train], Any]
    config_name: str
    config_dir: str | None
    directory: str
    optimize: str | None

    def process(self, settings: Sequence[str], folder: Path, environment: Mapping[str, str]) -> BaseProcess:
        """Start the run with these settings in `folder`, its environment changed by `environment`; returns its process."""
        variables = {**os.environ, **environment}
        process = _processes.Process(target=_work, args=(self, list(settings), folder, variables))
        process.start()
        return process

    def __call__(self, cfg: DictConfig) -> float | None:
        """Do the run that a launcher has composed; returns its score if it has finished."""
        self.done()
        return score(Path(HydraConfig.get().runtime.output_dir), self.optimize)

    def done(self) -> int:
        """Start the run that a launcher has composed, and wait for its end; returns its process's exit code."""
        _meet_others()
        hydra = HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        process = self.process(hydra.overrides.task, folder, {})
        try:
            process.join()
        except BaseException:  # submitit exits where it has the job queued again
            end([process])
            raise
        settle(folder, process)
        return process.exitcode or 0


def _meet_others() -> None:
    """Where submitit has started several tasks for one run, tell this one's process which of them it is, as torchrun would."""
    if "SUBMITIT_EXECUTOR" in os.environ:
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        if JobEnvironment().num_tasks > 1:
            # Each sees all GPUs of its machine, as under torchrun, and takes that of its number.
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
            os.environ.update(launching.QUIET)


def _work(start: Start, settings: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    """The run's own process."""
    os.setsid()  # Ctrl-C is the sweep's to hear
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(start.directory)
    first = world.called().rank == 0
    _print_into(folder, anew=first)
    threading.Thread(target=_end_with_sweep, daemon=True).start()

    def work() -> int:
        if first:
            _await_lock(folder)
        words = [*settings, overrides.quoted(f"run_dir={folder}")]
        start.task(load("train", words, start.config_name, start.config_dir))
        return 0

    sys.exit(stopping.guarded(work, relayed=True))


def _print_into(folder: Path, anew: bool) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | (os.O_TRUNC if anew else 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        console = os.open(folder / CONSOLE, flags, 0o644)
    except OSError:  # something else lies in its place, or there is no room: where to say so is what is missing
        sys.exit(StorageError.exit_code)
    for stream in (1, 2):
        os.dup2(console, stream)


def _end_with_sweep() -> None:
    """Stop as if asked to when the process that started this one is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)


def _await_lock(folder: Path) -> None:
    """Let a run of an earlier sweep, just killed, finish its last step here."""
    for _ in range(int(PATIENCE)):
        with contextlib.suppress(BusyError):
            locks.claim(folder / LOCK).release()
            return
        time.sleep(1)


def end(processes: Sequence[BaseProcess]) -> None:
    """Ask runs to stop where they are whole, and wait for them; asked again meanwhile, kill them."""
    for process in processes:
        process.terminate()
    try:
        deadline = time.monotonic() + PATIENCE
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    except KeyboardInterrupt:
        pass
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()


def settle(folder: Path, process: BaseProcess) -> None:
    """Where a run's process has died without a word, leave one in its status.json."""
    code = process.exitcode or 0
    if code >= 0:
        return
    name = signal.Signals(-code).name
    why = f"killed by {name}" + (" (kill -9, or the machine ran out of memory)" if name == "SIGKILL" else "")
    status: dict[str, Any] = {}
    with contextlib.suppress(CheckpointError):
        status = files.read_json(folder / STATUS)
    if status.get("status", "running") == "running":
        ended = {"status": "failed", "reason": why, "exit_code": 128 - code, "updated": time.time()}
        files.write_json(folder / STATUS, {**status, **ended})


@dataclass(frozen=True)
class State:
    """How a run stands: waiting, running, finished, stopped or failed; why so, and the seconds it took."""

    name: str
    reason: str = ""
    seconds: float = 0.0

    @property
    def why(self) -> str:
        """The reason in one short line."""
        return short(" ".join(self.reason.split()))


def state(folder: Path, since: float, over: bool = False) -> State:
    """How the run in `folder` stands, by what lies there.

    Args:
        since: when the sweep was started: what was not begun after that is waiting, unless it is finished.
        over: whether the sweep is, so that nothing can be running.
    """
    status: dict[str, Any] = {"status": "running", "reason": None, "started": 0.0, "updated": 0.0}
    with contextlib.suppress(CheckpointError, OSError):
        status |= files.read_json(folder / STATUS)
    if status["status"] == "finished" and (folder / SUMMARY).exists():
        return State("finished", seconds=status["updated"] - status["started"])
    begun = False
    with contextlib.suppress(OSError):
        begun = (folder / CONSOLE).stat().st_mtime > since - 0.1  # the clock of files ticks more coarsely
    if not begun:
        return State("waiting")
    if status["status"] == "running" or status["updated"] < since:  # not yet, or never, begun
        return State("failed", last_words(folder) or "it ended without a word") if over else State("running")
    return State("stopped" if status["status"] == "interrupted" else "failed", str(status["reason"]))


def last_words(folder: Path) -> str:
    """The message a run ended with before it had a status, or nothing."""
    with contextlib.suppress(OSError):
        text = (folder / CONSOLE).read_text(encoding="utf-8", errors="replace")
        return text.rpartition("error: ")[2].strip() if "error: " in text else ""
    return ""


def summary_of(folder: Path) -> Mapping[str, Any] | None:
    """What a run says that it reached. None: it has not finished, or that is damaged."""
    if state(folder, math.inf).name != "finished":
        return None
    with contextlib.suppress(CheckpointError, OSError):
        return files.read_json(folder / SUMMARY)
    return None


def reached(summary: Mapping[str, Any], optimize: str | None) -> tuple[str, float | None]:
    """What a run is judged by, as in val.accuracy, and its student's number in it, the best epoch's. None: it has none, as where
    validation has no labels.

    Args:
        optimize: the first of the two, or None: what the run's task is judged by.
    """
    name = (optimize or f"val.{metrics.judged(summary).name}").removeprefix("val.")
    return f"val.{name}", summary["val"]["student"].get(name)


def score(folder: Path, optimize: str | None) -> float | None:
    """`score_of` the run in a folder; None: it has not finished, or what it says is damaged."""
    summary = summary_of(folder)
    return None if summary is None else score_of(summary, optimize)


def score_of(summary: Mapping[str, Any], optimize: str | None) -> float | None:
    """What a search is told of a run: see `reached`, and `metrics.direction` for where to it moves that."""
    _, value = reached(summary, optimize)
    return value if value is None or optimize else metrics.judged(summary).gain(value)
