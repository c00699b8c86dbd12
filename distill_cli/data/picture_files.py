"""Encoded pictures read as uint8 pixels: any format and mode that PIL knows; where their bytes lie is elsewhere."""

from __future__ import annotations

import io
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from distill_cli.base.errors import DataError, DistillError
from distill_cli.data import fast
from distill_cli.data.encoded import Encoded
from distill_cli.data.loading import Loader, blocks
from distill_cli.data.source import Source, sha256

DEEP_MODES = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}  # greys of more than 8 bits
GREY_MODES = {"1", "L", "LA", *DEEP_MODES}
TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_90}  # fmt: skip  # what puts a picture upright, by its EXIF orientation
TAIL = 1024  # bytes at the end of a file, by which files that are not the same are told apart quickly

Range = tuple[float, float]


class Headers(NamedTuple):
    """What is known of pictures before they are read, each a column (n,) float64; yes is 1."""

    grey: np.ndarray
    short: np.ndarray  # the shorter side in pixels
    long: np.ndarray
    low: np.ndarray  # the smallest value of a grey of more than 8 bits; of other pictures NaN
    high: np.ndarray
    halved: np.ndarray  # 16 bits a channel, of which PIL gives the upper 8: colour, or grey with transparency
    clear: np.ndarray  # with transparency
    several: np.ndarray  # an animation, or several pages
    odd: np.ndarray  # PIL complains of the metadata
    bytes: np.ndarray  # of the file
    tail: np.ndarray  # CRC-32 of the file's end

    def at(self, rows: np.ndarray) -> Headers:
        """Those of some of the pictures."""
        return Headers(*(column[rows] for column in self))


@dataclass(frozen=True)
class Pictures(Source):
    """Pictures, each decoded when it is asked for as uint8 (channels, height, width): made to cover that, then cropped.

    Args:
        size: height and width.
        range: the values that are black and white in greys of more than 8 bits; None: there are no such pictures.
        reader: what decodes them: pil, or fast where it can. unseen: whether some were not looked at before: one in colour
            among greys is then refused.
    """

    encoded: Encoded
    channels: int
    size: tuple[int, int]
    range: Range | None = None
    reader: str = "pil"
    unseen: bool = False

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, row: int) -> Tensor:
        """A picture.

        Raises:
            DataError: it cannot be read.
        """
        if self.reader == "fast":
            picture = fast.decoded(self.encoded, row, self.channels, self.size)
            if picture is not None:
                return picture
        with _opened(self.encoded.opened(row), self.encoded, row) as (file, _):
            if self.unseen and self.channels == 1 and file.mode not in GREY_MODES:
                raise DataError(
                    f"{self.encoded.name_of(row)} is in colour, and all pictures that were looked at are grey",
                    "distill data pack looks at every picture",
                )
            upright = _eight_bit(file, "L" if self.channels == 1 else "RGB", self.range, self.encoded, row)
            height, width = self.size
            if upright.size != (width, height):
                upright = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
        array = np.array(upright)
        return torch.from_numpy(array[None] if self.channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1)))

    def read(self, rows: Sequence[int]) -> Tensor:
        return torch.stack([self[row] for row in rows])

    def name_of(self, row: int) -> str:
        return self.encoded.name_of(row)

    def take(self, rows: np.ndarray) -> Pictures:
        return replace(self, encoded=self.encoded.take(rows))

    def digest(self) -> str:
        """Of what marks the pictures: the content of what does not fit in memory is not read for it."""
        height, width = self.size
        side = f"{height}" if width == height else f"{height}x{width}"
        how = [
            self.channels,
            side,
            *([self.range] if self.range else []),
            *([self.reader] if self.reader != "pil" else []),
        ]
        return sha256([" ".join(map(str, how)).encode(), *self.encoded.marks()])


def pixels_of(source: Source, workers: int, there: int = 0) -> Iterator[np.ndarray]:
    """All that a source reads, block by block, after so many blocks."""
    for block in Loader(source, blocks(np.arange(len(source)))[there:], workers):
        assert isinstance(block, Tensor)
        yield block.numpy()


def header(encoded: Encoded, row: int, content: bytes | None = None) -> tuple[float, ...]:
    """A row of `Headers`: of a picture's pixels only those of a deep grey are read, for their range.

    Args:
        content: the picture's bytes, where they are others by now.

    Raises:
        DataError: it cannot be read.
    """
    opened = encoded.opened(row) if content is None else io.BytesIO(content)
    with _opened(opened, encoded, row) as (picture, complaints):
        halved = ";16" in str(getattr(picture, "tile", "")) and picture.mode not in DEEP_MODES
        _orientation(picture)
        several = getattr(picture, "is_animated", False) and picture.format != "MPO"  # whose others are previews
        values = _values(picture) if picture.mode in DEEP_MODES else np.full(1, np.nan)
        with opened.open("rb") if isinstance(opened, Path) else nullcontext(opened) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            tail = zlib.crc32(file.read())
        return (picture.mode in GREY_MODES, min(picture.size), max(picture.size), values.min(), values.max(), halved,
                _clear(picture), several, bool(complaints), size, tail)  # fmt: skip


def smaller(encoded: Encoded, row: int, size: int) -> bytes | None:
    """A picture whose shorter side is more than `size` pixels, made so small and encoded again: as JPEG of little loss where it
    was one, else as PNG; None: it is to stay as it is, as a grey of more than 8 bits does.

    Raises:
        DataError: it cannot be read.
    """
    with _opened(encoded.opened(row), encoded, row) as (file, _):
        if min(file.size) <= size or file.mode in DEEP_MODES:
            return None
        kind = "JPEG" if file.format in ("JPEG", "MPO") else "PNG"
        picture = _eight_bit(file, "L" if file.mode in GREY_MODES else "RGB", None, encoded, row)
        scale = size / min(picture.size)
        sides = (max(size, round(picture.width * scale)), max(size, round(picture.height * scale)))
        made = io.BytesIO()
        picture.resize(sides, Image.Resampling.BILINEAR).save(made, kind, quality=95, subsampling=0)
        return made.getvalue()


@contextmanager
def _opened(
    file: Path | BinaryIO, encoded: Encoded, row: int
) -> Iterator[tuple[Image.Image, list[warnings.WarningMessage]]]:
    """A picture of which only the header is read yet, and what PIL complains of as it is read; whatever it or a library
    under it raises is said of the file.
    """
    try:
        with warnings.catch_warnings(record=True) as complaints:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large; too large is an error
            with Image.open(file) as picture:
                yield picture, complaints
    except DistillError:
        raise
    except Exception as error:
        raise DataError(f"cannot read {encoded.name_of(row)}: {str(error) or type(error).__name__}") from error


def _orientation(picture: Image.Image) -> object:
    """The EXIF orientation of a picture; 1, upright, where its metadata cannot be read: the picture itself may be sound."""
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:
        warnings.warn(f"EXIF: {error}", stacklevel=2)
        return 1


def _values(picture: Image.Image) -> np.ndarray:
    """The values of a deep grey, (H, W) float64."""
    values = np.asarray(picture, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a pixel is not a finite number")
    return values


def _clear(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info


def _eight_bit(picture: Image.Image, mode: str, value_range: Range | None, encoded: Encoded, row: int) -> Image.Image:
    """Any mode as 8-bit grey or RGB, put upright; deep greys by their range, transparency on white."""
    picture.load()
    orientation = _orientation(picture)
    if picture.mode in DEEP_MODES:
        if value_range is None:
            raise DataError(
                f"{encoded.name_of(row)} has more than 8 bits a pixel, and no picture of train has: "
                "nothing says which values are black and white",
                "dataset.range=[0,4095] says so",
            )
        low, high = value_range
        values = np.rint((_values(picture) - low) * (255 / (high - low)))
        picture = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if isinstance(orientation, int) and orientation in TURNS:
        picture = picture.transpose(TURNS[orientation])
    if _clear(picture):
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(mode)
