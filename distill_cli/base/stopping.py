"""Ctrl-C, SIGTERM and a closed terminal: they stop the work at once, or where the work so far is complete."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from distill_cli.base.errors import Terminated

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_asked: list[type[KeyboardInterrupt]] = []
_deferring = [False]


def listen() -> None:
    """Answer both signals from now on: the first one inside `deferred` waits for `check`, any other stops at once."""
    _asked.clear()
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup asks not to hear it
                signal.signal(number, _answer)


def _answer(number: int, frame: FrameType | None) -> None:
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


def check() -> None:
    """Stop here when asked to.

    Raises:
        KeyboardInterrupt, Terminated: a signal came.
    """
    if _asked:
        raise _asked[0]


def orderly() -> bool:
    """Whether exactly one signal came: then the work stopped where it was complete. A second one stops it anywhere."""
    return len(_asked) == 1


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore signals inside: for the last messages of a process that ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, answer in before.items():
            signal.signal(number, answer)
