"""A folder of pictures, one subfolder a class, or a pack of such: any sizes and modes, in memory where they fit, else read as
they go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from distill_cli.base.errors import DataError
from distill_cli.base.files import place
from distill_cli.data import Data
from distill_cli.data.encoded import Loose, together
from distill_cli.data.labels import UNKNOWN
from distill_cli.data.layout import Layout, class_folders
from distill_cli.data.listing import Listing, Reading, labelled, origins_of, read
from distill_cli.data.pack import Pack


def image_folder(
    root: str,
    size: int | str = "auto",
    range: list[float] | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    memory: float = 2.0,
    reader: Literal["pil", "fast"] = "pil",
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
        root: a folder, or a pack that was made of one.
        range: the values that are black and white in greys of more than 8 bits; None: the least and the largest in train.
        reader: what decodes; fast: torchvision, where it can, to nearly the same pixels.
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
    how = Reading(size, range, mean, std, val_fraction, split_seed, memory, workers, store, reader)
    return read(listing(root, only, classes, model_classes, labels, unlabeled), how, only)


def listing(
    root: str,
    only: str | None = None,
    classes: list[str] | None = None,
    model_classes: Callable[[], Sequence[str]] = tuple,
    labels: bool = True,
    unlabeled: str | None = None,
) -> Listing:
    """The pictures that `image_folder` reads; it takes the same, and raises the same."""
    folder = place(root, "dataset.root").absolute()
    if folder.is_file():
        found = _of_pack(folder, only, classes, model_classes)
    else:
        found = _of_folder(folder, only, classes, model_classes, labels)
    if unlabeled and only in (None, "train"):
        found = _more(found, place(unlabeled, "dataset.unlabeled").absolute())
    return found


def _of_folder(
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
    origins, needed = origins_of(places, only)
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
    loose = {part: (Loose(tuple(paths)), targets) for part, (paths, targets) in files.items()}
    called = {part: f"{home.name}/" for part, home in places.items()}
    return Listing(folder, names, origins, loose, called, layout)


def _of_pack(
    path: Path, only: str | None, classes: Sequence[str] | None, model_classes: Callable[[], Sequence[str]]
) -> Listing:
    pack = Pack.read(path)
    origins, needed = origins_of(pack.parts, only)
    if not pack.parts.keys() >= set(needed):
        raise DataError(f"dataset.root={path}: it holds {', '.join(pack.parts)}", f"it needs {' and '.join(needed)}")
    rows = {part: np.arange(*pack.parts[part][:2]) for part in needed}
    names, labels = list(pack.classes or classes or model_classes()), pack.labels
    if pack.classes and classes and list(classes) != names:
        names, moved = labelled(names, classes, lambda row: f"{path}: class {row}")
        labels = np.where(labels < 0, labels, moved[labels.clip(min=0)])
    said = [] if pack.size is None else [f"packed with shorter sides of {pack.size} pixels at most"]
    said += [f"no labels in {pack.parts[part][2]}" for part in needed if (labels[rows[part]] == UNKNOWN).all()]
    files = {part: (pack.encoded.take(rows[part]), labels[rows[part]]) for part in needed}
    called = {part: name for part, (_, _, name) in pack.parts.items()}
    layout = Layout({}, remarks=said)
    return Listing(path, names, origins, files, called, layout, pack.headers[np.concatenate(list(rows.values()))])


def _more(found: Listing, folder: Path) -> Listing:
    """The listing with all pictures below `folder` in train too, without labels."""
    if not folder.is_dir():
        raise DataError(f"dataset.unlabeled={folder}: there is no such folder")
    layout = found.layout
    if "train" in layout.parts:
        layout.unused = [name for name in layout.unused if folder != layout.parts["train"].parent / name]
    pictures, targets = found.files["train"]
    paths, unknown = layout.pictures(folder)
    layout.remarks.append(f"{len(paths):,} pictures of {folder.name}/ in train, without labels")
    train = together([pictures, Loose(tuple(paths))]), np.concatenate([targets, unknown])
    return replace(found, files={**found.files, "train": train}, headers=None)
