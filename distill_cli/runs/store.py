"""Arrays on disk that cannot be wrong: found by a fingerprint of all they depend on, hashed, memory-mapped, made once.

An entry is a folder `root/<fingerprint>/` with one or more .npy files and, written last, cache.json:
what the numbers depend on, and each array's shape, type, size and SHA-256. It takes its name when it is finished; one that
is not intact is made again. What the numbers mean is the callers' business.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_cli.base import files, locks, ui, world
from distill_cli.base.errors import BusyError, CheckpointError, StorageError
from distill_cli.base.names import fingerprint, size

FORMAT = 2
CARD = "cache.json"
MARGIN = 2**16  # bytes beside the arrays themselves
FACTS = {"shape", "dtype", "bytes", "sha256"}  # what the card says of each array


@dataclass(frozen=True)
class Array:
    """An array of an entry: its shape, rows first, and its numbers' type as in the head of a .npy file."""

    shape: tuple[int, ...]
    dtype: str = "<f4"

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Words:
    """How messages speak of an entry."""

    doing: str  # as in "asking resnet18 about digits, val"
    what: str  # as in "the teacher's answers"
    way_out: str  # what to do where there is no room


@dataclass(frozen=True)
class Entry:
    """An entry: its folder and what cache.json says; `card` is empty where that cannot be read."""

    folder: Path
    card: Mapping[str, Any]

    def damage(self) -> str | None:
        """Return what is wrong with it, every byte read; None when it is intact."""
        if not self.card:
            return f"{CARD} is missing or damaged"
        if fingerprint(self.card["ingredients"]) != self.folder.name:
            return f"{CARD} does not belong to this folder"
        for name, facts in self.card["arrays"].items():
            array = _file(self.folder, name)
            if not array.is_file():
                return f"{array.name} is missing"
            if array.stat().st_size != facts["bytes"]:
                return f"{array.name} has {array.stat().st_size:,} bytes instead of {facts['bytes']:,}"
            if files.sha256(array) != facts["sha256"]:
                return f"{array.name} is not what was written (its SHA-256 differs)"
        return None

    @property
    def used(self) -> float:
        """When it was last read, in seconds since 1970; 0 when it is gone."""
        try:
            return self.folder.stat().st_mtime
        except FileNotFoundError:
            return 0.0


def entry(folder: Path) -> Entry:
    """Return the entry in `folder`, whatever its state."""
    try:
        card = files.read_json(folder / CARD)
        sound = card["arrays"] and {"ingredients", "about"} <= card.keys()
        for facts in card["arrays"].values():
            sides = facts["shape"]
            sound = sound and sides and facts.keys() >= FACTS and all(type(side) is int for side in sides)
    except (CheckpointError, OSError, KeyError, TypeError, AttributeError):
        sound = False
    return Entry(folder, card if sound else {})


def arrays(
    root: Path | None,
    ingredients: Mapping[str, Any],
    about: Mapping[str, Any],
    wanted: Mapping[str, Array] | None,
    compute: Callable[[], Iterable[Mapping[str, np.ndarray]]],
    words: Words,
) -> dict[str, np.ndarray]:
    """Return the arrays that depend on `ingredients` alone, from `root` or computed and kept there.

    They are mapped from their files: what is not read takes no memory.

    Args:
        root: None: they are kept nowhere, and are in memory.
        about: facts for people, not part of the fingerprint. wanted: the arrays; a name becomes a file's. None: as many rows as
            `compute` gives.
        compute: yields the rows of all arrays in order, block by block.

    Raises:
        StorageError: there is no room for them.
    """
    if root is None:
        every = list(compute())
        return {name: np.concatenate([block[name] for block in every]) for name in every[0]}
    named = {"format": FORMAT, **ingredients}
    folder = root / fingerprint(named)

    def make(place: Path) -> None:
        world.decided(lambda: announce(place))
        facts = world.led(lambda blocks: _write(place, wanted, blocks), compute())
        card = {"ingredients": named, "about": dict(about), "arrays": facts}
        world.decided(lambda: files.write_json(place / CARD, card))

    def announce(place: Path) -> None:
        if folder.is_dir():
            ui.warn(f"cache {folder}: {entry(folder).damage()}; making it again")
        if wanted is None:
            ui.say(f"cache: {words.doing}")
        else:
            _make_sure_of_room(place, folder, wanted, words)

    waiting = f"cache: another run is {words.doing}; waiting for it"
    while True:
        locks.once(folder, make, lambda: ui.say(waiting), usable=lambda place: entry(place).damage() is None)
        try:
            names = wanted or files.read_json(folder / CARD)["arrays"]
            mapped = {name: np.load(_file(folder, name), mmap_mode="c", allow_pickle=False) for name in names}
        except (FileNotFoundError, CheckpointError):  # pruned in between
            continue
        for name, array in (wanted or {}).items():
            assert mapped[name].shape == array.shape and mapped[name].dtype == np.dtype(array.dtype), (name, array)
        with suppress(OSError):  # when it was last used is remembered where the disk allows it
            os.utime(folder)
        return mapped


def entries(root: Path) -> list[Entry]:
    """Return all finished entries in `root`, the least recently used first."""
    folders = [path for path in root.iterdir() if path.is_dir() and path.name[0] != "."] if root.is_dir() else []
    return sorted((entry(folder) for folder in folders), key=lambda one: one.used)


def unfinished(root: Path) -> Iterator[Path]:
    """Yield the folders that killed builders left behind, each locked; not those that are being built now."""
    for aside in sorted(root.glob(".*.making")):
        with suppress(BusyError), locks.exclusive(aside.with_suffix(".lock"), _give_up):
            yield aside


def _give_up() -> None:
    raise BusyError("in use")


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _make_sure_of_room(place: Path, folder: Path, wanted: Mapping[str, Array], words: Words) -> None:
    """Say how large an entry will be; a StorageError where there is no room for it."""
    need, free = sum(array.bytes for array in wanted.values()), shutil.disk_usage(place).free
    if need + MARGIN > free:
        first = _file(folder, next(iter(wanted)))
        raise StorageError(
            f"no space for {words.what}: {first} needs {size(need + MARGIN)}, {size(free)} are free",
            f"free some space, choose another output_dir, or {words.way_out}",
        )
    rows = next(iter(wanted.values())).shape[0]
    ui.say(f"cache: {words.doing}: {rows:,} samples, {size(need)}")


def _write(
    place: Path, wanted: Mapping[str, Array] | None, blocks: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, dict[str, Any]]:
    """Write the arrays as .npy files, block by block; return what the card says of each."""
    shapes, rows, sinks, path = dict(wanted or {}), Counter[str](), dict[str, files.Sink](), place
    try:
        with ExitStack() as stack:

            def opened(name: str) -> files.Sink:
                sink = files.Sink(stack.enter_context(_file(place, name).open("xb")))
                _write_head(sink, shapes[name])
                return sink

            for name in shapes:
                path = _file(place, name)
                sinks[name] = opened(name)
            for block in blocks:
                for name, values in block.items():
                    path = _file(place, name)
                    if name not in sinks:
                        shapes[name] = Array((0, *values.shape[1:]), values.dtype.str)
                        sinks[name] = opened(name)
                    sinks[name].write(np.ascontiguousarray(values, dtype=shapes[name].dtype).tobytes())
                    rows[name] += len(values)
            for name, sink in sinks.items():
                path = _file(place, name)
                if wanted is None:  # how many rows there are is known only now; NumPy leaves room in a head for that
                    shapes[name] = Array((rows[name], *shapes[name].shape[1:]), shapes[name].dtype)
                    sink.file.seek(0)
                    _write_head(sink.file, shapes[name])
                sink.file.flush()
                os.fsync(sink.file.fileno())
    except OSError as error:
        raise files.explained(error, path, sum(array.bytes for array in shapes.values())) from error
    assert all(rows[name] == array.shape[0] for name, array in shapes.items()), (rows, shapes)
    written = {name: sink.written for name, sink in sinks.items()}
    if wanted is None:
        written = {name: {**facts, "sha256": files.sha256(_file(place, name))} for name, facts in written.items()}
    return {name: {"shape": list(a.shape), "dtype": a.dtype, **written[name]} for name, a in shapes.items()}


def _write_head(file: Any, array: Array) -> None:
    head = {"descr": array.dtype, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, head)
