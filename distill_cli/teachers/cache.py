"""Arrays on disk that cannot be wrong: found by a fingerprint of all they depend on, hashed, memory-mapped, made once.

An entry is a folder `root/<fingerprint>/` with logits.npy and, written last, cache.json: what the numbers depend on, their
shape, size and SHA-256. It takes its name when it is finished; one that is not as it was written is made again.
"""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_cli.base import files, ui
from distill_cli.base.errors import BusyError, CheckpointError, StorageError
from distill_cli.base.names import fingerprint, size

FORMAT = 1
ARRAY, CARD = "logits.npy", "cache.json"
MARGIN = 2**16  # bytes beside the array itself


@dataclass(frozen=True)
class Entry:
    """One cached array: its folder and what cache.json says; `card` is empty where that cannot be read."""

    folder: Path
    card: Mapping[str, Any]

    def damage(self) -> str | None:
        """What is wrong with it, every byte read; None when it is as it was written."""
        if not self.card:
            return f"{CARD} is missing or damaged"
        if fingerprint(self.card["ingredients"]) != self.folder.name:
            return f"{CARD} does not belong to this folder"
        array = self.folder / ARRAY
        if not array.is_file():
            return f"{ARRAY} is missing"
        if array.stat().st_size != self.card["bytes"]:
            return f"{ARRAY} has {array.stat().st_size:,} bytes instead of {self.card['bytes']:,}"
        if files.sha256(array) != self.card["sha256"]:
            return f"{ARRAY} is not what was written (its SHA-256 differs)"
        return None

    @property
    def used(self) -> float:
        """When it was last read, in seconds since 1970; 0 when it is gone."""
        try:
            return self.folder.stat().st_mtime
        except FileNotFoundError:
            return 0.0


def entry(folder: Path) -> Entry:
    """The entry in `folder`, whatever its state."""
    kinds = {"ingredients": dict, "about": dict, "shape": list, "bytes": int, "sha256": str}
    try:
        card = files.read_json(folder / CARD)
        whole = all(isinstance(card[key], kind) for key, kind in kinds.items())
        whole = whole and [type(side) for side in card["shape"]] == [int, int]
    except (CheckpointError, OSError, KeyError, TypeError):
        whole = False
    return Entry(folder, card if whole else {})


def array(
    root: Path,
    ingredients: Mapping[str, Any],
    about: Mapping[str, Any],
    shape: tuple[int, int],
    compute: Callable[[], Iterable[np.ndarray]],
) -> np.ndarray:
    """The float32 array of `shape` that depends on `ingredients` alone: read from `root`, or computed and kept there.

    Args:
        about: facts for people, not part of the fingerprint. compute: gives the rows in order, block by block.

    Returns:
        The array, mapped from the file: what of it is not read takes no memory.

    Raises:
        StorageError: there is no room for it.
    """
    named = {"format": FORMAT, **ingredients}
    folder = root / fingerprint(named)
    title = f"{about['teacher']} about {about['dataset']}, {about['split']}"

    def make(place: Path) -> None:
        if folder.is_dir():
            ui.warn(f"teacher cache {folder}: {entry(folder).damage()}; making it again")
        need, free = 4 * shape[0] * shape[1], shutil.disk_usage(place).free
        if need + MARGIN > free:
            raise StorageError(
                f"no space for the teacher's answers: {folder / ARRAY} needs {size(need + MARGIN)}, {size(free)} are free",
                "free some space, choose another output_dir, or use teacher.cache=off",
            )
        ui.say(f"cache: asking {title}: {shape[0]:,} samples, {size(need)}")
        written = _write(place / ARRAY, shape, compute())
        card = {"ingredients": named, "about": dict(about), "shape": list(shape), **written}
        files.write_json(place / CARD, card)

    def usable(place: Path) -> bool:
        return place.is_dir() and entry(place).damage() is None

    while True:
        files.once(folder, make, lambda: ui.say(f"cache: another run is asking {title}; waiting for it"), usable)
        try:
            mapped: np.ndarray = np.load(folder / ARRAY, mmap_mode="c", allow_pickle=False)
        except FileNotFoundError:  # pruned in between
            continue
        assert mapped.shape == shape, (mapped.shape, shape)
        _touch(folder)
        return mapped


def entries(root: Path) -> list[Entry]:
    """All finished entries in `root`, the least recently used first."""
    folders = [path for path in root.iterdir() if path.is_dir() and path.name[0] != "."] if root.is_dir() else []
    return sorted((entry(folder) for folder in folders), key=lambda found: found.used)


def unfinished(root: Path) -> Iterator[Path]:
    """What builders that were killed left behind; what is being built now is not among it."""
    for aside in sorted(root.glob(".*.making")):
        try:
            with files.exclusive(aside.with_suffix(".lock"), _give_up):
                yield aside
        except BusyError:
            continue


def _give_up() -> None:
    raise BusyError("in use")


def _write(path: Path, shape: tuple[int, int], blocks: Iterable[np.ndarray]) -> dict[str, str | int]:
    """Write the array as .npy, block by block; returns the file's sha256 and bytes."""
    rows = 0
    try:
        with path.open("xb") as file:
            sink = files.Sink(file)
            sink.write(_head(shape))
            for block in blocks:
                sink.write(np.ascontiguousarray(block, dtype="<f4").tobytes())
                rows += len(block)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise files.explained(error, path, 4 * shape[0] * shape[1]) from error
    assert rows == shape[0], (rows, shape)
    return sink.written


def _head(shape: tuple[int, int]) -> bytes:
    """The head of a .npy file."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return head.getvalue()


def _touch(folder: Path) -> None:
    """Remember when it was last used, where the disk lets us."""
    try:
        os.utime(folder, (time.time(), time.time()))
    except OSError:
        return
