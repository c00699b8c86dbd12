"""Arrays on their way to the disk: hashed as they are written, and what is there for certain written down for who goes on."""

from __future__ import annotations

import hashlib
import io
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_cli.base import files, ui
from distill_cli.base.errors import CheckpointError
from distill_cli.base.sums import Hashing

PROGRESS = "progress.json"  # what of an unfinished entry is on the disk for certain
SAVED = 10.0  # seconds between two of its states
LARGE = 2**30  # bytes of an array, above which it also has a digest of every block
PIECE = 2**22  # bytes that are read and hashed at a time


@dataclass(frozen=True)
class Array:
    """An array of an entry: its shape, rows first, and its numbers' type as in the head of a .npy file."""

    shape: tuple[int, ...]
    dtype: str = "<f4"

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, under a bar."""
    content = hashlib.sha256()
    with path.open("rb") as file, ui.bar(path.stat().st_size, f"checking {path.name}", unit="B") as bar:
        while data := file.read(PIECE):
            content.update(data)
            bar.update(len(data))
    return content.hexdigest()


def file_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


class Writing:
    """Writes arrays as .npy files into `place`, block by block, and now and then what is there for certain, for who goes on.

    Args:
        wanted: as for `arrays`. resumable: whether somebody can go on.
    """

    def __init__(self, place: Path, wanted: Mapping[str, Array] | None, resumable: bool) -> None:
        self.place, self.wanted, self.resumable = place, wanted, resumable
        self.shapes, self.rows, self.sinks = dict(wanted or {}), Counter[str](), dict[str, files.Sink]()
        self.hashing = {name: Hashing() for name, array in self.shapes.items() if array.bytes > LARGE}
        self.blocks, self.saved = 0, time.monotonic()
        self.path, self.open = place, ExitStack()

    def begin(self) -> int:
        """Open the files; returns how many blocks are there from an earlier try.

        Raises:
            StorageError: there is no room.
        """
        with self._explained():
            if not (self.resumable and self._there()):
                for left in self.place.iterdir():
                    left.unlink()
                for name in self.shapes:
                    self._begin(name)
        return self.blocks

    def write(self, blocks: Iterable[Mapping[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
        """Write the blocks after those that are there; returns what the card says of each array. It raises as `begin`."""
        with self._explained(), self.open:
            for block in blocks:
                for name, values in block.items():
                    self._append(name, values)
                self.blocks += 1
                if self.resumable and time.monotonic() - self.saved >= SAVED:
                    self._save()
            for name in self.sinks:
                self._finish(name)
        rows, shapes = self.rows, self.shapes
        assert all(rows[name] == array.shape[0] for name, array in shapes.items()), (rows, shapes)
        return {name: self._facts(name) for name in shapes}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise files.explained(error, self.path, sum(array.bytes for array in self.shapes.values())) from error

    def _begin(self, name: str) -> None:
        self.path = file_of(self.place, name)
        self.sinks[name] = files.Sink(self.open.enter_context(self.path.open("xb")))
        self._put(name, _head(self.shapes[name]))

    def _put(self, name: str, data: bytes) -> None:
        self.sinks[name].write(data)
        if name in self.hashing:
            self.hashing[name].update(data)

    def _append(self, name: str, values: np.ndarray) -> None:
        self.path = file_of(self.place, name)
        if name not in self.sinks:
            self.shapes[name] = Array((0, *values.shape[1:]), values.dtype.str)
            self._begin(name)
        self._put(name, np.ascontiguousarray(values, dtype=self.shapes[name].dtype).tobytes())
        self.rows[name] += len(values)

    def _finish(self, name: str) -> None:
        self.path, sink = file_of(self.place, name), self.sinks[name]
        if self.wanted is None:  # how many rows there are is known only now; NumPy leaves room in a head for that
            self.shapes[name] = Array((self.rows[name], *self.shapes[name].shape[1:]), self.shapes[name].dtype)
            sink.file.seek(0)
            sink.file.write(_head(self.shapes[name]))
        sink.file.flush()
        os.fsync(sink.file.fileno())

    def _facts(self, name: str) -> dict[str, Any]:
        array, facts = self.shapes[name], dict(self.sinks[name].written)
        if self.wanted is None:
            facts["sha256"] = files.sha256(file_of(self.place, name))
        if name in self.hashing:
            facts["sums"] = files.write(self.place / f"{name}.sums", self.hashing[name].sums().tobytes())["sha256"]
        return {"shape": list(array.shape), "dtype": array.dtype, **facts}

    def _save(self) -> None:
        """Write down what is there, once it is on the disk."""
        for sink in self.sinks.values():
            sink.file.flush()
            os.fsync(sink.file.fileno())
        written = {name: {**sink.written, "rows": self.rows[name]} for name, sink in self.sinks.items()}
        files.write_json(self.place / PROGRESS, {"blocks": self.blocks, "arrays": written})
        self.saved = time.monotonic()

    def _there(self) -> bool:
        """Take what an interrupted builder left, if it is what it wrote down, and say so."""
        try:
            left = files.read_json(self.place / PROGRESS)
        except CheckpointError:
            return False
        for name, facts in left["arrays"].items():
            self.path = file_of(self.place, name)
            if not self.path.is_file() or self.path.stat().st_size < facts["bytes"]:
                return False
            os.truncate(self.path, facts["bytes"])
            if digest_of(self.path) != facts["sha256"]:
                return False
        for name, facts in left["arrays"].items():
            with file_of(self.place, name).open("rb") as file:
                sink = self.sinks[name] = files.Sink(self.open.enter_context(file_of(self.place, name).open("ab")))
                while data := file.read(PIECE):
                    sink.take(data)
                    if name in self.hashing:
                        self.hashing[name].update(data)
            self.rows[name] = facts["rows"]
        self.blocks = left["blocks"]
        ui.say(f"cache: going on after {next(iter(self.rows.values())):,} rows that are there")
        return True


def _head(array: Array) -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": array.dtype, "fortran_order": False, "shape": array.shape})
    return head.getvalue()
