"""A folder of pictures, one subfolder a class: any sizes and modes, in memory where they fit, else read as they go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill_cli.base.errors import DataError
from distill_cli.data import Data, Part, assemble
from distill_cli.data.assembling import within
from distill_cli.data.decoded import Decoded
from distill_cli.data.loading import Loader, blocks
from distill_cli.data.picture_files import Pictures, header
from distill_cli.runs.store import Array

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
LARGEST_AUTO_SIZE = 224


def image_folder(
    root: str,
    size: int | str = "auto",
    mean: list[float] | None = None,
    std: list[float] | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    memory: float = 2.0,
    workers: int = 0,
    store: Path | None = None,
) -> Data:
    """`root`/{train,val,test}/<class>/<picture>; val or test may be missing.

    With train, val and test all are used. Without test, val is the test set and validation is cut from train; without
    val, validation is cut from train. Pictures are resized (shorter side) and centre-cropped to `size` pixels square;
    all-grey data keep one channel. Parts that fit into `memory` GiB together are read once; the others as they go.

    Args:
        store: where what was read is kept for other runs, if anywhere; see `decoded`.

    Raises:
        DataError: no such folder, no pictures, unlike classes in the parts, or a picture that cannot be read.
    """
    folder = Path(root).expanduser().absolute()
    found = {name: folder / name for name in ("train", "val", "test") if (folder / name).is_dir()}
    if "train" not in found or len(found) < 2:
        there = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else None
        what = "there is no such folder" if there is None else f"it holds {', '.join(there) or 'nothing'}"
        raise DataError(
            f"dataset.root={folder}: {what}",
            "it needs train/<class>/ and test/<class>/ (or val/<class>/) with pictures",
        )
    classes = sorted(_class_folders(found["train"]))
    files = {name: _files(path, classes) for name, path in found.items()}
    everything = [path for paths, _ in files.values() for path in paths]
    kept = Decoded(store, folder)
    headers = kept.array("headers", everything, Array((len(everything), 2), "<i4"), lambda: _headers(everything))
    channels, pixels = _shape(headers, len(files["train"][0]), size)
    held = within(memory, {name: len(labels) * channels * pixels**2 for name, (_, labels) in files.items()})
    parts = {}
    for name, (paths, labels) in files.items():
        parts[name] = Part(pictures := Pictures(tuple(paths), channels, pixels), labels)
        if name in held:
            shape = Array((len(paths), channels, pixels, pixels), "|u1")
            read = partial(_pixels, pictures, workers)
            parts[name] = Part(torch.from_numpy(kept.array(name, paths, shape, read)), labels)
    test_from = "test" if "test" in parts else "val"
    own_val = parts.get("val") if test_from == "test" else None
    return assemble(
        parts["train"],
        own_val,
        parts[test_from],
        classes,
        val_fraction=val_fraction,
        split_seed=split_seed,
        mean=mean,
        std=std,
        note=f"test: {test_from}/; validation: " + ("val/" if own_val else f"{val_fraction:.0%} of train/"),
        workers=workers,
    )


def _class_folders(folder: Path) -> set[str]:
    """Names of the subfolders; hidden ones are some other program's."""
    return {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")}


def _files(folder: Path, classes: Sequence[str]) -> tuple[list[Path], np.ndarray]:
    """Every picture below `folder` in a fixed order, with its class's index."""
    here = _class_folders(folder)
    if not classes:
        raise DataError(f"{folder} holds no class folders", "it needs one subfolder of pictures for each class")
    for name in sorted(here ^ set(classes)):
        only, missing = ("train", folder.name) if name in classes else (folder.name, "train")
        raise DataError(
            f"class {name!r} is in {only}/ only: {missing}/ has no folder for it", "the parts need the same classes"
        )
    paths: list[Path] = []
    counts = []
    for name in classes:
        below = (p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        pictures = sorted(path for path in below if path.is_file())
        if not pictures:
            raise DataError(f"{folder / name} holds no pictures", f"known endings: {' '.join(sorted(SUFFIXES))}")
        paths += pictures
        counts.append(len(pictures))
    return paths, np.repeat(np.arange(len(classes)), counts)


def _shape(headers: np.ndarray, num_train: int, size: int | str) -> tuple[int, int]:
    """Channels (1 when every picture is grey, else 3) and side in pixels, from (grey, shorter side) of every picture,
    those of train first.
    """
    sides = Counter(headers[:num_train, 1].tolist())
    pixels = min(sides.most_common(1)[0][0], LARGEST_AUTO_SIZE) if size == "auto" else int(size)
    return 1 if headers[:, 0].all() else 3, pixels


def _headers(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """(grey, shorter side) of each picture, as (n, 2) int32, block by block."""
    for rows in blocks(np.arange(len(paths))):
        yield np.array([header(paths[row]) for row in rows], dtype="<i4")


def _pixels(pictures: Pictures, workers: int) -> Iterator[np.ndarray]:
    """All the pictures, as (n, channels, pixels, pixels) uint8, block by block."""
    for block in Loader(pictures, blocks(np.arange(len(pictures))), workers):
        assert isinstance(block, Tensor)
        yield block.numpy()
