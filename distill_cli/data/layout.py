"""Where a folder of pictures has its parts, classes and files, and what in it is left out, by reason; no file is opened."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from distill_cli.base.errors import DataError
from distill_cli.data.labels import UNKNOWN

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".jp2", ".ppm",
            ".pgm", ".pbm", ".pnm"}  # fmt: skip
# What a folder of pictures, or a file of texts without its ending, is called that stands for a part.
PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
FOREIGN = {"__macosx", "thumbs.db", "desktop.ini", "@eadir"}  # what other programs leave without a dot before its name
WRAPPED = 3  # folders around the parts, at most
HIDDEN = "hidden"


@dataclass
class Layout:
    """What a folder holds.

    Attributes:
        parts: the folder of train, val and test, each where there is one.
        left_out: how many files are not read, by reason. unused: folders beside the parts.
        remarks: what was chosen where the folder leaves a choice, for people.
    """

    parts: dict[str, Path]
    left_out: Counter[str] = field(default_factory=Counter)
    unused: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def unread(self) -> str:
        """What lies there and is not read, in words."""
        return ", ".join([*self.unused, *filter(None, [listed(self.left_out)])])

    @property
    def harmless(self) -> bool:
        """Whether nobody would think that it is read."""
        return not self.unused and not self.left_out.keys() - {HIDDEN}

    @classmethod
    def of(cls, root: Path) -> Layout:
        """The layout of `root`, whose parts may lie in one of its folders instead.

        Raises:
            DataError: two folders stand for the same part. OSError: a folder cannot be read.
        """
        parts = _parts(root, WRAPPED)
        if not parts:
            return cls({})
        home = next(iter(parts.values())).parent
        unused = [f"{path.name}/" for path in _folders(home) if path not in parts.values()]
        remarks = [] if home == root else [f"parts in {home.relative_to(root)}/"]
        return cls(parts, unused=unused, remarks=remarks)

    def pictures(self, part: Path) -> tuple[list[Path], np.ndarray]:
        """Every picture below `part` in a fixed order, whatever folders it lies in; none has a label.

        Raises:
            DataError: there is none.
        """
        unlike, real = Counter[str](), part.resolve()
        paths = sorted(_pictures(part, (real, *real.parents), unlike))
        self.left_out.update(unlike)
        if not paths:
            raise _none(part, unlike)
        return paths, np.full(len(paths), UNKNOWN)

    def files(
        self, part: Path, classes: Sequence[str], every: bool = True, origin: str = "train"
    ) -> tuple[list[Path], np.ndarray]:
        """Every picture in the class folders of `part` in a fixed order, with its class's index.

        Args:
            every: each class must have pictures. origin: what has the classes, for messages.

        Raises:
            DataError: classes of other names, or one without pictures.
        """
        here, taken, known = class_folders(part), dict[str, list[Path]](), set(classes)
        folded: dict[str, list[str]] = {}
        for name in classes:
            if name not in here:
                folded.setdefault(name.casefold(), []).append(name)
        for name, folders in here.items():
            alike = folded.get(name.casefold(), [])
            chosen = name if name in known else alike[0] if len(alike) == 1 else ""
            if not chosen:
                raise _only(name, part.name, origin)
            taken.setdefault(chosen, []).extend(folders)
        self.left_out.update(_reason(entry, "outside of class folders") for entry in _entries(part) if entry.is_file())
        paths, counts = list[Path](), list[int]()
        for name in classes:
            if name not in taken and every:
                raise _only(name, origin, part.name)
            pictures, unlike = list[Path](), Counter[str]()
            for folder in taken.get(name, ()):
                real = folder.resolve()
                pictures += _pictures(folder, (real, *real.parents), unlike)
                if folder.name != name:
                    self.remarks.append(f"{part.name}/{folder.name} is class {name!r}")
            if not pictures and every:
                raise _none(taken[name][0], unlike)
            if deeper := sum(path.parent not in taken[name] for path in pictures):
                self.remarks.append(f"{deeper:,} pictures below {part.name}/{name}/ lie in folders of their own")
            self.left_out.update(unlike)
            paths += sorted(pictures)
            counts.append(len(pictures))
        return paths, np.repeat(np.arange(len(classes)), counts)


def class_folders(part: Path) -> dict[str, list[Path]]:
    """The folders of each class; names that look the same are the same.

    Raises:
        DataError: a name that is no text.
    """
    found: dict[str, list[Path]] = {}
    for path in _folders(part):
        try:
            path.name.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{part} has a folder named {os.fsencode(path.name)!r}, which is no UTF-8 text") from error
        found.setdefault(" ".join(unicodedata.normalize("NFC", path.name).split()) or path.name, []).append(path)
    return dict(sorted(found.items()))


def listed(left_out: Counter[str]) -> str:
    """The reasons why files are left out, each with their number."""
    return ", ".join(f"{number:,} {reason}" for reason, number in left_out.most_common())


def _parts(folder: Path, depth: int) -> dict[str, Path]:
    """The folders of the parts in `folder`, or in the only folder below it that has some."""
    inside, found = _folders(folder), dict[str, Path]()
    for part, names in PARTS.items():
        named = [path for path in inside if path.name.strip().casefold() in names]
        if len(named) > 1:
            both = " and ".join(f"{path.name}/" for path in named)
            raise DataError(f"{folder} has {both}: both stand for {part}", "rename one of them, or move it away")
        if named:
            found[part] = named[0]
    if found or not depth:
        return found
    below = [parts for path in inside if (parts := _parts(path, depth - 1))]
    return below[0] if len(below) == 1 else {}


def _folders(folder: Path) -> list[Path]:
    """The folders in `folder` that are not hidden, by name."""
    return sorted(Path(entry) for entry in _entries(folder) if entry.is_dir() and not _hidden(entry.name))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in FOREIGN


def _pictures(folder: Path, above: tuple[Path, ...], left_out: Counter[str]) -> Iterator[Path]:
    """The pictures below `folder`; links are followed, but not back to a folder they lie in.

    Args:
        above: the real paths of the folder and of those above it. left_out: is told of what is no picture.
    """
    for entry in _entries(folder):
        if not entry.is_dir():
            reason = _reason(entry)
            if reason:
                left_out[reason] += 1
            else:
                yield Path(entry)
        elif _hidden(entry.name):
            left_out[HIDDEN] += sum(len(names) for _, _, names in os.walk(entry))
        elif (real := Path(entry).resolve()) in above:
            left_out["links to a folder above them"] += 1
        else:
            yield from _pictures(Path(entry), (*above, real), left_out)


def _reason(entry: os.DirEntry[str], otherwise: str = "") -> str:
    """Why a file is not read, if it is not."""
    suffix = Path(entry).suffix.lower()
    if _hidden(entry.name):
        return HIDDEN
    if not entry.is_file():
        return "broken links" if entry.is_symlink() else "that are no files"
    if suffix not in SUFFIXES:
        return suffix or "without an ending"
    return otherwise


def _none(folder: Path, unlike: Counter[str]) -> DataError:
    return DataError(
        f"{folder} holds no pictures" + (f", but {listed(unlike)}" if unlike else ""),
        f"known endings: {' '.join(sorted(SUFFIXES))}",
    )


def _only(name: str, there: str, missing: str) -> DataError:
    return DataError(
        f"class {name!r} is in {there}/ only: {missing}/ has no folder for it", "the parts need the same classes"
    )
