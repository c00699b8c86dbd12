"""A folder of pictures, one subfolder a class: any sizes and modes, in memory where they fit, else read as they go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill_cli.base import ui
from distill_cli.base.errors import ConfigError, DataError
from distill_cli.base.files import place
from distill_cli.data import Data, Part, PictureSpec, assemble
from distill_cli.data.assembling import alone, cut, within
from distill_cli.data.decoded import Decoded
from distill_cli.data.layout import HIDDEN, PARTS, Layout, class_folders, listed
from distill_cli.data.loading import Loader, blocks
from distill_cli.data.picture_files import Headers, Pictures, Range, header
from distill_cli.data.survey import doubts, remarks, repeated, shape, value_range
from distill_cli.runs.store import Array


def image_folder(
    root: str,
    size: int | str = "auto",
    range: list[float] | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    memory: float = 2.0,
    workers: int = 0,
    store: Path | None = None,
    only: str | None = None,
    classes: list[str] | None = None,
    model_classes: Callable[[], Sequence[str]] = tuple,
    labels: bool = True,
    unlabeled: str | None = None,
) -> Data:
    """`root`/{train,val,test}/<class>/<picture>; val or test may be missing. A part without class folders has no labels.

    With train, val and test all are used. Without test, val is the test set and validation is cut from train; without
    val, validation is cut from train. Pictures are resized (shorter side) and centre-cropped to `size` pixels square;
    all-grey data keep one channel. Parts that fit into `memory` GiB together are read once; the others as they go.
    What is not read, and what was chosen, is told in the note and in warnings.

    Args:
        range: the values that are black and white in greys of more than 8 bits; None: the least and the largest in train.
        store: where what was read is kept for other runs, if anywhere; see `decoded`.
        only: the one split to read; the others may be missing. Pictures to test on may lie in `root`/<class> too.
        classes: all there are, in order; None: those of the class folders, sorted.
        model_classes: gives those of a model that the data are for, where no folder tells them; where val or test do, they
            may be fewer.
        labels: whether the folders in train are classes. unlabeled: a folder of more pictures to train on, without labels.

    Raises:
        ConfigError: `range` is none.
        DataError: no such folder, no pictures, unlike classes in the parts, or a picture that cannot be read.
    """
    if range is not None and not (len(range) == 2 and range[0] < range[1]):
        raise ConfigError(f"range: should be [black, white], the smaller value first, got {range}")
    listing = _listing(place(root, "dataset.root").absolute(), only, classes, model_classes, labels)
    if unlabeled and only in (None, "train"):
        listing = _more(listing, place(unlabeled, "dataset.unlabeled").absolute())
    values = (range[0], range[1]) if range else None
    parts, values, said = _read(listing, size, values, memory, workers, store)
    names, origins = listing.classes, listing.origins
    cut_off = origins["val"] == "train"
    told = {"test": "test: ", "val": "validation: " + f"{val_fraction:.0%} of " * cut_off, "train": "train: "}
    note = "; ".join([*(told[split] + listing.called(split) for split in ([only] if only else ["test", "val"])), *said])
    if only is None:
        own_val, test = None if cut_off else parts["val"], parts[origins["test"]]
        data = assemble(parts["train"], own_val, test, names, val_fraction=val_fraction, split_seed=split_seed, mean=mean,
                        std=std, note=note, workers=workers)  # fmt: skip
    else:
        part = parts[origins[only]]
        if cut_off and only != "test":
            rest, val = cut(part, val_fraction, split_seed, names)
            part = val if only == "val" else rest
        data = alone(only, part, names, note, workers)
    assert isinstance(data.input, PictureSpec)
    return data.under(replace(data.input, range=values))


@dataclass(frozen=True)
class Listing:
    """The files of the parts that are read.

    Attributes:
        origins: the part that each split comes from. files: by part, the paths and the index of each one's class.
    """

    folder: Path
    layout: Layout
    origins: Mapping[str, str]
    classes: Sequence[str]
    files: Mapping[str, tuple[list[Path], np.ndarray]]

    def called(self, split: str) -> str:
        """The folder that a split comes from."""
        return f"{self.layout.parts[self.origins[split]].name}/"


def _listing(
    folder: Path,
    only: str | None,
    classes: Sequence[str] | None,
    model_classes: Callable[[], Sequence[str]],
    labels: bool,
) -> Listing:
    layout = Layout.of(folder) if folder.is_dir() else Layout({})
    places = layout.parts
    if only == "test" and not places and folder.is_dir() and class_folders(folder):
        places["test"] = folder
    test = "test" if "test" in places else "val"
    val = "val" if "val" in places and ("test" in places or "train" not in places) else "train"
    origins = {"train": "train", "val": val, "test": test}
    needed = [part for part in PARTS if part in ([origins[only]] if only else origins.values())]
    if not places.keys() >= set(needed):
        there = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else None
        what = "there is no such folder" if there is None else f"it holds {', '.join(there) or 'nothing'}"
        parts = "train/<class>/ and test/<class>/ (or val/<class>/)" if only is None else f"{only}/<class>/"
        raise DataError(f"dataset.root={folder}: {what}", f"it needs {parts} with pictures")
    found = {part: [] if part == "train" and not labels else list(class_folders(places[part])) for part in needed}
    origin = next((part for part in needed if found[part]), None)
    few = only is not None or not found[needed[0]]  # then there may be more classes than are here
    theirs = () if classes or found[needed[0]] else model_classes()
    names = list(classes or (found[origin] if origin and not set(found[origin]) & set(theirs) else theirs))
    if not names:
        raise DataError(
            f"{places[needed[0]]} holds no class folders, so its pictures have no labels, and nothing names the classes",
            "labels are one folder of pictures for each class; without, teacher.checkpoint=RUN or dataset.classes=[a,b] names them",
        )
    files = {
        part: layout.files(places[part], names, not few, origin or part)
        if found[part]
        else layout.pictures(places[part])
        for part in needed
    }
    for part in needed:
        if not found[part]:
            why = "it has no class folders" if labels or part != "train" else "dataset.labels=false"
            layout.remarks.append(f"no labels in {places[part].name}/: {why}")
    return Listing(folder, layout, origins, names, files)


def _more(listing: Listing, folder: Path) -> Listing:
    """The listing with all pictures below `folder` in train too, without labels."""
    if not folder.is_dir():
        raise DataError(f"dataset.unlabeled={folder}: there is no such folder")
    layout = listing.layout
    layout.unused = [name for name in layout.unused if folder != layout.parts["train"].parent / name]
    paths, targets = listing.files["train"]
    more, unknown = layout.pictures(folder)
    layout.remarks.append(f"{len(more):,} pictures of {folder.name}/ in train, without labels")
    return replace(listing, files={**listing.files, "train": (paths + more, np.concatenate([targets, unknown]))})


def _read(
    listing: Listing, size: int | str, values: Range | None, memory: float, workers: int, store: Path | None
) -> tuple[dict[str, Part], Range | None, list[str]]:
    """The parts, the range of their values, and what was chosen in reading them; warnings tell what may be wrong."""
    files, layout = listing.files, listing.layout
    everything, rows = list[Path](), dict[str, slice]()
    for name, (paths, _) in files.items():
        rows[name] = slice(len(everything), len(everything) + len(paths))
        everything += paths
    kept = Decoded(store, listing.folder)
    table = Array((len(everything), len(Headers._fields)), "<f8")
    headers = Headers(*kept.array("headers", everything, table, lambda: _headers(everything)).T)
    train = headers.at(rows.get("train", slice(None)))
    channels, pixels = shape(headers, train, size)
    if values is None and "train" in rows:
        values = value_range(train)
    kept = replace(kept, range=values)
    held = within(memory, {name: len(labels) * channels * pixels**2 for name, (_, labels) in files.items()})
    parts = {}
    for name, (paths, labels) in files.items():
        parts[name] = Part(pictures := Pictures(tuple(paths), channels, (pixels, pixels), values), labels)
        if name in held:
            wanted = Array((len(paths), channels, pixels, pixels), "|u1")
            read = partial(_pixels, pictures, workers)
            parts[name] = Part(torch.from_numpy(kept.array(name, paths, wanted, read)), labels)
    labels = np.concatenate([labels for _, labels in files.values()])
    said = layout.remarks + remarks(headers, train, size == "auto", values)
    if streamed := [name for name in files if name not in held]:
        said.append(f"{', '.join(streamed)} read as needed")
    left_out = ", ".join([*layout.unused, *filter(None, [listed(layout.left_out)])])
    warnings = doubts(headers, everything, values)
    if left_out and (layout.unused or layout.left_out.keys() - {HIDDEN}):
        warnings.append(f"not read: {left_out}")
    elif left_out:
        said.append(f"not read: {left_out}")
    if again := repeated(headers, everything, rows, labels, listing.origins["val"] == "train"):
        warnings.append(f"the same pictures: {again}")
    for warning in warnings:
        ui.warn(f"{listing.folder.name}: {warning}")
    return parts, values, said


def _headers(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """The header of each picture, as (n, fields) float64, block by block."""
    for rows in blocks(np.arange(len(paths))):
        yield np.array([header(paths[row]) for row in rows], dtype="<f8")


def _pixels(pictures: Pictures, workers: int) -> Iterator[np.ndarray]:
    """All the pictures, as (n, channels, pixels, pixels) uint8, block by block."""
    for block in Loader(pictures, blocks(np.arange(len(pictures))), workers):
        assert isinstance(block, Tensor)
        yield block.numpy()
