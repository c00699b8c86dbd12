"""Proves that a pack gives what its folder gives, that a damaged one is refused by name, and that what was begun starts again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import distill, flip, make_pictures, pictures_in
from PIL import Image

from distill_cli.base.errors import DataError
from distill_cli.base.sums import BLOCK
from distill_cli.data import Data
from distill_cli.data.folder import image_folder
from distill_cli.data.pack import HEAD, VERSION

SPLITS = ("train", "val", "test")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """The pack of a folder `photos`, which is beside it."""
    make_pictures(tmp_path / "photos", ("train", "val", "test"))
    assert distill("data", "pack", "dataset.root=photos", "out=photos.pack") == 0
    return tmp_path / "photos.pack"


def raw(data: Data) -> Iterator[torch.Tensor]:
    for name in SPLITS:
        split = getattr(data, name)
        yield split.source.read(range(len(split)))  # type: ignore[misc]
        yield split.targets


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_a_pack_gives_the_pictures_and_labels_of_its_folder(packed: Path, memory: float) -> None:
    folder, pack = (image_folder(str(root), memory=memory) for root in (packed.with_suffix(""), packed))
    assert pack.classes == folder.classes and pack.note == folder.note and pack.input == folder.input
    assert all(torch.equal(one, other) for one, other in zip(raw(folder), raw(pack), strict=True))
    assert (pack.digest == folder.digest) == (memory > 0)  # of what is not held, the places are compared


def test_of_a_pack_no_picture_is_opened_before_it_is_read(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, really = list[object](), Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or really(file))
    data = image_folder(str(packed), memory=0, mean=[0.5], std=[0.5], size=16, only="test")
    assert len(data.test) == 16 and data.test.targets.tolist() == [0] * 8 + [1] * 8
    assert len(opened) == 1  # for its shape


def test_one_split_of_a_pack_is_read_alone(packed: Path) -> None:
    whole, test = image_folder(str(packed)), image_folder(str(packed), only="test")
    assert torch.equal(pictures_in(whole.test), pictures_in(test.test)) and len(test.train) == 0


def test_classes_may_be_named_in_another_order(packed: Path) -> None:
    assert image_folder(str(packed), classes=["b", "c", "a"]).test.targets.tolist() == [2] * 8 + [0] * 8
    with pytest.raises(DataError, match="label b, which is none of the 2 classes: a, c"):
        image_folder(str(packed), classes=["a", "c"])


def test_labels_that_are_missing_are_missing_in_the_pack_too(tmp_path: Path, packed: Path) -> None:
    more = make_pictures(tmp_path / "more", ("all",))
    words = ["dataset.root=photos", f"dataset.unlabeled={more}"]
    assert distill("data", "pack", *words, "out=more.pack") == 0
    data, plain = image_folder("more.pack"), image_folder("photos", unlabeled=str(more))
    assert all(torch.equal(one, other) for one, other in zip(raw(plain), raw(data), strict=True))
    assert len(data.train) == 32 and len(data.train.labelled) == 16
    beside = image_folder(str(packed), unlabeled=str(more), memory=0)
    assert torch.equal(beside.train.source.read(range(32)), pictures_in(data.train))  # type: ignore[arg-type]


def test_pictures_are_resized_once_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "test"):
        for name, level in (("a", 60), ("b", 160)):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for number, (kind, sides) in enumerate((("jpg", (40, 60)), ("png", (80, 20)), ("jpg", (12, 12)))):
                pixels = np.random.default_rng(number).integers(0, 60, (*sides, 3), dtype=np.uint8) + level
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / part / name / f"{number}.{kind}")
    assert distill("data", "pack", "dataset.root=photos", "out=small.pack", "size=16", "workers=2") == 0
    assert "shorter sides of 16 pixels at most" in capsys.readouterr().out
    small = image_folder("small.pack")
    assert small.input.words() == "3x16x16" and "packed with shorter sides of 16 pixels at most" in small.note
    folder = image_folder("photos", size=16)
    one, other = (pictures_in(data.test).float() for data in (folder, small))
    assert (one - other).abs().mean() < 3  # of JPEGs that were encoded again
    assert (one - other)[1].abs().max() <= 1  # of a PNG, which was cut after it was resized
    assert torch.equal(one[2], other[2])  # was smaller


def test_a_student_is_the_same_from_a_pack(packed: Path, tmp_path: Path) -> None:
    words = ["dataset=image_folder", "teacher=smallcnn", "teacher.widths=[4]", "teacher.fit.epochs=0", "student=tinycnn",
             "schedule=constant", "schedule.train.epochs=1", "report=false", "batch_size=8"]  # fmt: skip
    for root in ("photos", "photos.pack"):
        assert distill("train", *words, f"dataset.root={root}", f"run_dir=run-{root}") == 0
    student = [Path(f"run-{root}/student.safetensors").read_bytes() for root in ("photos", "photos.pack")]
    assert student[0] == student[1]
    assert distill("eval", "ckpt=run-photos", "dataset.root=photos.pack") == 0


# --- what is wrong


def test_a_damaged_block_is_refused_by_name_and_all_others_are_read(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for number in range(4):
                noise = np.random.default_rng([len(part), ord(name), number]).integers(
                    0, 256, (128, 128, 3), dtype=np.uint8
                )
                Image.fromarray(noise).save(tmp_path / "photos" / part / name / f"{number}.bmp")
    assert distill("data", "pack", "dataset.root=photos", "out=photos.pack") == 0
    flip(tmp_path / "photos.pack", len(HEAD % VERSION) + 2 * BLOCK + 5)
    data = image_folder("photos.pack", memory=0, mean=[0.5], std=[0.5])
    with pytest.raises(DataError, match=r"photos\.pack is damaged: block 3 of 13 .* train/a/2\.bmp to train/a/3\.bmp"):
        data.train.source.read(range(len(data.train)))
    assert len(data.test.source.read(range(8))) == 8  # type: ignore[arg-type]
    assert (
        distill("train", "dataset=image_folder", "dataset.root=photos.pack", "teacher=smallcnn", "student=tinycnn") == 3
    )


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda pack: pack.write_bytes(b"no pack"), "is no pack"),
        (lambda pack: pack.write_bytes(b""), "is no pack"),
        (
            lambda pack: pack.write_bytes((HEAD % 7) + pack.read_bytes()[16:]),
            "is a pack of version 7; this distill reads",
        ),
        (lambda pack: os.truncate(pack, pack.stat().st_size - 9), "is cut off"),
        (lambda pack: os.truncate(pack, 20), "is cut off"),
        (lambda pack: flip(pack, -60), "its index is not what was written"),
    ],
)
def test_a_file_that_is_no_whole_pack_is_refused(
    packed: Path, harm: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(packed)  # type: ignore[operator]
    assert distill("train", "dataset=image_folder", "dataset.root=photos.pack") == 3
    assert said in capsys.readouterr().err


def test_what_cannot_be_packed_is_refused_and_nothing_is_left(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (packed.parent / "photos" / "train" / "a" / "0.png").write_bytes(b"\x89PNG damaged")
    for words, code, said in (
        (["dataset.root=photos", "out=new.pack"], 3, "cannot read"),
        (["dataset.root=photos", "out=photos.pack"], 2, "is there already"),
        (["dataset.root=photos", "out=new"], 2, "should end in .pack"),
        (["dataset.root=photos"], 2, "where is the pack to go"),
        (["dataset=digits", "out=new.pack"], 2, "not encoded files"),
        (["dataset.root=gone", "out=new.pack"], 3, "there is no such folder"),
    ):
        assert distill("data", "pack", *words) == code
        assert said in capsys.readouterr().err
        assert not list(packed.parent.glob("new*")) and not list(packed.parent.glob(".*.tmp"))
    assert distill("data", "pick") == distill("data") == 2
    assert "what is it to do? pack" in capsys.readouterr().err


def test_what_a_killed_command_left_is_removed_by_the_next(packed: Path) -> None:
    left = packed.with_name(".photos.pack.0123abcd.tmp")
    shutil.copy(packed, left)
    packed.unlink()
    assert distill("data", "pack", "dataset.root=photos", "out=photos.pack") == 0
    assert not left.exists() and len(image_folder(str(packed)).test) == 16
