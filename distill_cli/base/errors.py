"""Every failure a user can meet, each with its exit code; anything else that escapes is a bug of ours (1).

DistillError
  ConfigError       2   the configuration or the command line is wrong
  DataError         3   a data set is missing, unreadable or inconsistent
  CheckpointError   4   a checkpoint, a model file or a run folder cannot be used
  NonFiniteError    5   the loss was not finite
  StorageError      6   no space, read-only, or another failure to write
  BusyError         7   the run folder is in use
  OutOfMemory       8   the device or the machine ran out of memory
  WorkerError       9   a data-loading worker, or a process of a run over several, died, hung, failed or could not be started
KeyboardInterrupt 130
  Terminated      143   SIGTERM, or a terminal that closed, asked us to stop
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

ROOM = "free some space, or choose another output_dir"  # the hint where a file cannot be written
LOWER = "a smaller batch_size, optimizer.accumulate=2"  # takes less memory


class DistillError(Exception):
    """A failure with one short message: what is wrong, where, and the choices; `hint` says what to try next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ConfigError(DistillError):
    exit_code = 2


class DataError(DistillError):
    exit_code = 3


class CheckpointError(DistillError):
    exit_code = 4


class NonFiniteError(DistillError):
    exit_code = 5


class StorageError(DistillError):
    exit_code = 6


class BusyError(DistillError):
    exit_code = 7


class OutOfMemory(DistillError):
    exit_code = 8


class WorkerError(DistillError):
    exit_code = 9


class Terminated(KeyboardInterrupt):
    """SIGTERM asks us to stop: like Ctrl-C it ends everything, a sweep too."""

    exit_code = 143


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `word`, ignoring case; None when nothing is close."""
    folded = {choice.casefold(): choice for choice in reversed(list(choices))}
    close = difflib.get_close_matches(word.casefold(), folded, n=1)
    return folded[close[0]] if close else None


def did_you_mean(word: str, choices: Iterable[str], before: str = "") -> str:
    """Return `did you mean X? `, X with what is typed `before` a choice; "" when no choice is close."""
    close = nearest(word, choices)
    return f"did you mean {before}{close}? " if close else ""


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a kind of failure."""
    if isinstance(error, DistillError | Terminated):
        return error.exit_code
    return 130 if isinstance(error, KeyboardInterrupt) else 1


@contextmanager
def translated(lower: str = LOWER) -> Iterator[None]:
    """Turn what the libraries below raise for full disks, exhausted memory and dead workers into our errors.

    Args:
        lower: what takes less memory.
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # a signal in the import of an extension module
            raise error.__cause__ from None
        raise
    except MemoryError as error:
        raise OutOfMemory("out of memory", f"try {lower}") from error
    except OSError as error:
        path = f": {error.filename}" if error.filename else ""
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):  # what was named cannot be, whatever room there is
            raise ConfigError(f"{error.strerror}{path:.200}", "give a shorter name, or another path") from error
        raise StorageError(f"{error.strerror or error}{path}", ROOM) from error
    except (RuntimeError, ValueError) as error:
        text, first = str(error), str(error).partition("\n")[0]
        if "embedded null" in text:  # of a text that reached the file system from a file
            raise ConfigError("a path holds the character NUL, which no file name can have") from error
        if "more than 1 value per channel" in text:
            what = "batch_size: batch normalisation needs at least two samples in every part of a batch"
            raise ConfigError(what) from error
        if "out of memory" in text or "can't allocate memory" in text:
            raise OutOfMemory(f"out of memory: {first}", f"try {lower}") from error
        raise
