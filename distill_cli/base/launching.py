"""Starts the processes of a run on this machine, through torchrun's agent, and ends with the exit code of what ended them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from distill_cli.base import joining, stopping, ui, world
from distill_cli.base.errors import DistillError, Terminated, WorkerError

OURS = range(2, 10)  # exit codes that all processes of a run end with together
STOPS: dict[int, type[BaseException]] = {130: KeyboardInterrupt, 143: Terminated}
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "30"}  # what a lost connection means, we say


class Ended(DistillError):
    """All processes have ended, and one of them has said why."""

    def __init__(self, code: int) -> None:
        super().__init__("")
        self.exit_code = code


def spread(devices: int | str, work: Callable[[], Any]) -> Any:
    """Do `work` in as many processes as `devices` says, unless a launcher has started several, of which this is one.

    Args:
        devices: a number, or auto: one for each GPU. work: can be pickled, and so can its value, of which that of the first
            process is returned.

    Raises:
        DistillError: as one of the processes ended.
    """
    if world.called().size > 1:
        with joining.joined():
            if devices not in (1, "auto", world.size()):
                ui.warn(f"devices={devices} has no effect: this run was started as {world.size()} processes")
            return work()
    if devices == 1:
        return work()
    import torch

    number = max(1, torch.cuda.device_count()) if devices == "auto" else int(devices)
    return work() if number == 1 else _launch(number, work)


def _launch(number: int, work: Callable[[], Any]) -> Any:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    threads = os.environ.get("DISTILL_THREADS") or str(max(1, (os.cpu_count() or 1) // number))
    os.environ.update({**QUIET, "DISTILL_THREADS": threads})
    config = LaunchConfig(
        1, 1, number, rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id=str(os.getpid()), max_restarts=0
    )
    try:
        return elastic_launch(config, _rank)(work, os.getpid())[0]
    except SignalException as stopped:
        ui.mute(True)  # they have said so
        raise STOPS[130 if stopped.sigval == signal.SIGINT else 143] from None
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        code = failure.exitcode
        if code in STOPS:
            ui.mute(True)
            raise STOPS[code] from None
        if code < 0:
            ui.fail(f"process {rank} of {number} was ended by {signal.Signals(-code).name}")
        raise Ended(code if code in OURS else WorkerError.exit_code) from None


def _rank(work: Callable[[], Any], launcher: int) -> Any:
    """One of the processes; returns what it did, or ends with the exit code of what it could not do."""
    os.setsid()  # Ctrl-C is the launcher's to hear
    threading.Thread(target=_end_with, args=[launcher], daemon=True).start()

    values = []

    def joined() -> int:
        with joining.joined():
            values.append(work())
        return 0

    if code := stopping.guarded(joined):
        sys.exit(code)
    return values[0]


def _end_with(launcher: int) -> None:
    """Stop as if asked to when the launcher is gone, however it went."""
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
