"""Pictures at another size than they have, all at once or as they are read; cropping is for those who read files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.data.source import Source


@dataclass(frozen=True)
class Resized(Source):
    """Pictures of another source, each resized when it is read."""

    source: Source
    size: int | str

    def __len__(self) -> int:
        return len(self.source)

    def read(self, rows: Sequence[int]) -> Tensor:
        pictures = self.source.read(rows)
        assert isinstance(pictures, Tensor)
        return resized(pictures, self.size)

    def take(self, rows: np.ndarray) -> Resized:
        return replace(self, source=self.source.take(rows))

    def digest(self) -> str:
        return f"{self.source.digest()} {self.size}"


def resized(images: Tensor, size: int | str) -> Tensor:
    """uint8 pictures (N, C, H, W) at `size` pixels square by antialiased bilinear interpolation; "auto" leaves them."""
    if size == "auto" or tuple(images.shape[2:]) == (size, size):
        return images
    square = (int(size), int(size))
    parts = (F.interpolate(part.float(), square, mode="bilinear", antialias=True) for part in images.split(1024))
    return torch.cat([part.round().byte() for part in parts])
