"""Files that are whole or absent: one atomic writer, JSON that tells its own damage, locks, and folders made once."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from distill_cli.base.errors import BusyError, CheckpointError, StorageError
from distill_cli.base.names import size

CHECKSUM = "checksum"  # the key of a JSON file of ours that holds the SHA-256 of the rest of it
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Sink:
    """A file being written: it counts and hashes the bytes, and remembers why a write failed."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.size = file, hashlib.sha256(), 0
        self.failure: BaseException | None = None

    def write(self, data: bytes | memoryview) -> int:
        self.size += len(data)
        try:
            self.file.write(data)
            self.digest.update(data)
        except BaseException as error:
            self.failure = error
            raise
        return len(data)

    @property
    def written(self) -> dict[str, str | int]:
        """sha256 and bytes of what went in."""
        return {"sha256": self.digest.hexdigest(), "bytes": self.size}

    def flush(self) -> None:
        """torch.save asks for it; `write` does it."""


def write(
    path: Path, content: bytes | str | Callable[[Sink], object], keep: Path | None = None
) -> dict[str, str | int]:
    """Write `content` so that `path` holds all of it or what it held before: beside, flushed, then renamed.

    Args:
        content: or a function that writes it. keep: takes what `path` held before; killed in between, `keep` has it and
            `path` is not there.

    Returns:
        sha256 and bytes of what was written.

    Raises:
        StorageError: there is no room for it. OSError: it cannot be written for another reason.
    """
    aside, sink = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"), None
    try:
        with aside.open("xb") as file:
            sink = Sink(file)
            if callable(content):
                content(sink)
            else:
                sink.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        aside.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        failure = (sink.failure if sink else None) or error  # torch.save hides why it failed
        if isinstance(failure, OSError):
            raise explained(failure, path, sink.size if sink else 0) from error
        if failure is not error:
            raise failure from None
        raise
    return sink.written


def explained(error: OSError, path: Path, need: int) -> Exception:
    """The error with the file's name, which a full disk does not give; where room is short, with the bytes needed and free.

    Args:
        need: how many bytes were to be written, as far as that is known.
    """
    error.filename = error.filename or str(path)
    if error.errno not in NO_ROOM:
        return error
    free = shutil.disk_usage(path.parent).free
    return StorageError(
        f"no space ({error.strerror}): {path} needs at least {size(need)}, {size(free)} are free",
        "free some space, or choose another output_dir",
    )


def sweep(folder: Path) -> None:
    """Remove the half-written files of killed writers from `folder`; call it under the folder's lock."""
    for aside in folder.glob(".*.tmp"):
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as readable JSON, whole or not at all, with its own checksum in it."""
    sealed = {**value, CHECKSUM: _checksum(value)}
    write(path, json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The value that `write_json` wrote, without the checksum.

    Raises:
        CheckpointError: it is missing, damaged, or not what was written.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no {path.name} in {path.parent.absolute()}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: it holds no mapping")
    if value.pop(CHECKSUM, None) != _checksum(value):
        raise CheckpointError(f"{path} is not what was written: its checksum differs")
    return value


def _checksum(value: Mapping[str, Any]) -> str:
    """SHA-256 of the value as it is after being written and read, whatever the layout of its JSON."""
    text = json.dumps(json.loads(json.dumps(value)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


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
    handle = _opened(path)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        release(handle)


_handles: set[int] = set()


def _opened(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    _handles.add(handle)
    return handle


def release(handle: int) -> None:
    """Let go of what `claim` locked."""
    _handles.discard(handle)
    os.close(handle)


def _forget() -> None:
    """In a forked child, a data-loading worker: it must not hold our locks when we are dead."""
    for handle in list(_handles):
        release(handle)


os.register_at_fork(after_in_child=_forget)


def claim(path: Path) -> int:
    """Lock the file `path` until `release` or this process's death, and leave our process id in it; returns the handle.

    Raises:
        BusyError: another process holds it; the message names that process.
    """
    handle = _opened(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(handle, 32).decode(errors="replace").strip()
        release(handle)
        raise BusyError(
            f"{path.parent} is in use by process {holder or 'unknown'}", "wait, or choose another folder"
        ) from error
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
    return handle


def own(folder: Path, lock: str, named: bool, taken: Callable[[Path], bool]) -> tuple[Path, int]:
    """Make `folder` and hold the lock in it; of two that would take the same name by chance, the second takes another.

    Args:
        named: whether the user chose the folder, so that it must be this one. taken: whether a folder, one that is not
            named, is somebody's already.

    Returns:
        the folder, and the handle to `release`.

    Raises:
        BusyError: another process works in a named one.
    """
    place, number = folder, 1
    while True:
        place.mkdir(parents=True, exist_ok=True)
        try:
            handle = claim(place / lock)
        except BusyError:
            if named:
                raise
        else:
            if named or not taken(place):
                return place, handle
            release(handle)
        number += 1
        place = folder.with_name(f"{folder.name}-{number}")


def lock_of(folder: Path) -> Path:
    """The path of the lock that the maker of `folder` holds: see `once`."""
    return folder.parent / f".{folder.name}.lock"


def once(
    folder: Path,
    make: Callable[[Path], None],
    waiting: Callable[[], None] | None = None,
    usable: Callable[[Path], bool] = Path.is_dir,
    resumable: bool = False,
) -> bool:
    """Have `folder` made by `make` exactly once, whoever asks; returns whether it was made now.

    `make` fills a folder beside it, which takes the final name only when `make` returned: a folder under its final name
    is finished. Others who ask meanwhile wait. One that is there but not `usable` is replaced.

    Args:
        resumable: `make` goes on with what an earlier call, stopped or killed, left in its folder.
    """
    if usable(folder):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(lock_of(folder), waiting):
        if usable(folder):
            return False
        aside = folder.parent / f".{folder.name}.making"
        if not resumable:
            shutil.rmtree(aside, ignore_errors=True)  # left by one that was killed: we hold the lock
        aside.mkdir(exist_ok=True)
        sweep(aside)
        try:
            make(aside)
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        except BaseException:
            if not resumable:
                shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_folder(folder.parent)
    return True
