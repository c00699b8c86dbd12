"""Pictures as they are encoded, found by row: files of their own, or ranges of larger files. What is in them: picture_files.py."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np


class Encoded(Protocol):
    """The bytes of N pictures."""

    def __len__(self) -> int: ...

    def opened(self, row: int) -> Path | BinaryIO:
        """What a decoder opens.

        Raises:
            DataError: they are damaged. OSError: they cannot be read.
        """

    def content(self, row: int) -> np.ndarray:
        """The bytes, (size,) uint8; it raises as `opened`."""

    def name_of(self, row: int) -> str:
        """What to call a picture in a message."""

    def take(self, rows: np.ndarray) -> Encoded:
        """Those at `rows` (n,) alone, in that order."""

    def marks(self) -> Iterator[bytes]:
        """What tells these pictures from all others, wherever they lie; they are not read for it."""

    def facts(self) -> Iterator[bytes]:
        """What differs too when a picture was replaced under its name, size and time, or lies elsewhere."""


@dataclass(frozen=True)
class Loose(Encoded):
    """A file for each picture."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def opened(self, row: int) -> Path:
        return self.paths[row]

    def content(self, row: int) -> np.ndarray:
        return np.frombuffer(self.paths[row].read_bytes(), np.uint8)

    def name_of(self, row: int) -> str:
        return str(self.paths[row])

    def take(self, rows: np.ndarray) -> Loose:
        taken = Loose(tuple(self.paths[row] for row in rows))
        if "_stats" in vars(self):  # they are not asked for twice
            vars(taken)["_stats"] = [self._stats[row] for row in rows]
        return taken

    @cached_property
    def _stats(self) -> list[tuple[int, int, int]]:
        """Of each file its size and times. The time of its last change in any way, `ctime`, cannot be set, so another file
        under the old one's name and time is not taken for it.
        """
        stats = map(os.stat, self.paths)
        return [(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats]

    def marks(self) -> Iterator[bytes]:
        for path, (size, changed, _) in zip(self.paths, self._stats, strict=True):
            yield os.fsencode(f"{path.parent.name}/{path.name} {size} {changed}\n")

    def facts(self) -> Iterator[bytes]:
        for path, stat in zip(self.paths, self._stats, strict=True):
            yield f"{(str(path), *stat)}\n".encode(errors="surrogateescape")


@dataclass(frozen=True)
class Names:
    """Texts one after the other in one array of bytes, so that a million of them take no time to read.

    Args:
        text: (bytes,) uint8. ends: where each ends, (n,) int64.
    """

    text: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str]) -> Names:
        texts = [os.fsencode(name) for name in names]
        return cls(np.frombuffer(b"".join(texts), np.uint8), np.cumsum([len(text) for text in texts], dtype=np.int64))

    def __getitem__(self, row: int) -> str:
        return os.fsdecode(self.text[self.ends[row - 1] if row else 0 : self.ends[row]].tobytes())


class Readable(Protocol):
    """A file that holds many pictures, or has them in memory."""

    path: Path

    def read(self, start: int, stop: int) -> np.ndarray:
        """Some bytes, (stop - start,) uint8."""


@dataclass(frozen=True)
class OnDisk(Readable):
    """A file that is opened for every picture: of thousands of files none stays open."""

    path: Path

    def read(self, start: int, stop: int) -> np.ndarray:
        handle = os.open(self.path, os.O_RDONLY)
        try:
            return np.frombuffer(os.pread(handle, stop - start, start), np.uint8)
        finally:
            os.close(handle)


@dataclass(frozen=True)
class Mapped(Readable):
    """What was taken from the file at `path`, which was of another form: `values` (n,) uint8."""

    path: Path
    values: np.ndarray

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.values[start:stop]


@dataclass(frozen=True)
class Ranges(Encoded):
    """A range of a file for each picture.

    Args:
        files: the larger files. file, start, size: of each picture, (n,): which of them, from which byte, how many.
        names: gives what each picture is called in its file, by the place in `row`, (n,). digest: tells all that the files
            hold from others.
    """

    files: tuple[Readable, ...]
    file: np.ndarray
    start: np.ndarray
    size: np.ndarray
    names: Any
    row: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.row)

    def opened(self, row: int) -> BinaryIO:
        return io.BytesIO(self.content(row).data)

    def content(self, row: int) -> np.ndarray:
        start = int(self.start[row])
        return self.files[self.file[row]].read(start, start + int(self.size[row]))

    def name_of(self, row: int) -> str:
        return f"{self.files[self.file[row]].path}: {self.names[self.row[row]]}"

    def take(self, rows: np.ndarray) -> Ranges:
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in ("file", "start", "size", "row")}
        return replace(self, **columns)

    def marks(self) -> Iterator[bytes]:
        yield self.digest.encode()
        yield np.ascontiguousarray([self.file, self.row], dtype=np.int64).tobytes()

    def facts(self) -> Iterator[bytes]:
        return self.marks()


@dataclass(frozen=True)
class Several(Encoded):
    """Pictures of several kinds.

    Args:
        rows: the place of each among those of all parts, one part after the other, (n,).
    """

    parts: tuple[Encoded, ...]
    rows: np.ndarray

    @cached_property
    def _begins(self) -> list[int]:
        return [0, *accumulate(len(part) for part in self.parts)]

    def __len__(self) -> int:
        return len(self.rows)

    def _at(self, row: int) -> tuple[Encoded, int]:
        place = int(self.rows[row])
        part = bisect_right(self._begins, place) - 1
        return self.parts[part], place - self._begins[part]

    def opened(self, row: int) -> Path | BinaryIO:
        part, place = self._at(row)
        return part.opened(place)

    def content(self, row: int) -> np.ndarray:
        part, place = self._at(row)
        return part.content(place)

    def name_of(self, row: int) -> str:
        part, place = self._at(row)
        return part.name_of(place)

    def take(self, rows: np.ndarray) -> Several:
        return Several(self.parts, self.rows[rows])

    def marks(self) -> Iterator[bytes]:
        return chain(*(part.marks() for part in self.parts), [self.rows.tobytes()])

    def facts(self) -> Iterator[bytes]:
        return chain(*(part.facts() for part in self.parts), [self.rows.tobytes()])


def together(parts: Sequence[Encoded]) -> Encoded:
    """Pictures of several places, one place's after the other's."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Loose) for part in parts):
        return Loose(tuple(path for part in parts for path in part.paths))  # type: ignore[attr-defined]
    return Several(tuple(parts), np.arange(sum(map(len, parts))))
