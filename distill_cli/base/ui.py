"""The terminal: tables and results on stdout, progress and messages on stderr; everything also goes to the run's log."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from distill_cli.base import files

EVERY = 0.5  # seconds between two looks at what goes on elsewhere
Item = TypeVar("Item")

log = logging.getLogger("distill")
log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(logging.NullHandler())

PLAIN_WIDTH = 120  # where stdout is not a terminal
_mute = [False]
tqdm.set_lock(threading.RLock())  # its own is shared with other processes, and left behind by one that is killed


def mute(muted: bool) -> None:
    """Print and show nothing from now on, or do again: of several processes that do the same, one speaks."""
    _mute[0] = muted


def show(content: RenderableType) -> None:
    """Print to stdout, and log the plain text."""
    plain = isinstance(content, str)
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    try:
        Console(highlight=False, soft_wrap=plain, width=width, quiet=_mute[0]).print(content, markup=not plain)
    except (BrokenPipeError, SystemExit):  # whoever read stdout is gone: rich asks to exit, the run goes on
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    text = io.StringIO()
    Console(file=text, highlight=False, width=PLAIN_WIDTH, soft_wrap=plain).print(content, markup=not plain)
    for line in text.getvalue().rstrip().splitlines():
        log.info("%s", line.rstrip())


def say(text: str) -> None:
    """Print a message on stderr, and log it."""
    with contextlib.suppress(OSError):  # a terminal that is gone is no reason to stop
        if not _mute[0]:
            tqdm.write(text, file=sys.stderr)
    log.info("%s", text)


def stderr() -> Console:
    """Return the console for what a person watches."""
    return Console(stderr=True, highlight=False, soft_wrap=True, quiet=_mute[0])


def warn(text: str) -> None:
    """Print a message that the user should not miss on stderr, and log it."""
    with contextlib.suppress(OSError):
        stderr().print(Text.assemble(("warning:", "yellow"), " ", text))
    log.warning("%s", text)


def fail(text: str) -> None:
    """Print the one message of a failure on stderr, what to try indented under its first line."""
    with contextlib.suppress(OSError):  # the terminal may be what is gone
        stderr().print(Text.assemble(("error:", "bold red"), " ", "\n  ".join(text.splitlines())))


def bar(total: int | None, label: str, done: int = 0, unit: str = " img") -> tqdm[Any]:
    """Return a progress bar on stderr, silent when that is not a terminal; `total` and `done` count units; None: unknown."""
    look: dict[str, Any] = {"unit": unit, "unit_scale": True, "leave": False, "dynamic_ncols": True}
    look["disable"] = _mute[0] or None
    return tqdm(total=total, initial=done, desc=label, **look)


def progress(items: Iterable[Item], label: str) -> Iterable[Item]:
    """Return the items under a progress bar, silent when stderr is not a terminal."""
    return tqdm(items, desc=label, leave=False, disable=_mute[0] or None)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = True) -> Table:
    """Return a plain table; the first column is text, the others are numbers unless `numbers` is false."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        made.add_column(name, justify="right" if number and numbers else "left", no_wrap=not number, overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


class LogFile(logging.FileHandler):
    """A log whose failure to write is a failure of the run, not a traceback on stderr."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        _, error, _ = sys.exc_info()
        if isinstance(error, OSError):
            raise files.explained(error, Path(self.baseFilename), len(record.getMessage())) from error
        super().handleError(record)


def log_to(path: Path) -> logging.Handler:
    """Write every message and traceback from now on to the file as well; close with `stop_log`."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644))  # a link could lead anywhere
    handler = LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    return handler


def stop_log(handler: logging.Handler) -> None:
    log.removeHandler(handler)
    with contextlib.suppress(OSError):  # what it could not write was told already
        handler.close()


@contextmanager
def looking(look: Callable[[], object]) -> Iterator[None]:
    """Inside, call `look` every `EVERY` seconds, in a thread, and once more at the end."""
    over = threading.Event()

    def again() -> None:
        while not over.wait(EVERY):
            look()

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()
