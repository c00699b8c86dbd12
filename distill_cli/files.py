"""Files that are whole or absent: one atomic writer, one exclusive lock, one way to build a shared folder once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill_cli.errors import BusyError


def write(path: Path, content: bytes | str) -> None:
    """Write `content` so that `path` holds all of it or what it held before: beside, flushed, then renamed."""
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file it was
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, whole or not at all."""
    write(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock on the file `path`, waiting for whoever has it (`waiting` is called once before); freed on any death."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def claim(path: Path) -> int:
    """Lock the file `path` for this process's life, and leave our process id in it; returns the open handle.

    Raises:
        BusyError: another process holds it; the message names that process.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(handle, 32).decode(errors="replace").strip()
        os.close(handle)
        raise BusyError(
            f"{path.parent} is in use by process {holder or 'unknown'}", "wait, or choose another run_dir"
        ) from error
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
    return handle


def lock_of(folder: Path) -> Path:
    """The lock that whoever makes `folder` holds: see `once`."""
    return folder.parent / f".{folder.name}.lock"


def once(
    folder: Path,
    make: Callable[[Path], None],
    waiting: Callable[[], None] | None = None,
    usable: Callable[[Path], bool] = Path.is_dir,
) -> bool:
    """Have `folder` made by `make` exactly once, whoever asks; returns whether it was made now.

    `make` fills a folder beside it, which takes the final name only when `make` returned: a folder under its final name
    is finished. Others who ask meanwhile wait. One that is there but not `usable` is replaced.
    """
    if usable(folder):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(lock_of(folder), waiting):
        if usable(folder):
            return False
        aside = folder.parent / f".{folder.name}.making"
        shutil.rmtree(aside, ignore_errors=True)  # left by one that was killed: we hold the lock
        aside.mkdir()
        try:
            make(aside)
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_folder(folder.parent)
    return True
