"""How the processes of a run find each other, and how they end: together, with one error, which is told once.

The first process that fails writes down why before it lets go of the others. Whatever they wait for then breaks, and they end with
the same error. So an error is exchanged only where somebody is to go on after it: that is `world.decided`.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from distill_cli.base import beats, last_words, ui, world
from distill_cli.base.world import ONE, World

WAIT = timedelta(days=1)  # for each other: one may wait for a teacher that another run prepares
PATIENCE = 10.0  # seconds in which those that end together do so; less than a lost one is given
GONE = "gone"  # in the store: how many have ended
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
    import torch.distributed as dist

    _runs[0] += 1
    store = dist.PrefixStore(f"run {_runs[0]}", next(dist.rendezvous("env://", timeout=WAIT))[0])
    with beats.kept(store, asked):
        yield from _inside(World(asked.rank, asked.size, store))


def _inside(here: World) -> Iterator[None]:
    world.enter(here)
    ui.mute(here.rank > 0)
    patience = PATIENCE
    try:
        world.connect(_backend(here), WAIT)
        yield
    except BaseException as error:
        last_words.leave(here.store, here.rank, error)
        _let_go(error)
        patience = 0.0 if getattr(error, "hint", None) == last_words.GO_ON else PATIENCE  # not all will come
        raise
    finally:
        world.enter(ONE)
        _part(here, patience)


def _let_go(error: BaseException | None) -> None:
    """Clear what failed of its variables: they would hold the connections that others wait at."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _backend(here: World) -> str:
    """NCCL for tensors on GPUs, where each process has one of its own."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return "cpu:gloo,cuda:nccl" if int(os.environ.get("LOCAL_WORLD_SIZE", here.size)) <= gpus else "gloo"


def _part(here: World, patience: float) -> None:
    """Let go of the others, and leave when they do: a launcher ends all as soon as one has failed."""
    import torch.distributed as dist

    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    with suppress(RuntimeError):
        if dist.is_initialized():
            dist.destroy_process_group()
    with suppress(RuntimeError):
        here.store.add(GONE, 1)
        until = time.monotonic() + patience
        while here.store.add(GONE, 0) < here.size and time.monotonic() < until:
            time.sleep(0.02)
        if not here.store.check([last_words.TOLD]):
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
