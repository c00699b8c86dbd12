"""How a process ends: a failure as one message and an exit code; a signal at once, or where the work is complete."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from distill_cli.base import ui, world
from distill_cli.base.errors import DistillError, Terminated, exit_code_of, translated

KINDS = (KeyboardInterrupt, Terminated)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ONCE = 3.0  # seconds in which signals that a launcher sends count as one

_asked: list[type[KeyboardInterrupt]] = []
_deferring, _relayed, _since = [False], [False], [0.0]


def guarded(work: Callable[[], int], relayed: bool = False) -> int:
    """Do the work, listening to signals; return its exit code, or the one of what stopped it.

    Args:
        relayed: signals come from a launcher, which may pass on what this process has heard itself.
    """
    _relayed[0] = relayed or world.called().size > 1
    _listen()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show α shows a question mark
    try:
        with translated():
            return work()
    except DistillError as error:
        if error.message:  # else it is told already
            ui.fail(str(error))
        return error.exit_code
    except KeyboardInterrupt as stopped:
        ui.fail("terminated" if isinstance(stopped, Terminated) else "interrupted")
        return exit_code_of(stopped)
    except Exception:
        if os.environ.get("DISTILL_DEBUG"):
            raise
        ui.fail("this is a bug in distill; the traceback:")
        traceback.print_exc()
        return 1


def _listen() -> None:
    """Answer signals from now on: the first one inside `deferred` waits for `check`, any other stops at once."""
    _asked.clear()
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup asks not to hear it
                signal.signal(number, _answer)


def _answer(number: int, frame: FrameType | None) -> None:
    if _asked and _relayed[0] and time.monotonic() - _since[0] < ONCE:
        return
    _since[0] = time.monotonic()
    _asked.append(KeyboardInterrupt if number == signal.SIGINT else Terminated)
    if not _deferring[0] or len(_asked) > 1:
        raise _asked[-1]
    with suppress(OSError):  # the terminal may be what is gone
        os.write(2, b"\nstopping after this step; once more: at once\n")


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, the first signal is only noted: `check` raises it where nothing is half done."""
    before, _deferring[0] = _deferring[0], True
    try:
        yield
    finally:
        _deferring[0] = before


def asked() -> int:
    """By which signal this process was asked to stop, as a number that `heed` takes; 0: by none."""
    return KINDS.index(_asked[0]) + 1 if _asked else 0


def heed(number: float) -> None:
    """Stop here when this process, or another one of its run, was asked to.

    Raises:
        KeyboardInterrupt, Terminated: a signal came.
    """
    if number:
        if not _asked:
            _asked.append(KINDS[int(number) - 1])
        raise KINDS[int(number) - 1]


def check() -> None:
    """`heed` what any process of the run was asked."""
    heed(*world.most(asked()))


def orderly() -> bool:
    """Return whether exactly one signal came: then the work stopped where it was complete. A second one stops it anywhere."""
    return len(_asked) == 1


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore signals inside: for the last messages of a process that ends."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS if main}
    try:
        yield
    finally:
        for number, answer in before.items():
            signal.signal(number, answer)
