"""Locks between processes on one machine, and folders made once, whoever asks first; writing files is in files.py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distill_cli.base import files, world
from distill_cli.base.errors import BusyError

if TYPE_CHECKING:
    from filelock import FileLock


def _lock(path: Path) -> FileLock:
    """Return a lock on the file `path`, which stays there; its holder's death frees it, and no forked child holds it."""
    from filelock import FileLock  # here, because a bad value is told before anything is locked

    def sign(handle: int) -> None:
        pid = str(os.getpid()).encode()
        try:
            os.ftruncate(handle, 0)
            os.write(handle, pid)
        except OSError as error:
            raise files.explained(error, path, len(pid)) from error

    # Without fallback_to_soft=False a file system that has no locks would get a file that outlives its holder.
    return FileLock(path, thread_local=False, fallback_to_soft=False, on_acquired=sign)


def claim(path: Path) -> FileLock:
    """Lock the file `path` until the lock's `release()`, or until this process dies; return the lock.

    Raises:
        BusyError: another process holds it; the message names that process.
    """
    from filelock import Timeout

    lock = _lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        holder = path.read_text(errors="replace").strip() or "unknown"
        raise BusyError(f"{path.parent} is in use by process {holder}", "wait, or choose another folder") from error
    return lock


@contextmanager
def exclusive(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock on the file `path`; wait while another process holds it, and call `waiting` once before."""
    try:
        lock = claim(path)
    except BusyError:
        if waiting is not None:
            waiting()
        lock = _lock(path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def own(folder: Path, lock: str, named: bool, taken: Callable[[Path], bool]) -> tuple[Path, FileLock]:
    """Make `folder` and lock it; where it belongs to another run by chance, take a folder with a number.

    Args:
        lock: the name of the lock's file. named: whether the user chose the folder, so that it must be this one.
        taken: whether a folder belongs to another run already.

    Raises:
        BusyError: another process works in a folder that the user chose.
    """
    place, number = folder, 1
    while True:
        place.mkdir(parents=True, exist_ok=True)
        try:
            held = claim(place / lock)
        except BusyError:
            if named:
                raise
        else:
            if named or not taken(place):
                return place, held
            held.release()
        number += 1
        place = folder.with_name(f"{folder.name}-{number}")


def lock_of(folder: Path) -> Path:
    """Return the file of the lock that `once` holds while it makes `folder`."""
    return folder.parent / f".{folder.name}.lock"


def once(
    folder: Path,
    make: Callable[[Path], None],
    waiting: Callable[[], None] | None = None,
    usable: Callable[[Path], bool] = Path.is_dir,
    resumable: Callable[[Path], bool] = lambda aside: False,
) -> bool:
    """Have `folder` made by `make` once, whoever asks; return whether this call made it.

    `make` fills a folder beside it, which takes the final name when `make` has returned: a folder under its final name is
    finished. One that is there but not `usable` is replaced. Whoever asks meanwhile calls `waiting` and waits. Where what an
    earlier call, stopped or killed, left in its folder is `resumable`, `make` goes on with that.
    """
    aside = folder.parent / f".{folder.name}.making"

    def clear() -> None:
        if not resumable(aside):
            shutil.rmtree(aside, ignore_errors=True)

    def begin() -> None:
        clear()  # a killed process left it: the lock is ours
        aside.mkdir(exist_ok=True)
        files.sweep(aside)

    def end() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        files.sync_folder(folder.parent)

    @contextmanager
    def making() -> Iterator[None]:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(lock_of(folder), waiting):
            try:
                yield
            except BaseException:
                clear()
                raise

    if world.decided(lambda: usable(folder)):
        return False
    with world.held(making()):
        if world.decided(lambda: usable(folder)):
            return False
        world.decided(begin)
        make(aside)
        world.decided(end)
    return True
