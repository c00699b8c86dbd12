"""Picture files read as uint8 pixels: any format and mode that PIL knows; which files belong together is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from distill_cli.base.errors import DataError
from distill_cli.data.source import Source, sha256

DEEP_GREY_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}
GREY_MODES = {"1", "L", "LA", "I", "F", *DEEP_GREY_MODES}
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what PIL raises for damaged files


@dataclass(frozen=True)
class Pictures(Source):
    """Files of pictures, each read when it is asked for as uint8 (channels, pixels, pixels)."""

    paths: tuple[Path, ...]
    channels: int
    pixels: int

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, rows: Sequence[int]) -> Tensor:
        return torch.stack([self.picture(row) for row in rows])

    def picture(self, row: int) -> Tensor:
        """The picture in one file.

        Raises:
            DataError: it cannot be read.
        """
        with _opened(self.paths[row]) as file:
            picture = _eight_bit(file, "L" if self.channels == 1 else "RGB")
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
        stats = ((path, path.stat()) for path in self.paths)
        lines = (f"{p.parent.name}/{p.name} {stat.st_size} {stat.st_mtime_ns}\n".encode() for p, stat in stats)
        return sha256([f"{self.channels} {self.pixels}".encode(), *lines])


def header(path: Path) -> tuple[bool, int]:
    """Whether a picture is grey, and its shorter side in pixels; the picture itself is not decoded.

    Raises:
        DataError: it cannot be read.
    """
    with _opened(path) as picture:
        return picture.mode in GREY_MODES, min(picture.size)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture of which only the header is read yet, and what goes wrong with it said of its file."""
    try:
        with Image.open(path) as picture:
            yield picture
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
