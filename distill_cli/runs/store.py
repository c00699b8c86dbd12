"""Arrays on disk that cannot be wrong: found by a fingerprint of all they depend on, hashed, memory-mapped, made once.

An entry is a folder `root/<fingerprint>/` with one or more .npy files and, written last, cache.json:
what the numbers depend on, and each array's shape, type, size and SHA-256. It takes its name when it is finished; one that
is not intact is made again. What the numbers mean is the callers' business.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distill_cli.base import files, locks, ui, world
from distill_cli.base.errors import BusyError, CheckpointError, StorageError
from distill_cli.base.names import fingerprint, size
from distill_cli.base.sums import DIGEST, Watched
from distill_cli.runs.writing import PROGRESS, Array, Writing, digest_of, file_of

FORMAT = 2
CARD = "cache.json"
MARGIN = 2**16  # bytes beside the arrays themselves
FACTS = {"shape", "dtype", "bytes", "sha256"}  # what the card says of each array


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

    def damage(self, later: bool = False) -> str | None:
        """Return what is wrong with it, every byte read; None when it is intact.

        Args:
            later: arrays with a digest of every block are not read: their blocks are compared when they are touched.
        """
        if not self.card:
            return f"{CARD} is missing or damaged"
        if fingerprint(self.card["ingredients"]) != self.folder.name:
            return f"{CARD} does not belong to this folder"
        for name, facts in self.card["arrays"].items():
            array = file_of(self.folder, name)
            if not array.is_file():
                return f"{array.name} is missing"
            if array.stat().st_size != facts["bytes"]:
                return f"{array.name} has {array.stat().st_size:,} bytes instead of {facts['bytes']:,}"
            sums = self.folder / f"{name}.sums"
            if later and "sums" in facts and sums.is_file():
                array, facts = sums, {"sha256": facts["sums"]}
            if digest_of(array) != facts["sha256"]:
                return f"{array.name} is not what was written (its SHA-256 differs)"
        return None

    @property
    def used(self) -> float:
        """When it was last read, in seconds since 1970; 0 when it is gone."""
        try:
            return self.folder.stat().st_mtime
        except FileNotFoundError:
            return 0.0


class Arrays(dict[str, np.ndarray]):
    """The arrays of an entry by name. Of those in `watched` no row may be used before `check` was called for it."""

    def __init__(self, arrays: Mapping[str, np.ndarray], watched: Mapping[str, Watched]) -> None:
        super().__init__(arrays)
        self.watched = watched

    def check(self, name: str, rows: np.ndarray | None) -> None:
        """Compare the blocks that rows (n,) of an array lie in with what was written, unless that was done; None: all.

        Raises:
            CheckpointError: one is damaged; whoever asks for the entry next makes it again.
        """
        if name in self.watched:
            array, watched = self[name], self.watched[name]
            watched.check_rows(rows, watched.size - array.nbytes, array.nbytes // len(array))


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
    go_on: Callable[[int], Iterable[Mapping[str, np.ndarray]]] | None = None,
    later: bool = False,
) -> Arrays:
    """Return the arrays that depend on `ingredients` alone, from `root` or computed and kept there.

    They are mapped from their files: what is not read takes no memory. An entry that was interrupted goes on after the blocks
    that are on the disk, where `go_on` can.

    Args:
        root: None: they are kept nowhere, and are in memory.
        about: facts for people, not part of the fingerprint. wanted: the arrays; a name becomes a file's. None: as many rows as
            `compute` gives.
        compute: yields the rows of all arrays in order, block by block. go_on: yields those after so many blocks.
        later: large arrays are compared with what was written when they are touched, see `Arrays.check`.

    Raises:
        StorageError: there is no room for them.
    """
    if root is None:
        every = list(compute())
        return Arrays({name: np.concatenate([block[name] for block in every]) for name in every[0]}, {})
    named = {"format": FORMAT, **ingredients}
    folder = root / fingerprint(named)

    def make(place: Path) -> None:
        writing = Writing(place, wanted, go_on is not None)

        def begin() -> int:
            if folder.is_dir():
                ui.warn(f"cache {folder}: {entry(folder).damage()}; making it again")
            if wanted is None:
                ui.say(f"cache: {words.doing}")
            else:
                _make_sure_of_room(place, folder, wanted, words)
            return writing.begin()

        def end() -> None:
            files.write_json(place / CARD, {"ingredients": named, "about": dict(about), "arrays": facts})
            (place / PROGRESS).unlink(missing_ok=True)

        done = world.decided(begin)
        facts = world.led(writing.write, go_on(done) if go_on and done else compute())
        world.decided(end)

    waiting = f"cache: another run is {words.doing}; waiting for it"
    while True:
        intact = partial(_intact, later=later)
        locks.once(folder, make, lambda: ui.say(waiting), usable=intact, resumable=_begun)
        with suppress(FileNotFoundError, CheckpointError):  # pruned in between
            return _mapped(folder, wanted, later)


def _mapped(folder: Path, wanted: Mapping[str, Array] | None, later: bool) -> Arrays:
    facts = files.read_json(folder / CARD)["arrays"]
    mapped = {name: np.load(file_of(folder, name), mmap_mode="c", allow_pickle=False) for name in wanted or facts}
    watched = {name: _watched(folder, name, facts[name]) for name in mapped if later and "sums" in facts[name]}
    for name, array in (wanted or {}).items():
        assert mapped[name].shape == array.shape and mapped[name].dtype == np.dtype(array.dtype), (name, array)
    with suppress(OSError):  # when it was last used is remembered where the disk allows it
        os.utime(folder)
    return Arrays(mapped, watched)


def _begun(aside: Path) -> bool:
    return (aside / PROGRESS).exists()


def _intact(folder: Path, later: bool) -> bool:
    return entry(folder).damage(later) is None


def _watched(folder: Path, name: str, facts: Mapping[str, Any]) -> Watched:
    """The file of an array, whose blocks are compared as they are touched."""
    sums = np.frombuffer((folder / f"{name}.sums").read_bytes(), np.uint8).reshape(-1, DIGEST)

    def damaged(block: int) -> CheckpointError:
        (folder / CARD).unlink(missing_ok=True)  # so that the entry is made again
        what = f"{name}.npy is not what was written (the SHA-256 of block {block + 1:,} of {len(sums):,} differs)"
        return CheckpointError(
            f"cache {folder}: {what}", "the same line, or distill resume RUN, makes it again and goes on"
        )

    return Watched(file_of(folder, name), 0, facts["bytes"], sums, damaged)


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


def _make_sure_of_room(place: Path, folder: Path, wanted: Mapping[str, Array], words: Words) -> None:
    """Say how large an entry will be; a StorageError where there is no room for it."""
    need, free = sum(array.bytes for array in wanted.values()), shutil.disk_usage(place).free
    free += sum(path.stat().st_size for path in place.iterdir())  # of an earlier try
    if need + MARGIN > free:
        first = file_of(folder, next(iter(wanted)))
        raise StorageError(
            f"no space for {words.what}: {first} needs {size(need + MARGIN)}, {size(free)} are free",
            f"free some space, choose another output_dir, or {words.way_out}",
        )
    rows = next(iter(wanted.values())).shape[0]
    ui.say(f"cache: {words.doing}: {rows:,} samples, {size(need)}")
