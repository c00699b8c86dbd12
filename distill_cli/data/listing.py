"""A listing: which encoded pictures are train, val and test, and their classes. From it to Data; who finds them is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from distill_cli.base import ui
from distill_cli.base.errors import ConfigError, DataError
from distill_cli.data.assembling import Part, alone, assemble, cut, within
from distill_cli.data.dataset import Data
from distill_cli.data.decoded import Decoded
from distill_cli.data.encoded import Encoded, Ranges, together
from distill_cli.data.labels import UNKNOWN
from distill_cli.data.layout import PARTS, Layout
from distill_cli.data.picture_files import Headers, Pictures, Range, pixels_of
from distill_cli.data.pictures import PictureSpec
from distill_cli.data.split_files import files_by_part
from distill_cli.data.survey import LOOKED_AT, Surveyed, doubts, remarks, repeated, shape, value_range
from distill_cli.runs.store import Array


@dataclass(frozen=True)
class Listing:
    """Encoded pictures by part, of those that are read.

    Attributes:
        folder: where they lie, for messages. origins: the part that each split comes from, as `origins_of` has it.
        files: by part, the pictures and the index of each one's class. called: what each part is called where it lies.
        layout: tells what was chosen in finding them, and what is not read.
        headers: of all pictures, in the order of the parts, (N, fields) float64; None: they are to be read.
    """

    folder: Path
    classes: Sequence[str]
    origins: Mapping[str, str]
    files: Mapping[str, tuple[Encoded, np.ndarray]]
    called: Mapping[str, str]
    layout: Layout
    headers: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Reading:
    """How listed pictures become data; see the arguments of `image_folder`."""

    size: int | str = "auto"
    range: list[float] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    val_fraction: float = 0.1
    split_seed: int = 0
    memory: float = 2.0
    workers: int = 0
    store: Path | None = None
    reader: str = "pil"

    def __post_init__(self) -> None:
        if self.range is not None and not (len(self.range) == 2 and self.range[0] < self.range[1]):
            raise ConfigError(f"range: should be [black, white], the smaller value first, got {self.range}")


def origins_of(present: Mapping[str, object], only: str | None) -> tuple[dict[str, str], list[str]]:
    """The part that each split comes from, of those that are there, and the parts that are read.

    Args:
        only: the one split that is wanted, if it is one.
    """
    test = "test" if "test" in present else "val"
    val = "val" if "val" in present and ("test" in present or "train" not in present) else "train"
    origins = {"train": "train", "val": val, "test": test}
    return origins, [part for part in PARTS if part in ([origins[only]] if only else origins.values())]


def everything(files: Mapping[str, tuple[Encoded, np.ndarray]]) -> tuple[Encoded, dict[str, slice]]:
    """All pictures of a listing, one part's after the other's, and the rows of each part."""
    rows, first = dict[str, slice](), 0
    for name, (encoded, _) in files.items():
        rows[name] = slice(first, first + len(encoded))
        first += len(encoded)
    return together([encoded for encoded, _ in files.values()]), rows


def read(listing: Listing, how: Reading, only: str | None) -> Data:
    """The listed pictures as a data set; it raises as `image_folder`."""
    parts, values, said = _read(listing, how)
    names, origins = listing.classes, listing.origins
    cut_off = origins["val"] == "train"
    told = {"test": "test: ", "val": "validation: " + f"{how.val_fraction:.0%} of " * cut_off, "train": "train: "}
    splits = [only] if only else ["test", "val"]
    note = "; ".join([*(told[split] + listing.called[origins[split]] for split in splits), *said])
    if only is None:
        own_val, test = None if cut_off else parts["val"], parts[origins["test"]]
        data = assemble(parts["train"], own_val, test, names, val_fraction=how.val_fraction, split_seed=how.split_seed,
                        mean=how.mean, std=how.std, note=note, workers=how.workers)  # fmt: skip
    else:
        part = parts[origins[only]]
        if cut_off and only != "test":
            rest, val = cut(part, how.val_fraction, how.split_seed, names)
            part = val if only == "val" else rest
        data = alone(only, part, names, note, how.workers)
    assert isinstance(data.input, PictureSpec)
    return data.under(replace(data.input, range=values))


def _read(listing: Listing, how: Reading) -> tuple[dict[str, Part], Range | None, list[str]]:
    """The parts, the range of their values, and what was chosen in reading them; warnings tell what may be wrong."""
    files, layout, (encoded, rows) = listing.files, listing.layout, everything(listing.files)
    kept = Decoded(how.store, listing.folder, reader=how.reader)
    looked, headers = _headers(listing, encoded, kept, how.workers)
    unseen = len(looked) < len(encoded)
    of_train = rows.get("train", slice(0, len(encoded)))
    train = headers.at((of_train.start <= looked) & (looked < of_train.stop))
    channels, pixels = shape(headers, train, how.size)
    values = (how.range[0], how.range[1]) if how.range else None
    if values is None and "train" in rows:
        values = value_range(train)
    kept = replace(kept, range=values)
    held = within(how.memory, {name: len(labels) * channels * pixels**2 for name, (_, labels) in files.items()})
    parts = {}
    for name, (one, labels) in files.items():
        parts[name] = Part(pictures := Pictures(one, channels, (pixels, pixels), values, how.reader, unseen), labels)
        if name in held:
            wanted = Array((len(one), channels, pixels, pixels), "|u1")
            made = kept.array(name, one, wanted, partial(pixels_of, pictures, how.workers))
            parts[name] = Part(torch.from_numpy(made), labels)
    said = [*layout.remarks, *remarks(headers, train, how.size == "auto", values)]
    if streamed := [name for name in files if name not in held]:
        said.append(f"{', '.join(streamed)} read as needed")
    warnings = doubts(headers, lambda place: encoded.name_of(int(looked[place])), values)
    if layout.unread:
        (said if layout.harmless else warnings).append(f"not read: {layout.unread}")
    if unseen:
        said.append(f"size, colours and depth are those of {len(looked):,} of {len(encoded):,} pictures, and none was compared "
                    "with another")  # fmt: skip
    else:
        labels = np.concatenate([labels for _, labels in files.values()])
        if again := repeated(headers, encoded, rows, labels, listing.origins["val"] == "train"):
            warnings.append(f"the same pictures: {again}")
    for warning in warnings:
        ui.warn(f"{listing.folder.name}: {warning}")
    return parts, values, said


def _headers(listing: Listing, encoded: Encoded, kept: Decoded, workers: int) -> tuple[np.ndarray, Headers]:
    """The rows that are looked at, all or, of very many, evenly spaced ones; and their headers."""
    if listing.headers is not None:
        return np.arange(len(encoded)), Headers(*listing.headers.T)
    looked = np.unique(np.linspace(0, len(encoded) - 1, min(LOOKED_AT, len(encoded))).astype(np.int64))
    some = encoded if len(looked) == len(encoded) else encoded.take(looked)
    table = Array((len(some), len(Headers._fields)), "<f8")
    surveyed = partial(pixels_of, Surveyed(some), workers)
    return looked, Headers(*kept.array("headers", some, table, surveyed).T)


def chosen(
    folder: Path, endings: Sequence[str], only: str | None
) -> tuple[dict[str, str], dict[str, list[Path]], Layout]:
    """Of the files below `folder` that hold many pictures each: the part that each split comes from, the files of the parts that
    are read, in order, and what is left out.

    Raises:
        DataError: a part is missing.
    """
    files, unused = files_by_part(folder, endings, only)
    origins, needed = origins_of(files, only)
    if not files.keys() >= set(needed):
        held = ", ".join(f"{len(paths):,} file(s) of {part}" for part, paths in files.items())
        raise DataError(
            f"dataset.root={folder}: it holds {held}",
            f"it needs those of {' and '.join(needed)}, by their names or folders, as in train-0000{endings[0]}",
        )
    layout = Layout({}, unused=[path.name for path in unused])
    return origins, {part: files[part] for part in needed}, layout


def of_files(
    folder: Path,
    origins: Mapping[str, str],
    found: Mapping[str, Sequence[Path]],
    layout: Layout,
    encoded: Ranges,
    labels: Sequence[str],
    classes: Sequence[str] | None,
) -> Listing:
    """The listing of the pictures in some files, the parts' one after the other.

    Args:
        labels: of each picture, as text. classes: as `labelled` takes them.
    """
    names, targets = labelled(labels, classes, encoded.name_of)
    parts, first = dict[str, tuple[Encoded, np.ndarray]](), 0
    for part, paths in found.items():
        rows = np.flatnonzero((first <= encoded.file) & (encoded.file < first + len(paths)))
        parts[part] = encoded.take(rows), targets[rows]
        first += len(paths)
    called = {part: f"{len(paths):,} {paths[0].suffix} file{'s' * (len(paths) > 1)}" for part, paths in found.items()}
    return Listing(folder, names, origins, parts, called, layout)


def labelled(
    labels: Sequence[str], classes: Sequence[str] | None, where: Callable[[int], str]
) -> tuple[list[str], np.ndarray]:
    """Classes by name, and the index of each sample's, (n,); UNKNOWN where a label is "".

    Args:
        labels: names, or numbers that count `classes`. classes: all there are, in order; None: those that occur, names by the
            alphabet, numbers by their value. where: what to call a sample.

    Raises:
        DataError: a label is none of the classes.
    """
    unique, place = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    said = [name for name in unique.tolist() if name]
    numbers = all(name.isdecimal() for name in said)
    known = list(classes or (sorted(said, key=int) if numbers else said))
    index = {"": UNKNOWN} | {name: number for number, name in enumerate(known)}
    if numbers and classes:
        index |= {name: int(name) for name in said if name not in index and int(name) < len(known)}
    if wrong := [name for name in said if name not in index]:
        sample = int(np.flatnonzero(unique[place] == wrong[0])[0])
        shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        raise DataError(
            f"{where(sample)} has the label {wrong[0]}, which is none of the {len(known)} classes: {shown}",
            "dataset.classes=[...] names all of them, in order",
        )
    return known, np.array([index[name] for name in unique.tolist()], np.int64)[place]
