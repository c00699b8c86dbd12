"""How the processes of a run find each other, and how they end: together, with one error, which is told once.

The first process that fails writes down why before it lets go of the others. Whatever they wait for then breaks, and they end with
the same error. So an error is exchanged only where somebody is to go on after it: that is `world.decided`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from distill_cli.base import ui, world
from distill_cli.base.errors import DistillError
from distill_cli.base.world import DIED, FAILED, ONE, World

WAIT = timedelta(days=1)  # for each other: one may wait for a teacher that another run prepares
PATIENCE = 10.0  # seconds in which those that end together do so
GONE, TOLD = "gone", "told"  # in the store: how many have ended, and whether somebody has said why
_runs = [0]


@contextmanager
def joined() -> Iterator[None]:
    """Inside, this process computes together with the others that were started with it, if any.

    Raises:
        DistillError: another one failed, by its error.
    """
    asked = world.called()
    if asked.size == 1:
        yield
        return
    store, patience = _join(asked), PATIENCE
    world.enter(World(asked.rank, asked.size, store))
    ui.mute(asked.rank > 0)
    try:
        yield
    except BaseException as error:
        _leave_word(store, asked.rank, error)
        patience = 0.0 if error.args == DIED else PATIENCE  # not all will come
        raise
    finally:
        world.enter(ONE)
        _part(store, asked.size, patience)


def _join(asked: World) -> Any:
    import torch
    import torch.distributed as dist

    _runs[0] += 1
    alike = (
        torch.cuda.is_available() and int(os.environ.get("LOCAL_WORLD_SIZE", asked.size)) <= torch.cuda.device_count()
    )
    store, rank, number = next(dist.rendezvous("env://", timeout=WAIT))
    store = dist.PrefixStore(f"run {_runs[0]}", store)
    backend = "cpu:gloo,cuda:nccl" if alike else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=number, timeout=WAIT)
    return store


def _leave_word(store: Any, rank: int, error: BaseException) -> None:
    """Write down why this process fails, unless another one has; whoever is first says it."""
    if isinstance(error, DistillError):
        word = [type(error).__name__, error.message, error.hint]
    elif isinstance(error, KeyboardInterrupt):
        word = [type(error).__name__]
    else:
        word = ["WorkerError", f"the run stopped: its process {rank} failed: {type(error).__name__}: {error}"]
    first = True
    with suppress(RuntimeError):  # the store is gone with whoever kept it
        first = store.add(TOLD, 1) == 1
        if first:
            store.set(FAILED, json.dumps(word))
    ui.mute(not first)


def _part(store: Any, number: int, patience: float) -> None:
    """Let go of the others, and leave when they do: a launcher ends all as soon as one has failed."""
    import torch.distributed as dist

    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    with suppress(RuntimeError):
        dist.destroy_process_group()
    with suppress(RuntimeError):
        store.add(GONE, 1)
        until = time.monotonic() + patience
        while store.add(GONE, 0) < number and time.monotonic() < until:
            time.sleep(0.02)
        if not store.check([TOLD]):
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
