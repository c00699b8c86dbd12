"""A pack: a data set of pictures as one file, mapped where it is read; made from any other place that pictures are in.

A head of 16 bytes; the pictures' bytes one after the other; the index: a line of JSON, then arrays (where each picture begins,
its label, header and name, and the SHA-256 of each block of pictures' bytes); a foot with the index's place and SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill_cli.base import files, locks, ui
from distill_cli.base.errors import DataError
from distill_cli.base.sums import BLOCK, DIGEST, Hashing, Watched
from distill_cli.data.encoded import Encoded, Names, Ranges
from distill_cli.data.inputs import Inputs
from distill_cli.data.listing import Listing, everything
from distill_cli.data.loading import Loader, blocks
from distill_cli.data.picture_files import header, smaller
from distill_cli.data.source import Source

ENDING = ".pack"
VERSION = 1
HEAD = b"distill pack %2d\n"
FOOT = struct.Struct(f"<QQ{DIGEST}s")  # where the index begins, its bytes, its SHA-256
AGAIN = "distill data pack makes it again"


@dataclass(frozen=True)
class _Packing(Source):
    """Pictures as a pack holds them: read gives their bytes together, the size of each, and their headers."""

    encoded: Encoded
    size: int | None

    def __len__(self) -> int:
        return len(self.encoded)

    def read(self, rows: Sequence[int]) -> Inputs:
        contents, sizes, headers = list[np.ndarray](), list[int](), list[tuple[float, ...]]()
        for row in rows:
            made = smaller(self.encoded, row, self.size) if self.size else None
            contents.append(self.encoded.content(row) if made is None else np.frombuffer(made, np.uint8))
            sizes.append(len(contents[-1]))
            headers.append(header(self.encoded, row, made))
        content = torch.from_numpy(np.concatenate(contents))
        return {"content": content, "sizes": torch.tensor(sizes), "headers": torch.tensor(headers, dtype=torch.float64)}

    def take(self, rows: np.ndarray) -> Source:
        return _Packing(self.encoded.take(rows), self.size)

    def digest(self) -> str:
        raise NotImplementedError("nothing is kept of it")

    def name_of(self, row: int) -> str:
        return self.encoded.name_of(row)


def write(path: Path, listing: Listing, size: int | None, workers: int) -> int:
    """Pack all pictures of a listing; returns the bytes of the pack, which is whole or not there.

    Args:
        size: pictures of a longer shorter side are resized to that; None: all keep their bytes. workers: processes that read.

    Raises:
        DataError: a picture cannot be read. StorageError: there is no room.
    """
    encoded, parts = everything(listing.files)
    names = Names.of([_short(encoded.name_of(row), listing.folder) for row in range(len(encoded))])
    card = {
        "classes": list(listing.classes),
        "parts": {name: [rows.start, rows.stop, listing.called.get(name, name)] for name, rows in parts.items()},
        "size": size,
    }
    labels = np.concatenate([labels for _, labels in listing.files.values()]).astype(np.int64)

    def fill(sink: files.Sink) -> None:
        hashing, sizes, headers = Hashing(), list[np.ndarray](), list[np.ndarray]()
        sink.write(HEAD % VERSION)
        with ui.bar(len(encoded), "packing") as bar:
            for block in Loader(_Packing(encoded, size), blocks(np.arange(len(encoded))), workers):
                assert not isinstance(block, Tensor)
                content = block["content"].numpy().tobytes()
                sink.write(content)
                hashing.update(content)
                sizes.append(block["sizes"].numpy())
                headers.append(block["headers"].numpy())
                bar.update(len(sizes[-1]))
        starts = np.cumsum([0, *np.concatenate(sizes)], dtype=np.int64)
        arrays = {"starts": starts, "labels": labels, "headers": np.concatenate(headers), "ends": names.ends,
                  "sums": hashing.sums(), "text": names.text}  # fmt: skip
        _write_index(sink, card, arrays)

    with locks.exclusive(locks.lock_of(path), lambda: ui.say(f"{path}: another process writes it; waiting")):
        for aside in path.parent.glob(f".{path.name}.*.tmp"):  # of one that was killed
            aside.unlink(missing_ok=True)
        return int(files.write(path, fill)["bytes"])


def _short(name: str, folder: Path) -> str:
    return name.removeprefix(str(folder)).lstrip("/: ")


def _write_index(sink: files.Sink, card: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    shapes = {name: [values.dtype.str, list(values.shape)] for name, values in arrays.items()}
    line = json.dumps({**card, "arrays": shapes}, ensure_ascii=True).encode() + b"\n"
    begin, content = sink.size, hashlib.sha256()
    for piece in (line, *(values.tobytes() for values in arrays.values())):
        sink.write(piece)
        content.update(piece)
    sink.write(FOOT.pack(begin, sink.size - begin, content.digest()))


@dataclass(frozen=True)
class Pack:
    """A pack's index.

    Attributes:
        parts: of train, val and test those that there are: first and last row, and what the part was called.
        size: to which its pictures were resized, if they were.
    """

    encoded: Ranges
    labels: np.ndarray
    headers: np.ndarray
    classes: Sequence[str]
    parts: Mapping[str, tuple[int, int, str]]
    size: int | None

    @classmethod
    def read(cls, path: Path) -> Pack:
        """The pack at `path`; of the pictures none is read.

        Raises:
            DataError: it is none, one of another version, or damaged.
        """
        with path.open("rb") as file:
            head = file.read(len(HEAD % VERSION))
            if head[:-3] != (HEAD % VERSION)[:-3]:
                raise DataError(f"{path} is no pack", "distill data pack dataset.root=FOLDER out=FILE.pack makes one")
            if head != HEAD % VERSION:
                raise DataError(f"{path} is a pack of version {head[-3:].decode().strip()}; this distill reads version {VERSION}",
                                AGAIN)  # fmt: skip
            index = _index(file, path)
        line, _, rest = index.partition(b"\n")
        card, arrays, at = json.loads(line), dict[str, np.ndarray](), 0
        for name, (kind, shape) in card["arrays"].items():
            count = int(np.prod(shape))
            arrays[name] = np.frombuffer(rest, kind, count, at).reshape(shape)
            at += count * np.dtype(kind).itemsize
        names, starts = Names(arrays["text"], arrays["ends"]), arrays["starts"]
        rows = np.arange(len(starts) - 1)
        watched = Watched(path, len(head), int(starts[-1]), arrays["sums"], _damaged(path, starts, names))
        encoded = Ranges((watched,), np.zeros(len(rows), np.int8), starts[:-1], np.diff(starts), names, rows,
                         hashlib.sha256(index).hexdigest())  # fmt: skip
        parts = {name: tuple(part) for name, part in card["parts"].items()}
        return cls(encoded, arrays["labels"], arrays["headers"], card["classes"], parts, card["size"])


def _index(file: Any, path: Path) -> bytes:
    """The bytes of a pack's index."""
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - FOOT.size))
    foot = file.read()
    begin, length, digest = FOOT.unpack(foot) if len(foot) == FOOT.size else (0, 0, b"")
    if begin + length + FOOT.size != size:
        raise DataError(f"{path} is cut off: its end is not that of a pack", AGAIN)
    file.seek(begin)
    index: bytes = file.read(length)
    if hashlib.sha256(index).digest() != digest:
        raise DataError(f"{path} is damaged: its index is not what was written (its SHA-256 differs)", AGAIN)
    return index


def _damaged(path: Path, starts: np.ndarray, names: Names) -> Callable[[int], DataError]:
    def error(block: int) -> DataError:
        first = int(np.searchsorted(starts, block * BLOCK, side="right")) - 1
        last = min(int(np.searchsorted(starts, (block + 1) * BLOCK)), len(starts) - 1) - 1
        return DataError(
            f"{path} is damaged: block {block + 1:,} of {-(-int(starts[-1]) // BLOCK):,} is not what was written (its SHA-256 "
            f"differs), in which are {names[first]} to {names[last]}",
            AGAIN,
        )

    return error
