"""Augmentation by the batch, on the training device: what a picture looks like is a function of (seed, index, view)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.base import runtime
from distill_cli.data.inputs import Inputs

GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as a signed number: the increment of splitmix64
MIXERS = ((30, -4658895280553007687), (27, -7723592293110705685))  # splitmix64's shifts and factors
DRAWN = 1 << 24  # how many different numbers are drawn: as many as float32 tells apart


@dataclass(frozen=True)
class Augmentation:
    """Random flips, crops and rotations of uint8 pictures; new pixels are black.

    Nothing is drawn from a generator: the same (seed, index, view) gives the same pixels whatever the order, the batch
    size or the number of workers, so a teacher's cached answer belongs to the pixels the student is shown.

    Args:
        flip: mirror left and right, one picture in two.
        crop: pixels of padding on every side, of which a window of the picture's size is cut.
        rotation: largest angle in degrees, either way; bilinear.
    """

    flip: bool = False
    crop: int = 0
    rotation: float = 0.0
    seed: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """All that it depends on, beside the picture and the view."""
        return asdict(self)

    def __bool__(self) -> bool:
        return bool(self.flip or self.crop or self.rotation)

    def __call__(self, raw: Inputs, index: Tensor, view: int) -> Tensor:
        """(N, C, H, W) uint8 and positions in the split (N,) -> the same pictures in this view; float when rotated."""
        assert isinstance(raw, Tensor)
        pixels = raw
        if self.flip:
            mirrored = draws(self.seed, index, view, "flip") < DRAWN // 2
            pixels = torch.where(mirrored.view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        if self.crop:
            down, right = (draws(self.seed, index, view, axis) for axis in ("down", "right"))
            places = 2 * self.crop + 1
            pixels = _window(pixels, self.crop, down * places // DRAWN, right * places // DRAWN)
        if self.rotation:
            share = draws(self.seed, index, view, "turn").float() / DRAWN
            pixels = _rotated(pixels.float(), (2 * share - 1) * math.radians(self.rotation))
        return pixels


def draws(seed: int, index: Tensor, view: int, use: str) -> Tensor:
    """A random whole number from 0 below 2^24 for each of `index` (N,) int64; the same on every device.

    splitmix64 (Steele, Lea & Flood, 2014, doi 10.1145/2660193.2660195), whose n-th number can be had without those
    before it, started from the other keys.
    """
    state = index * GOLDEN + runtime.seed_of("view", seed, view, use)
    for shift, factor in MIXERS:
        state = (state ^ _shifted(state, shift)) * factor  # products of int64 wrap, as they should
    return _shifted(state ^ _shifted(state, 31), 40)


def _shifted(state: Tensor, by: int) -> Tensor:
    """int64 shifted right with zeros, not with copies of the sign."""
    return state >> by & (1 << 64 - by) - 1


def _window(pixels: Tensor, padding: int, down: Tensor, right: Tensor) -> Tensor:
    """For each picture the window at (down, right) of its padded self."""
    count, _, height, width = pixels.shape
    windows = F.pad(pixels, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=pixels.device), :, down, right]


def _rotated(pixels: Tensor, angles: Tensor) -> Tensor:
    """Each picture turned by its angle in radians about its middle; a pixel is as wide as it is high."""
    count, _, height, width = pixels.shape
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    turn = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], 1).view(count, 2, 3)
    grid = F.affine_grid(turn, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, align_corners=False)
