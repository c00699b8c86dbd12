"""Proves that every reader gives the same honest splits: right pictures, right labels, fixed order, errors by name."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import pictures_in
from PIL import Image
from sklearn.datasets import load_digits

from distill_cli.base.errors import ConfigError, DataError
from distill_cli.config.records import read as record
from distill_cli.config.schema import Dataset
from distill_cli.data import Batch, Data, Part, PictureSpec, Split, assemble, load
from distill_cli.data.digits import digits
from distill_cli.data.folder import image_folder
from distill_cli.data.resizing import Resized
from distill_cli.data.source import Held
from distill_cli.data.vision import torchvision

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def small_digits() -> Data:
    return digits(size=8)


def part(labels: list[int], seed: int = 0, size: int = 4, channels: int = 1) -> Part:
    draw = np.random.default_rng(seed)
    pictures = draw.integers(0, 256, (len(labels), channels, size, size), dtype=np.uint8)
    return Part(torch.from_numpy(pictures), np.asarray(labels))


def assembled(train: list[int], test: list[int], classes: int = 2, val: list[int] | None = None, **how: Any) -> Data:
    how = {"val_fraction": 0.25, "split_seed": 0, "mean": None, "std": None, "note": "", **how}
    own_val = part(val, 2) if val is not None else None
    return assemble(part(train, 0), own_val, part(test, 1), [f"c{i}" for i in range(classes)], **how)


def pictures_of(split: Split) -> list[bytes]:
    return [picture.numpy().tobytes() for picture in pictures_in(split)]


def inputs_of(split: Split, batch_size: int = 3) -> torch.Tensor:
    return torch.cat([batch.inputs for batch in split.batches(batch_size)])


# --- digits


def test_digits_are_split_into_1293_144_and_360(small_digits: Data) -> None:
    assert [len(getattr(small_digits, name)) for name in SPLITS] == [1293, 144, 360]
    assert small_digits.classes == tuple("0123456789")
    assert "20%" in small_digits.note and "10%" in small_digits.note


def test_digits_are_all_there_once_with_their_own_labels(small_digits: Data) -> None:
    bunch = load_digits()
    scaled = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    expected = sorted((image.tobytes(), int(label)) for image, label in zip(scaled, bunch.target, strict=True))
    found = []
    for name in SPLITS:
        split = getattr(small_digits, name)
        found += list(zip(pictures_of(split), split.targets.tolist(), strict=True))
    assert sorted(found) == expected


def test_digits_keep_each_classs_share_in_every_split(small_digits: Data) -> None:
    train, val, test = (torch.bincount(getattr(small_digits, name).targets, minlength=10) for name in SPLITS)
    rest = train + val
    whole = rest + test
    assert (test - whole * 360 / 1797).abs().max().item() <= 1
    assert (val - rest * 144 / 1437).abs().max().item() <= 1
    assert (train - rest * 1293 / 1437).abs().max().item() <= 1


def test_the_split_follows_its_seed_and_the_test_set_never_moves(small_digits: Data) -> None:
    again, other = digits(size=8), digits(size=8, split_seed=1)
    for name in SPLITS:
        assert pictures_of(getattr(again, name)) == pictures_of(getattr(small_digits, name))
    assert pictures_of(other.test) == pictures_of(small_digits.test)
    assert pictures_of(other.val) != pictures_of(small_digits.val)
    assert len(other.val) == 144


def test_digits_are_shown_at_28_pixels_unless_asked() -> None:
    assert digits().input.size == (28, 28)
    assert digits(size="auto").input.size == (8, 8)


def test_batches_are_normalised_by_the_training_pictures(small_digits: Data) -> None:
    values = inputs_of(small_digits.train, 256)
    assert values.dtype == torch.float32 and values.shape == (1293, 1, 8, 8)
    assert values.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert values.std().item() == pytest.approx(1.0, abs=1e-3)


def test_the_digest_follows_split_normalisation_and_size_and_nothing_else(small_digits: Data) -> None:
    same = [digits(size=8), digits(size="auto"), digits(8, list(small_digits.input.mean), list(small_digits.input.std))]
    assert {data.digest for data in same} == {small_digits.digest}
    others = [digits(size=8, split_seed=1), digits(size=8, mean=[0.5], std=[0.5]), digits(size=9),
              digits(size=8, val_fraction=0.2)]  # fmt: skip
    assert len({small_digits.digest, *(data.digest for data in others)}) == 5


# --- batches


def test_batches_follow_the_given_order() -> None:
    data = assembled([0, 1] * 6, [0, 1])
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(4))
    batches = list(data.train.batches(5, order))
    assert [len(batch) for batch in batches] == [5, 4]
    assert torch.equal(torch.cat([batch.index for batch in batches]), order)
    assert torch.equal(torch.cat([batch.targets for batch in batches]), data.train.targets[order])
    expected = (pictures_in(data.train)[order].double() / 255 - data.input.mean[0]) / data.input.std[0]
    assert torch.allclose(torch.cat([batch.inputs for batch in batches]).double(), expected, atol=1e-5)


def test_each_channel_has_its_own_normalisation() -> None:
    pictures = torch.full((4, 3, 2, 2), 51, dtype=torch.uint8)
    whole = Part(pictures, np.array([0, 1, 0, 1]))
    data = assemble(whole, whole, whole, ["a", "b"], val_fraction=0.1, split_seed=0, mean=[0.0, 0.2, 0.1],
                    std=[1.0, 0.5, 0.1], note="")  # fmt: skip
    assert inputs_of(data.train)[0, :, 0, 0].tolist() == pytest.approx([0.2, 0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_normalisation_is_that_of_the_training_pixels_by_channel(streamed: bool) -> None:
    draw = np.random.default_rng(0)
    pictures = torch.from_numpy(draw.integers(0, [[[40]], [[200]], [[256]]], (700, 3, 5, 4), dtype=np.uint8))
    whole = Part(Resized(Held(pictures), "auto") if streamed else pictures, np.arange(700) % 2)
    data = assemble(whole, whole, whole, ["a", "b"], val_fraction=0.1, split_seed=0, mean=None, std=None, note="")
    values = pictures.numpy() / 255
    assert isinstance(data.input, PictureSpec)
    assert data.input.mean == tuple(round(float(v), 6) for v in values.mean((0, 2, 3)))
    assert data.input.std == tuple(round(float(v), 6) for v in values.std((0, 2, 3)))


def test_another_normalisation_shows_the_same_pictures() -> None:
    data = assembled([0, 1] * 6, [0, 1])
    other = data.under(PictureSpec(1, (4, 4), (0.25,), (0.5,)))
    for name in SPLITS:
        raw = inputs_of(getattr(data, name)) * data.input.std[0] + data.input.mean[0]
        assert torch.allclose(inputs_of(getattr(other, name)), (raw - 0.25) / 0.5, atol=1e-5)
    assert other.input.mean == (0.25,)


@pytest.mark.parametrize(("size", "number", "lengths"), [(10, 4, [3, 3, 2, 2]), (4, 1, [4]), (2, 5, [1, 1])])
def test_a_batch_is_cut_into_nearly_equal_parts(size: int, number: int, lengths: list[int]) -> None:
    rows = torch.arange(size)
    batch = Batch(rows.float().view(-1, 1, 1, 1), rows + 10, rows + 20)
    parts = list(batch.parts(number))
    assert [len(each) for each in parts] == lengths
    for name in ("inputs", "targets", "index"):
        assert torch.equal(torch.cat([getattr(each, name) for each in parts]), getattr(batch, name))


# --- assemble


def test_validation_is_cut_from_train_without_losing_a_sample() -> None:
    data = assembled([0, 0, 0, 1] * 5, [0, 1])
    assert (len(data.train), len(data.val)) == (15, 5)
    everything = part([0, 0, 0, 1] * 5, 0)
    assert sorted(pictures_of(data.train) + pictures_of(data.val)) == sorted(
        p.numpy().tobytes() for p in pictures_in(everything)
    )
    assert torch.bincount(data.val.targets).tolist() in ([4, 1], [3, 2])


def test_a_validation_set_of_its_own_is_used_as_it_is() -> None:
    data = assembled([0, 1, 0], [0, 1], val=[1, 0, 1, 1])
    assert [len(getattr(data, name)) for name in SPLITS] == [3, 4, 2]
    assert data.val.targets.tolist() == [1, 0, 1, 1]


def test_even_a_tiny_fraction_leaves_every_class_in_validation() -> None:
    data = assembled([0, 1, 2] * 4, [0, 1, 2], classes=3, val_fraction=0.01)
    assert sorted(data.val.targets.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("fraction", [0.1, 0.9])
def test_a_class_of_two_samples_is_in_train_and_in_validation(seed: int, fraction: float) -> None:
    data = assembled([0] * 40 + [1, 1, 2, 2, 2, 3], [0, 1], classes=4, val_fraction=fraction, split_seed=seed)
    assert len(data.val) == round(46 * fraction) and len(data.train) == 46 - len(data.val)
    assert set(data.val.targets.tolist()) == {0, 1, 2} and set(data.train.targets.tolist()) == {0, 1, 2, 3}
    assert data.note.endswith("validation lacks the classes of one sample (c3)")


@pytest.mark.parametrize(
    ("train", "test", "classes", "message"),
    [
        ([0, 1, 5, 7], [0, 1], 2, r"train sample 2 has label 5; labels go from 0 to 1 \(2 such samples\)"),
        ([0, 1, 0, 1], [0, -2], 2, r"test sample 1 has label -2; labels go from 0 to 1"),
        ([0, 1], [0], 3, r"train holds 2 samples, fewer than the 3 classes"),
        ([0, 0, 0, 0], [0, 1], 2, r"class 'c1' has no training samples"),
        ([], [0], 1, r"train holds no samples"),
        ([0, 1], [], 2, r"test holds no samples"),
    ],
)
def test_parts_that_cannot_be_used_are_refused(train: list[int], test: list[int], classes: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        assembled(train, test, classes)


def test_pictures_without_labels_are_refused() -> None:
    short = Part(part([0, 1, 0, 1]).source, np.array([0, 1, 0]))
    with pytest.raises(DataError, match="train holds 4 samples but 3 labels"):
        assemble(short, part([0, 1]), part([0, 1]), "ab", val_fraction=0.1, split_seed=0, mean=None, std=None, note="")


def test_too_few_samples_to_cut_validation_from() -> None:
    with pytest.raises(DataError, match="too few for 2 classes"):
        assembled([0, 0, 1, 1], [0, 1], val_fraction=0.75)


def test_a_normalisation_for_other_channels_is_refused() -> None:
    with pytest.raises(DataError, match=r"dataset\.mean has 3 values, but the pictures have 1"):
        assembled([0, 1] * 4, [0, 1], mean=[0.5] * 3, std=[0.5])


# --- image_folder


def save(path: Path, picture: Image.Image, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **how)


def noise(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def fill(root: Path, parts: tuple[str, ...] = ("train", "test"), count: int = 4, **how: Any) -> Path:
    """A folder of random PNGs: two classes, `count` pictures a class and part, no two alike."""
    for number, name in enumerate(parts):
        for label, kind in enumerate(("cat", "dog")):
            for i in range(count):
                save(root / name / kind / f"{i}.png", noise(100 * number + 10 * label + i, **how))
    return root


def test_pictures_carry_their_folders_class_and_their_own_pixels(tmp_path: Path) -> None:
    data = image_folder(str(fill(tmp_path, ("train", "val", "test"))))
    assert data.classes == ("cat", "dog")
    assert (data.input.channels, data.input.size) == (3, (8, 8))
    for number, name in enumerate(SPLITS):
        split = getattr(data, name)
        expected = [np.asarray(noise(100 * number + 10 * label + i)).transpose(2, 0, 1).tobytes()
                    for label in (0, 1) for i in range(4)]  # fmt: skip
        assert pictures_of(split) == expected
        assert split.targets.tolist() == [0] * 4 + [1] * 4


def test_without_test_val_is_the_test_set_and_validation_is_cut_from_train(tmp_path: Path) -> None:
    data = image_folder(str(fill(tmp_path, ("train", "val"))), val_fraction=0.25)
    assert [len(getattr(data, name)) for name in SPLITS] == [6, 2, 8]
    assert pictures_of(data.test)[0] == np.asarray(noise(100)).transpose(2, 0, 1).tobytes()
    assert data.note.startswith("test: val/") and "25% of train/" in data.note


def test_with_all_three_parts_all_are_used(tmp_path: Path) -> None:
    data = image_folder(str(fill(tmp_path, ("train", "val", "test"))))
    assert [len(getattr(data, name)) for name in SPLITS] == [8, 8, 8]
    assert data.note == "test: test/; validation: val/"


def test_without_val_validation_is_cut_from_train(tmp_path: Path) -> None:
    data = image_folder(str(fill(tmp_path)), val_fraction=0.25)
    assert [len(getattr(data, name)) for name in SPLITS] == [6, 2, 8]
    assert data.note.startswith("test: test/")


def with_first(root: Path, picture: Image.Image, suffix: str = ".png", mode: str = "RGB", **how: Any) -> Data:
    """A folder of `mode` pictures whose first test picture is `picture`."""
    fill(root, ("train", "val", "test"), count=2, mode=mode)
    (root / "test" / "cat" / "0.png").unlink()
    save(root / "test" / "cat" / f"0{suffix}", picture, **how)
    return image_folder(str(root))


def first(data: Data) -> np.ndarray:
    """The first test picture, (H, W, C)."""
    return pictures_in(data.test)[0].permute(1, 2, 0).numpy()


def test_grey_among_colour_is_expanded(tmp_path: Path) -> None:
    grey = noise(1, mode="L")
    assert np.array_equal(first(with_first(tmp_path, grey)), np.asarray(grey)[..., None].repeat(3, 2))


def test_transparency_is_shown_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    picture.paste((10, 20, 30, 255), (0, 0, 4, 8))
    found = first(with_first(tmp_path, picture))
    assert found[0, 0].tolist() == [10, 20, 30]
    assert found[0, 7].tolist() == [255, 255, 255]


def test_a_palette_gives_its_colours(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8), (250, 10, 0))
    picture.paste((0, 60, 120), (0, 0, 4, 8))
    indexed = picture.quantize(2)
    assert indexed.mode == "P"
    found = first(with_first(tmp_path, indexed))
    assert np.array_equal(found, np.asarray(indexed.convert("RGB")))
    assert np.abs(found.astype(int)[0, 0] - [0, 60, 120]).max() <= 4


def test_cmyk_jpeg_gives_its_colours(tmp_path: Path) -> None:
    picture = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = first(with_first(tmp_path, picture, ".jpg", quality=95))
    # No cyan, full magenta and yellow: red.
    assert np.abs(found.astype(int) - [255, 0, 0]).max() <= 6


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_all_grey_data_keep_one_channel(tmp_path: Path, mode: str) -> None:
    data = image_folder(str(fill(tmp_path, ("train", "val", "test"), count=2, mode=mode)))
    assert data.input.channels == 1
    assert inputs_of(data.test).shape == (4, 1, 8, 8)


def test_a_camera_held_sideways_is_put_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8), "white")
    picture.paste((0, 0, 0), (0, 0, 4, 8))
    turned = Image.Exif()
    turned[0x0112] = 6  # shown turned a quarter clockwise: the dark left half comes to the top
    found = first(with_first(tmp_path, picture, exif=turned))
    assert found[0].max() == 0 and found[-1].min() == 255


def test_pictures_of_different_sizes_take_the_median_short_side(tmp_path: Path) -> None:
    fill(tmp_path, size=(10, 6))
    save(tmp_path / "train" / "cat" / "big.jpg", noise(1, (30, 20)))
    save(tmp_path / "test" / "dog" / "long.png", noise(2, (5, 40)))
    data = image_folder(str(tmp_path))
    assert data.input.size == (6, 6)
    assert inputs_of(data.test).shape[1:] == (3, 6, 6)


def test_a_given_size_is_used(tmp_path: Path) -> None:
    assert image_folder(str(fill(tmp_path)), size=5).input.size == (5, 5)


def test_auto_size_stops_at_224(tmp_path: Path) -> None:
    assert image_folder(str(fill(tmp_path, count=2, size=(230, 240)))).input.size == (224, 224)


def test_wide_pictures_are_cropped_at_the_centre(tmp_path: Path) -> None:
    picture = Image.new("RGB", (24, 8), "red")
    picture.paste((0, 0, 255), (8, 0, 16, 8))
    found = first(with_first(tmp_path, picture))
    assert np.array_equal(found, np.full((8, 8, 3), [0, 0, 255]))


def test_reading_as_it_goes_gives_the_same_batches_as_from_memory(tmp_path: Path) -> None:
    fill(tmp_path, count=6, size=(9, 7))
    held = image_folder(str(tmp_path))
    assert held.train.source.held is not None
    order = torch.randperm(len(held.train), generator=torch.Generator().manual_seed(0))
    expected = list(held.train.batches(4, order))
    for workers in (0, 2):
        streamed = image_folder(str(tmp_path), memory=0, workers=workers)
        assert streamed.train.source.held is None
        assert streamed.input == held.input
        random_state = torch.get_rng_state()
        found = list(streamed.train.batches(4, order))
        assert torch.equal(random_state, torch.get_rng_state())
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours.inputs, theirs.inputs)
            assert torch.equal(ours.targets, theirs.targets)
            assert torch.equal(ours.index, theirs.index)


def test_the_digest_of_a_folder_follows_its_content_and_not_its_place(tmp_path: Path) -> None:
    root = fill(tmp_path / "one")
    shutil.copytree(root, tmp_path / "two")
    one, two = image_folder(str(root)), image_folder(str(tmp_path / "two"))
    assert one.digest == two.digest
    save(tmp_path / "two" / "train" / "dog" / "3.png", noise(999))
    assert image_folder(str(tmp_path / "two")).digest != one.digest


def test_a_streamed_folder_notices_a_changed_picture(tmp_path: Path) -> None:
    root = fill(tmp_path)
    before = image_folder(str(root), memory=0, mean=[0.5], std=[0.5]).digest
    assert image_folder(str(root), memory=0, mean=[0.5], std=[0.5]).digest == before
    save(root / "test" / "dog" / "3.png", noise(999, (9, 9)))
    assert image_folder(str(root), memory=0, mean=[0.5], std=[0.5]).digest != before


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"dataset\.root={tmp_path}/nowhere: there is no such folder"):
        image_folder(str(tmp_path / "nowhere"))


def test_an_empty_root_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it holds nothing\nit needs train/<class>/"):
        image_folder(str(tmp_path))


def test_train_alone_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it holds train"):
        image_folder(str(fill(tmp_path, ("train",))))


def test_train_without_class_folders_is_named(tmp_path: Path) -> None:
    for name in ("train", "test"):
        save(tmp_path / name / "0.png", noise(0))
    with pytest.raises(DataError, match=rf"{tmp_path}/train holds no class folders"):
        image_folder(str(tmp_path))


@pytest.mark.parametrize(("extra", "message"), [("train", "'owl' is in train/ only: test/"),
                                               ("test", "'owl' is in test/ only: train/")])  # fmt: skip
def test_a_class_in_one_part_only_is_named(tmp_path: Path, extra: str, message: str) -> None:
    fill(tmp_path)
    for i in range(2):
        save(tmp_path / extra / "owl" / f"{i}.png", noise(i))
    with pytest.raises(DataError, match=message):
        image_folder(str(tmp_path))


def test_a_class_without_pictures_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in ("train", "test"):
        (tmp_path / name / "owl").mkdir()
    (tmp_path / "train" / "owl" / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match=rf"{tmp_path}/train/owl holds no pictures"):
        image_folder(str(tmp_path))


def test_a_class_with_one_picture_is_trained_on_and_named_when_validation_is_cut(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in ("train", "test"):
        save(tmp_path / name / "owl" / "0.png", noise(5))
    data = image_folder(str(tmp_path))
    owl = data.classes.index("owl")
    assert owl in data.train.targets and owl not in data.val.targets and "(owl)" in data.note


@pytest.mark.parametrize(("memory", "workers"), [(2.0, 0), (0.0, 0), (2.0, 2), (0.0, 2)])
def test_a_truncated_picture_is_named(tmp_path: Path, memory: float, workers: int) -> None:
    fill(tmp_path)
    broken = tmp_path / "test" / "dog" / "2.png"
    broken.write_bytes(broken.read_bytes()[:120])
    with pytest.raises(DataError) as caught:
        data = image_folder(str(tmp_path), workers=workers, memory=memory)
        list(data.test.batches(4))
    assert caught.value.message.startswith(f"cannot read {broken}: ")


@pytest.mark.parametrize("content", [b"", b"this is no picture"])
def test_a_file_that_is_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path)
    wrong = tmp_path / "train" / "cat" / "1.png"
    wrong.write_bytes(content)
    with pytest.raises(DataError, match=f"cannot read {wrong}"):
        image_folder(str(tmp_path))


# --- torchvision's files


def write_idx(path: Path, array: np.ndarray) -> None:
    """The format of MNIST's files: a magic number that ends in the number of dimensions, their sizes, the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">{array.ndim + 1}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def write_set(raw: Path, names: tuple[str, str], labels: np.ndarray) -> list[np.ndarray]:
    pictures = []
    for seed, name in enumerate(names):
        images = np.random.default_rng(seed).integers(0, 256, (len(labels), 28, 28))
        write_idx(raw / f"{name}-images-idx3-ubyte", images)
        write_idx(raw / f"{name}-labels-idx1-ubyte", labels)
        pictures.append(images.astype(np.uint8))
    return pictures


def shown(split: Split) -> list[np.ndarray]:
    return [picture[0].numpy() for picture in pictures_in(split)]


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_the_mnist_family_is_read_from_its_files(tmp_path: Path, name: Any) -> None:
    labels = np.tile(np.arange(10), 3)
    train, test = write_set(tmp_path / name / "raw", ("train", "t10k"), labels)
    data = torchvision(name, str(tmp_path), download=False, mean=[0.5], std=[0.5])
    assert [len(getattr(data, split)) for split in SPLITS] == [20, 10, 30]
    assert (len(data.classes), data.input.size, data.input.channels) == (10, (28, 28), 1)
    assert np.array_equal(shown(data.test), test)
    assert data.test.targets.tolist() == labels.tolist()
    both = sorted(picture.tobytes() for picture in [*shown(data.train), *shown(data.val)])
    assert both == sorted(picture.tobytes() for picture in train)
    assert sorted(data.val.targets.tolist()) == list(range(10))


def test_mnist_can_be_shown_at_another_size(tmp_path: Path) -> None:
    write_set(tmp_path / "MNIST" / "raw", ("train", "t10k"), np.tile(np.arange(10), 2))
    assert torchvision("MNIST", str(tmp_path), download=False, size=32).input.size == (32, 32)


def test_emnist_letters_are_stood_upright_and_counted_from_zero(tmp_path: Path) -> None:
    labels = np.tile(np.arange(1, 27), 2)
    _, test = write_set(tmp_path / "EMNIST" / "raw", ("emnist-letters-train", "emnist-letters-test"), labels)
    data = torchvision("EMNIST", str(tmp_path), download=False)
    assert data.classes == tuple("abcdefghijklmnopqrstuvwxyz")
    assert data.test.targets.tolist() == (labels - 1).tolist()
    assert np.array_equal(shown(data.test), test.transpose(0, 2, 1))


@pytest.mark.parametrize(
    ("name", "place"),
    [("MNIST", "MNIST/raw"), ("EMNIST", "EMNIST/raw"), ("CIFAR10", "cifar-10-batches-py"), ("SVHN", "")],
)
def test_a_missing_set_says_where_it_looked(tmp_path: Path, name: Any, place: str) -> None:
    root = tmp_path / "data"
    with pytest.raises(DataError) as caught:
        torchvision(name, str(root), download=False)
    assert str(root / place) in caught.value.message
    assert "download is false" in caught.value.message
    # Looking must not leave an empty folder behind.
    assert not root.exists()


def test_an_empty_file_of_a_set_is_called_damaged(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_set(raw, ("train", "t10k"), np.tile(np.arange(10), 2))
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match=rf"the files of MNIST in {tmp_path} are damaged"):
        torchvision("MNIST", str(tmp_path), download=False)


# --- made harder on purpose


def hardened(**how: Any) -> Data:
    node = {"_target_": "distill_cli.data.digits.digits", "size": 8, "mean": None, "std": None, "split_seed": 0}
    return load(record(Dataset, {**node, "val_fraction": 0.1, **how}), workers=0)


def test_a_limit_keeps_so_many_of_each_class_in_the_order_of_the_data_and_leaves_the_rest_alone() -> None:
    whole, few = hardened(), hardened(limit=200)
    assert len(few.train) == 200 and "train limited to 200 of 1,293" in few.note
    shares = [torch.bincount(data.train.targets, minlength=10) / len(data.train) for data in (whole, few)]
    assert torch.allclose(*shares, atol=0.01)
    places = [pictures_of(whole.train).index(picture) for picture in pictures_of(few.train)]
    assert places == sorted(places)
    assert few.train.targets.tolist() == whole.train.targets[places].tolist()
    assert pictures_of(few.val) == pictures_of(whole.val) and pictures_of(few.test) == pictures_of(whole.test)
    assert pictures_of(hardened(limit=200).train) == pictures_of(few.train)
    assert hardened(limit=5000).digest == whole.digest != few.digest
    assert "dataset.limit has no effect: train holds 1,293" in hardened(limit=5000).note


def test_label_noise_makes_that_share_of_the_training_labels_wrong_and_no_other() -> None:
    whole, noisy = hardened(), hardened(label_noise=0.25)
    wrong = whole.train.targets != noisy.train.targets
    assert wrong.sum().item() == round(0.25 * 1293)
    assert sorted(set(noisy.train.targets.tolist())) == list(range(10))
    assert noisy.val.targets.equal(whole.val.targets) and noisy.test.targets.equal(whole.test.targets)
    assert pictures_of(noisy.train) == pictures_of(whole.train)
    assert noisy.digest != whole.digest and hardened(label_noise=0.25).digest == noisy.digest


def test_fewer_samples_than_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"dataset\.limit: 9 samples are fewer than the 10 classes"):
        hardened(limit=9)
