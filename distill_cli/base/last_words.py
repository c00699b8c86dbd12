"""Why a run over several processes ends: the first that fails writes it down for the others, and it is told once."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from distill_cli.base import errors, ui
from distill_cli.base.errors import DistillError, WorkerError

FAILED, TOLD = "failed", "told"  # in the store: why a process has, and whether somebody has said it
# The hint where one is gone without a word.
GO_ON = "the same line, or distill resume RUN, goes on from the last checkpoint"


def written(error: BaseException) -> str:
    """An error as `found` reads it."""
    return json.dumps([type(error).__name__, *error.args])


def leave(store: Any, rank: int, error: BaseException) -> None:
    """Write down why this process fails, unless another one has; whoever is first says it."""
    if not isinstance(error, DistillError | KeyboardInterrupt):
        error = WorkerError(f"the run stopped: its process {rank} failed: {type(error).__name__}: {error}")
    first = True
    with suppress(RuntimeError):  # the store is gone with whoever kept it
        first = store.add(TOLD, 1) == 1
        if first:
            store.set(FAILED, written(error))
    ui.mute(not first)


def found(store: Any) -> BaseException:
    """Why another process is gone."""
    with suppress(RuntimeError):
        if store.check([FAILED]):
            name, *told = json.loads(store.get(FAILED))
            return getattr(errors, name, KeyboardInterrupt)(*told)
    return WorkerError("the run stopped: a process of it died", GO_ON)
