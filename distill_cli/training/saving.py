"""The loop under way: gone on with from a checkpoint, its checkpoints as they fall due, and an orderly stop when asked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any

from distill_cli.base import stopping, ui, world
from distill_cli.base.errors import CheckpointError
from distill_cli.runs.checkpoints import Checkpoints, Snapshot
from distill_cli.training.state import Row, State


def go_on(state: State, checkpoints: Checkpoints, restore: Callable[[Snapshot], None], label: str = "") -> None:
    """Go on from the newest checkpoint, if there is one.

    Args:
        restore: puts back what a snapshot holds, the state's part too. label: what goes on, for the message.

    Raises:
        CheckpointError: all checkpoints are damaged, or they are not of what is trained here.
    """
    if (snapshot := checkpoints.latest(state.model.spread)) is None:
        return
    try:
        restore(snapshot)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        message = f"{checkpoints.folder} does not fit what is trained here: {error!s:.300}"
        raise CheckpointError(message, f"delete {checkpoints.folder} to start again") from error
    ui.say(f"{label}going on after step {state.step}, {state.epoch} epoch(s) done")


def kept(
    state: State,
    steps: Generator[Row | None, None, None],
    checkpoints: Checkpoints,
    more: Callable[[], Mapping[str, Any]] = dict,
) -> Iterator[Row]:
    """Run `steps`, which move `state`; yields each epoch's row once a checkpoint holds it.

    Args:
        more: what a checkpoint holds beside the state, asked at every save.

    Raises:
        KeyboardInterrupt, Terminated: asked to stop; all that was done is saved, unless asked twice.
    """
    saved = -1

    def save(best: bool = False) -> None:
        nonlocal saved
        checkpoints.save({**more(), **state.snapshot()}, best)
        saved = state.step

    with stopping.deferred(), closing(steps):
        try:
            for row in steps:
                if row is not None:
                    save(row["best"])
                    yield row
                due, asked = world.most(row is None and checkpoints.due(state.step), stopping.asked())
                if due:
                    save()
                stopping.heed(asked)
        except KeyboardInterrupt:
            if stopping.orderly():
                if saved != state.step:
                    save()
                ui.say(f"stopped after step {state.step}; it is saved")
            raise
