"""Proves that a picture's augmented view depends on seed, index and view alone, and that it is what the settings say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_pictures, pictures_in
from torch import Tensor

from distill_cli.base.runtime import sample_order, seed_of
from distill_cli.config.records import read as record
from distill_cli.config.schema import Dataset
from distill_cli.data import Batch, Data, Split, load
from distill_cli.data.augmentation import DRAWN, Augmentation, _rotated, draws

MANY = 100_000
EVERYTHING = Augmentation(flip=True, crop=2, rotation=20, seed=5)
KINDS = {
    "flip": Augmentation(flip=True),
    "crop": Augmentation(crop=3),
    "rotation": Augmentation(rotation=30),
    "all": EVERYTHING,
}


def noise(count: int, channels: int = 3, height: int = 9, width: int = 7, seed: int = 0) -> Tensor:
    draw = np.random.default_rng(seed)
    return torch.from_numpy(draw.integers(1, 256, (count, channels, height, width), dtype=np.uint8))


# --- draws

WHOLE = 2**64
STEP = 0x9E3779B97F4A7C15


def splitmix64(state: int) -> int:
    """What splitmix64 makes of its state, in whole numbers of any size (https://prng.di.unimi.it/splitmix64.c)."""
    mixed = state % WHOLE
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % WHOLE
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % WHOLE
    return mixed ^ mixed >> 31


def shares(seed: int = 0, view: int = 0, use: str = "flip", count: int = MANY) -> np.ndarray:
    """The draws of the first `count` indices as numbers from 0 below 1."""
    return draws(seed, torch.arange(count), view, use).double().numpy() / DRAWN


def test_draws_are_the_upper_bits_of_splitmix64() -> None:
    # The generator's published first numbers after the seed 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64").
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [splitmix64(1234567 + n * STEP) for n in range(1, 6)] == published

    index = torch.tensor([*range(500), 2**31 - 1, 2**31, 2**40 + 3, 2**62 + 11])
    for seed, view, use in ((0, 0, "flip"), (7, 3, "turn"), (2**40, 1000, "down")):
        start = seed_of("view", seed, view, use)
        expected = [splitmix64(int(number) * STEP + start) >> 40 for number in index]
        assert draws(seed, index, view, use).tolist() == expected


def test_draws_are_spread_evenly() -> None:
    values = shares()
    assert values.min() >= 0 and values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / MANY))
    assert values.var() == pytest.approx(1 / 12, rel=0.02)
    counts, _ = np.histogram(values, bins=100, range=(0, 1))
    # Chi-squared with 99 degrees of freedom: 60 to 150 holds but once in a thousand times.
    assert 60 < ((counts - MANY / 100) ** 2 / (MANY / 100)).sum() < 150
    bits = (values * DRAWN).astype(np.int64)[:, None] >> np.arange(24) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / math.sqrt(MANY)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (shares()[:-1], shares()[1:]),
        (shares()[:-2], shares()[2:]),
        (shares(), shares(view=1)),
        (shares()[1:], shares(view=1)[:-1]),
        (shares(view=1), shares(view=2)),
        (shares(), shares(seed=1)),
        (shares()[1:], shares(seed=1)[:-1]),
        (shares(use="flip"), shares(use="turn")),
        (shares(use="down"), shares(use="right")),
    ],
    ids=["index", "index+2", "view", "view-and-index", "views", "seed", "seed-and-index", "use", "axes"],
)
def test_draws_of_different_keys_have_nothing_to_do_with_each_other(one: np.ndarray, other: np.ndarray) -> None:
    assert abs(np.corrcoef(one, other)[0, 1]) < 4.5 / math.sqrt(MANY)
    # Equal numbers, of 2^24, come up by chance: MANY / 2^24 of them are expected.
    assert (one == other).sum() < 5


# --- one picture, whatever it comes with


def together(augmentation: Augmentation, pixels: Tensor, order: Tensor, size: int, view: int) -> Tensor:
    """All pictures in this view, augmented `size` at a time in this order, and put back where they were."""
    parts = [augmentation(pixels[index], index, view) for index in order.split(size)]
    return torch.cat(parts)[order.argsort()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_looks_the_same_whatever_batch_and_order_it_comes_in(kind: str) -> None:
    pixels, rows = noise(50), torch.arange(50)
    expected = KINDS[kind](pixels, rows, 3)
    assert not torch.equal(expected.float(), pixels.float())
    for size in (1, 7, 32, 50):
        for order in (rows, rows.flip(0), sample_order(50, 0, 1)):
            assert torch.equal(together(KINDS[kind], pixels, order, size, 3), expected), (size, order[:5])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changed", ["seed", "index", "view"])
def test_another_seed_index_or_view_shows_another_picture(kind: str, changed: str) -> None:
    augmentation, pixels, index, view = KINDS[kind], noise(1).expand(200, -1, -1, -1), torch.arange(200), 0
    expected = augmentation(pixels, index, view)
    if changed == "seed":
        augmentation = replace(augmentation, seed=augmentation.seed + 1)
    elif changed == "view":
        view = 1
    else:
        index = index + 1
    different = (augmentation(pixels, index, view) != expected).flatten(1).any(1).double().mean().item()
    # A flip is the same one time in two, a window of crop=3 one time in 49.
    assert different > (0.35 if kind == "flip" else 0.9)


def the_same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(getattr(one, name), getattr(other, name))
        for one, other in zip(ours, theirs, strict=True)
        for name in ("inputs", "targets", "index")
    )


def folder(root: Path, workers: int = 0, **keys: Any) -> Data:
    """The pictures in `root`, augmented in every way unless the keys say otherwise."""
    every = {"flip": True, "crop": 2, "rotation": 20}
    node = {"_target_": "distill_cli.data.folder.image_folder", "root": str(root), "augmentation": every, **keys}
    return load(record(Dataset, node), workers)


def test_pictures_held_and_streamed_by_any_number_of_workers_look_the_same(tmp_path: Path) -> None:
    root = make_pictures(tmp_path)
    held = folder(root, views=2, view_seed=9)
    order = sample_order(len(held.train), 0, 1)
    expected = {view: list(held.train.batches(4, order, view)) for view in (0, 1)}
    assert held.train.source.held is not None
    assert not the_same(expected[0], expected[1])
    for workers in (0, 2):
        streamed = folder(root, workers, views=2, view_seed=9, memory=0)
        assert streamed.train.source.held is None
        for view, batches in expected.items():
            assert the_same(list(streamed.train.batches(4, order, view)), batches), (workers, view)


def test_a_batch_says_which_view_it_shows(tmp_path: Path) -> None:
    split = folder(make_pictures(tmp_path), views=3).train
    assert {batch.view for batch in split.batches(4, view=2)} == {2}
    assert {part.view for batch in split.batches(4, view=2) for part in batch.parts(2)} == {2}


# --- what flips, crops and rotations do


def test_a_flip_mirrors_half_of_the_pictures_and_changes_nothing_else() -> None:
    pixels = noise(10_000, 1, 3, 4)
    found = Augmentation(flip=True)(pixels, torch.arange(10_000), 0)
    mirrored = (found == pixels.flip(-1)).flatten(1).all(1)
    kept = (found == pixels).flatten(1).all(1)
    assert found.dtype == torch.uint8
    assert (mirrored ^ kept).all()
    assert mirrored.double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 100)


def test_a_crop_is_a_window_of_the_padded_picture_and_every_window_occurs() -> None:
    pixels, count, padding = noise(2000, 2, 5, 6), 2000, 2
    found = Augmentation(crop=padding)(pixels, torch.arange(count), 1).numpy()
    padded = np.pad(pixels.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = {
        (down, right): (padded[:, :, down : down + 5, right : right + 6] == found).all((1, 2, 3))
        for down in range(5)
        for right in range(5)
    }
    assert (sum(hits.astype(int) for hits in windows.values()) == 1).all()  # each is one window and no other
    counts = {place: int(hits.sum()) for place, hits in windows.items()}
    # 80 of each are expected, with a deviation of 9.
    assert min(counts.values()) > 40 and max(counts.values()) < 125


def test_a_crop_wider_than_the_picture_shows_black_where_nothing_is_left() -> None:
    pixels = noise(300, 1, 2, 2)
    found = Augmentation(crop=4)(pixels, torch.arange(300), 0)
    black = (found == 0).flatten(1).all(1).double().mean().item()
    assert found.shape == pixels.shape
    # Of nine places along each side three leave something.
    assert black == pytest.approx(1 - (3 / 9) ** 2, abs=0.08)


@pytest.mark.parametrize("side", [8, 9])
def test_a_quarter_turn_moves_every_pixel_to_its_place(side: int) -> None:
    pixels = noise(4, 3, side, side).float()
    for turns, angle in ((1, math.pi / 2), (2, math.pi), (3, -math.pi / 2)):
        found = _rotated(pixels, torch.full((4,), angle))
        candidates = [torch.rot90(pixels, turns, (2, 3)), torch.rot90(pixels, -turns, (2, 3))]
        assert min((found - turned).abs().max().item() for turned in candidates) < 0.01


def test_opposite_turns_go_opposite_ways() -> None:
    pixels = noise(1, 1, 8, 8).float()
    left, right = (_rotated(pixels, torch.tensor([angle])) for angle in (math.pi / 2, -math.pi / 2))
    assert torch.allclose(left, right.flip(2, 3), atol=0.01)
    assert not torch.allclose(left, right, atol=10)


def test_no_turn_leaves_pictures_as_they_are() -> None:
    for height, width in ((8, 8), (5, 12)):
        pixels = noise(3, 2, height, width).float()
        assert torch.allclose(_rotated(pixels, torch.zeros(3)), pixels, atol=1e-2)


def test_a_turned_wide_picture_keeps_its_pixels_square() -> None:
    # A quarter turn of 8 x 14 pixels: the middle square turns in itself, what is left and right of it comes from
    # above and below the picture, where there is nothing.
    pixels = noise(2, 1, 8, 14).float()
    found = _rotated(pixels, torch.full((2,), math.pi / 2))
    middle = pixels[..., 3:11]
    candidates = [torch.rot90(middle, turns, (2, 3)) for turns in (1, -1)]
    assert min((found[..., 3:11] - turned).abs().max().item() for turned in candidates) < 0.01
    assert found[..., :3].abs().max().item() < 0.01
    assert found[..., 11:].abs().max().item() < 0.01


def turned_by_hand(picture: np.ndarray, angle: float) -> np.ndarray:
    """(H, W) turned about its middle, pixel by pixel: each shows what lies at its own place turned by `angle`."""
    height, width = picture.shape
    padded = np.pad(picture, 1)  # black around
    turned = np.zeros_like(picture)
    for y in range(height):
        for x in range(width):
            across, down = x - (width - 1) / 2, y - (height - 1) / 2
            left = math.cos(angle) * across - math.sin(angle) * down + (width - 1) / 2
            top = math.sin(angle) * across + math.cos(angle) * down + (height - 1) / 2
            column, row = math.floor(left), math.floor(top)
            for i, j in ((row, column), (row, column + 1), (row + 1, column), (row + 1, column + 1)):
                if -1 <= i <= height and -1 <= j <= width:
                    share = (1 - abs(top - i)) * (1 - abs(left - j))
                    turned[y, x] += share * padded[i + 1, j + 1]
    return turned


@pytest.mark.parametrize("degrees", [7.0, -25.0, 60.0, 135.0])
@pytest.mark.parametrize("size", [(7, 7), (6, 11)])
def test_any_turn_is_bilinear_about_the_middle(degrees: float, size: tuple[int, int]) -> None:
    pixels = noise(1, 1, *size).float()
    found = _rotated(pixels, torch.tensor([math.radians(degrees)]))[0, 0].double().numpy()
    expected = turned_by_hand(pixels[0, 0].double().numpy(), math.radians(degrees))
    assert np.abs(found - expected).max() < 0.01


def test_turns_are_spread_from_the_largest_angle_one_way_to_the_other() -> None:
    pixels = torch.zeros(1000, 1, 33, 33, dtype=torch.uint8)
    pixels[:, :, 15:18, 28:31] = 255  # a spot straight to the right of the middle
    found = Augmentation(rotation=15)(pixels, torch.arange(1000), 0).double()
    places = torch.arange(33).double() - 16
    right, down = ((found * axis).sum((1, 2, 3)) for axis in (places.view(1, -1), places.view(-1, 1)))
    angles = torch.atan2(down, right).rad2deg()
    assert angles.abs().max().item() < 15.5
    assert angles.min().item() < -14 and angles.max().item() > 14
    assert angles.mean().item() == pytest.approx(0, abs=4 * 15 / math.sqrt(3 * 1000))
    assert angles.std().item() == pytest.approx(15 / math.sqrt(3), rel=0.1)


# --- what is shown when


def test_pictures_are_shown_as_they_are_where_no_view_is_asked_for(tmp_path: Path) -> None:
    root = make_pictures(tmp_path)
    augmented, plain = folder(root).train, folder(root, augmentation=None).train
    assert the_same(list(augmented.batches(4)), list(plain.batches(4)))
    assert not the_same(list(augmented.batches(4, view=0)), list(plain.batches(4)))


@pytest.mark.parametrize(
    "augmentation", [None, {}, {"flip": False, "crop": 0, "rotation": 0}, {"flip": False, "crop": 0, "rotation": 0.0}]
)
def test_without_augmentation_every_view_shows_the_pictures_as_they_are(tmp_path: Path, augmentation: Any) -> None:
    data = folder(make_pictures(tmp_path), augmentation=augmentation, views=3, view_seed=4)
    order = sample_order(len(data.train), 0, 1)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1).double() for values in (data.input.mean, data.input.std))
    expected = (pictures_in(data.train)[order].double() / 255 - mean) / std
    for view in (None, 0, 2):
        batches = list(data.train.batches(4, order, view))
        assert torch.allclose(torch.cat([batch.inputs for batch in batches]).double(), expected, atol=1e-5)
    assert [data.train.view_of(epoch) for epoch in range(1, 6)] == [0] * 5


def views_of(split: Split, epochs: int = 7) -> Iterator[int]:
    return (split.view_of(epoch) for epoch in range(1, epochs + 1))


def test_views_are_shown_in_turn_or_a_new_one_in_every_epoch(tmp_path: Path) -> None:
    root = make_pictures(tmp_path)
    assert list(views_of(folder(root, views=3).train)) == [0, 1, 2, 0, 1, 2, 0]
    assert list(views_of(folder(root, views=1).train)) == [0] * 7
    assert list(views_of(folder(root, views=0).train)) == [0, 1, 2, 3, 4, 5, 6]
    assert list(views_of(folder(root).train)) == [0, 1, 2, 3, 4, 5, 6]


def test_the_view_seed_decides_what_the_views_look_like(tmp_path: Path) -> None:
    root = make_pictures(tmp_path)
    one, same, other = (list(folder(root, view_seed=seed).train.batches(4, view=0)) for seed in (0, 0, 1))
    assert the_same(one, same)
    assert not the_same(one, other)


@pytest.mark.parametrize("name", ["val", "test"])
def test_validation_and_test_are_never_augmented(tmp_path: Path, name: str) -> None:
    root = make_pictures(tmp_path, ("train", "val", "test"))
    augmented, plain = (getattr(folder(root, **keys), name) for keys in ({}, {"augmentation": None}))
    assert list(views_of(augmented)) == [0] * 7
    for view in (None, 0, 5):
        assert the_same(list(augmented.batches(4, view=view)), list(plain.batches(4)))
