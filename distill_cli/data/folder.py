"""A folder of pictures, one subfolder a class: any sizes and modes, in memory where they fit, else read as they go."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from distill_cli.base import ui
from distill_cli.base.errors import DataError
from distill_cli.data import Data, Part, assemble, within
from distill_cli.data import inputs as of_inputs
from distill_cli.data.loading import Loader

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
DEEP_GREY_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}
GREY_MODES = {"1", "L", "LA", "I", "F", *DEEP_GREY_MODES}
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what PIL raises for damaged files
LARGEST_AUTO_SIZE = 224
READ_AT_ONCE = 256


def image_folder(
    root: str,
    size: int | str = "auto",
    mean: list[float] | None = None,
    std: list[float] | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    memory: float = 2.0,
    workers: int = 0,
) -> Data:
    """`root`/{train,val,test}/<class>/<picture>; val or test may be missing.

    With train, val and test all are used. Without test, val is the test set and validation is cut from train; without
    val, validation is cut from train. Pictures are resized (shorter side) and centre-cropped to `size` pixels square;
    all-grey data keep one channel. Parts that fit into `memory` GiB together are read once; the others as they go.

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
    channels, pixels = _shape([path for paths, _ in files.values() for path in paths], len(files["train"][0]), size)
    kept = within(memory, {name: len(labels) * channels * pixels**2 for name, (_, labels) in files.items()})
    parts = {}
    for name, (paths, labels) in files.items():
        pictures = Pictures(tuple(paths), channels, pixels)
        parts[name] = Part(_read(pictures, workers, name) if name in kept else pictures, labels)
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
    labels: list[int] = []
    for label, name in enumerate(classes):
        pictures = sorted(
            p
            for p in (folder / name).rglob("*")
            if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
        )
        if not pictures:
            raise DataError(f"{folder / name} holds no pictures", f"known endings: {' '.join(sorted(SUFFIXES))}")
        paths += pictures
        labels += [label] * len(pictures)
    return paths, np.asarray(labels)


def _shape(paths: Sequence[Path], num_train: int, size: int | str) -> tuple[int, int]:
    """Channels (1 when every picture is grey, else 3) and side in pixels, from the files' headers."""
    sizes: Counter[int] = Counter()
    grey = True
    for number, path in enumerate(ui.progress(paths, "reading headers")):
        with _opened(path) as picture:
            grey = grey and picture.mode in GREY_MODES
            if number < num_train:
                sizes[min(picture.size)] += 1
    pixels = min(sizes.most_common(1)[0][0], LARGEST_AUTO_SIZE) if size == "auto" else int(size)
    return 1 if grey else 3, pixels


def _read(pictures: Pictures, workers: int, name: str) -> Tensor:
    """All the pictures as one tensor."""
    batches = [part.tolist() for part in torch.arange(len(pictures)).split(READ_AT_ONCE)]
    read = of_inputs.joined(list(ui.progress(Loader(pictures, batches, workers), f"reading {name}")))
    assert isinstance(read, Tensor)
    return read


@dataclass(frozen=True)
class Pictures:
    """Files of pictures, each read when it is asked for as uint8 (channels, pixels, pixels)."""

    paths: tuple[Path, ...]
    channels: int
    pixels: int
    held = None

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, rows: Sequence[int]) -> Tensor:
        return torch.stack([self.picture(row) for row in rows])

    def picture(self, row: int) -> Tensor:
        """The picture in one file.

        Raises:
            DataError: it cannot be read.
        """
        path = self.paths[row]
        try:
            with _opened(path) as opened:
                picture = _eight_bit(opened, "L" if self.channels == 1 else "RGB")
        except UNREADABLE as error:
            raise DataError(f"cannot read {path}: {error}") from error
        if picture.size != (self.pixels, self.pixels):
            picture = ImageOps.fit(picture, (self.pixels, self.pixels), Image.Resampling.BILINEAR)
        array = np.array(picture)
        return torch.from_numpy(array[None] if self.channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1)))

    def name_of(self, row: int) -> str:
        return str(self.paths[row])

    def take(self, rows: np.ndarray) -> Pictures:
        return replace(self, paths=tuple(self.paths[row] for row in rows))

    def digest(self) -> str:
        """Names, sizes and times of change: the content of what does not fit in memory is not read for it."""
        content = hashlib.sha256(f"{self.channels} {self.pixels}".encode())
        for path in self.paths:
            stat = path.stat()
            content.update(f"{path.parent.name}/{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return content.hexdigest()


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except UNREADABLE as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _eight_bit(picture: Image.Image, mode: str) -> Image.Image:
    """Any mode as 8-bit grey or RGB; 16-bit greys keep their upper byte, transparency is shown on white."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in {"I", "F", *DEEP_GREY_MODES}:
        values = np.asarray(picture, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("a pixel is not a finite number")
        deep = picture.mode in DEEP_GREY_MODES or values.max() > 255  # PIL opens some 16-bit files as I
        picture = Image.fromarray(np.clip(values / (257 if deep else 1), 0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(mode)
