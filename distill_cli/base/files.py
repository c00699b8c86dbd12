"""Files that are whole or absent: one atomic writer, and JSON that tells its own damage; locks are in locks.py."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from distill_cli.base.errors import ROOM, CheckpointError, ConfigError, StorageError
from distill_cli.base.names import size

CHECKSUM = "checksum"  # the key of a JSON file of ours that holds the SHA-256 of the rest of it
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, of every common file system
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Sink:
    """A file to write to: it counts and hashes the bytes, and remembers why a write failed."""

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

    def take(self, data: bytes) -> None:
        """Count and hash bytes that the file has already."""
        self.size += len(data)
        self.digest.update(data)

    @property
    def written(self) -> dict[str, str | int]:
        """The sha256 and the bytes of what was written."""
        return {"sha256": self.digest.hexdigest(), "bytes": self.size}

    def flush(self) -> None:
        """torch.save asks for it; `write` does it."""


def write(
    path: Path, content: bytes | str | Callable[[Sink], object], keep: Path | None = None
) -> dict[str, str | int]:
    """Write `content`, or let it write, so that `path` holds all of it or what it held before; return its sha256 and bytes.

    Args:
        keep: takes what `path` held before; killed in between, `keep` has it and `path` is not there.

    Raises:
        StorageError: there is no room. OSError: it cannot be written for another reason.
    """
    if path.exists() and not path.is_file() and not path.is_dir():  # a device or a pipe is written to, not replaced
        with path.open("wb") as file:
            into = Sink(file)
            _fill(into, content)
            return into.written
    aside, sink = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"), None
    try:
        with aside.open("xb") as file:
            sink = Sink(file)
            _fill(sink, content)
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


def _fill(sink: Sink, content: bytes | str | Callable[[Sink], object]) -> None:
    if callable(content):
        content(sink)
    else:
        sink.write(content.encode() if isinstance(content, str) else content)


def place(text: str, key: str) -> Path:
    """The path that a user's text means, `~` expanded; what no file system can hold is refused before one is asked.

    Args:
        key: what was given so, for the message.

    Raises:
        ConfigError: no file can be called so, or `~name` names no user.
    """
    try:
        path = Path(text).expanduser()
        if max((len(os.fsencode(part)) for part in path.parts), default=0) > LONGEST_NAME:
            raise ConfigError(f"{key}: a name can have {LONGEST_NAME} bytes in a path, got {text[:60]}...")
        if len(os.fsencode(path.absolute())) > LONGEST_PATH:
            raise ConfigError(f"{key}: a path can have {LONGEST_PATH} bytes, got {text[:60]}...")
    except RuntimeError as error:
        user = text.partition("/")[0]
        raise ConfigError(f"{key}: {user} names no user with a folder", f"a file called so is ./{text}") from error
    except UnicodeEncodeError as error:
        raise ConfigError(f"{key}: {text!a} holds characters that no file name can have") from error
    if "\0" in text:
        raise ConfigError(f"{key}: {text!a} holds the character NUL, which no file name can have")
    return path


def exists(text: str) -> bool:
    """Whether something lies where a text would mean a path; no text is refused."""
    return os.path.exists(os.path.expanduser(text))  # noqa: PTH110, PTH111 - those of Path raise for odd ones


def explained(error: OSError, path: Path, need: int) -> Exception:
    """Return the error with the file's name, which a full disk does not give; where room is short, one with the bytes
    that are free and that the file needs, as far as they are known.
    """
    error.filename = error.filename or str(path)
    if error.errno not in NO_ROOM:
        return error
    free = shutil.disk_usage(path.parent).free
    return StorageError(
        f"no space ({error.strerror}): {path} needs at least {size(need)}, {size(free)} are free",
        ROOM,
    )


def sweep(folder: Path) -> None:
    """Remove the half-written files of killed writers from `folder`, whose lock the caller holds."""
    for aside in folder.glob(".*.tmp"):
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as readable JSON with its checksum, whole or not at all."""
    sealed = {**value, CHECKSUM: _checksum(value)}
    write(path, json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the value that `write_json` wrote.

    Raises:
        CheckpointError: it is missing or damaged.
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
    """Return the SHA-256 of the value as JSON gives it back, whatever the layout."""
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
    """Return the file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
