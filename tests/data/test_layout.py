"""Proves that a folder is read as a person sees it: parts, classes and files by name, and what is left out is told."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from helpers import distill, make_pictures
from PIL import Image

from distill_cli.base.errors import DataError
from distill_cli.data.folder import image_folder


def sizes(root: Path) -> list[int]:
    data = image_folder(str(root))
    return [len(data.train), len(data.val), len(data.test)]


def add(path: Path, seed: int = 99, kind: str = "png") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, kind)
    return path


def test_good_folders_are_read_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = image_folder(str(make_pictures(tmp_path, ("train", "val", "test"))))
    assert data.note == "test: test/; validation: val/"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("place", [".ipynb_checkpoints/0.png", "sub/.cache/deep/0.png", "._0.png", "__MACOSX/0.png"])
def test_what_is_hidden_at_any_depth_is_no_picture(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pictures(tmp_path)
    add(tmp_path / "train" / "a" / place)
    add(tmp_path / "train" / ".trash" / "0.png")
    (tmp_path / "train" / "a" / "Thumbs.db").touch()
    (tmp_path / "test" / ".DS_Store").touch()
    assert sizes(tmp_path) == [14, 2, 16]
    assert "not read: 3 hidden" in image_folder(str(tmp_path)).note
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["valid", "Validation", "VAL", "dev", "eval"])
def test_validation_may_be_called_by_any_of_its_names(tmp_path: Path, name: str) -> None:
    make_pictures(tmp_path, ("train", "val", "test"))
    (tmp_path / "val").rename(tmp_path / name)
    assert image_folder(str(tmp_path)).note == f"test: test/; validation: {name}/"


def test_train_and_test_may_be_called_training_and_testing(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    (tmp_path / "train").rename(tmp_path / "Training")
    (tmp_path / "test").rename(tmp_path / "testing")
    assert image_folder(str(tmp_path)).note == "test: testing/; validation: 10% of Training/"


def test_two_folders_for_one_part_are_refused(tmp_path: Path) -> None:
    make_pictures(tmp_path, ("train", "valid", "val", "test"))
    with pytest.raises(DataError, match="has val/ and valid/: both stand for val"):
        image_folder(str(tmp_path))


def test_the_parts_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    make_pictures(tmp_path / "archive" / "dataset")
    (tmp_path / "__MACOSX" / "train").mkdir(parents=True)
    assert sizes(tmp_path) == [14, 2, 16]
    assert "parts in archive/dataset/" in image_folder(str(tmp_path)).note
    make_pictures(tmp_path / "archive" / "other")
    with pytest.raises(DataError, match="it holds __MACOSX, archive"):
        image_folder(str(tmp_path))


def test_what_is_not_read_is_told_by_reason_and_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pictures(tmp_path)
    for name in (
        "train/a/1.heic",
        "train/b/2.HEIC",
        "test/a/labels.txt",
        "train/a/scan",
        "train/a/.hidden",
        "test/x.png",
    ):
        (tmp_path / name).touch()
    (tmp_path / "train" / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "train" / "a" / "round").symlink_to(tmp_path / "train")
    os.mkfifo(tmp_path / "test" / "b" / "pipe.png")
    make_pictures(tmp_path, ("extra",))
    assert sizes(tmp_path) == [14, 2, 16]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path.name}: not read: extra/, 2 .heic, ")
    for told in ("1 .txt", "1 without an ending", "1 hidden", "1 outside of class folders", "1 broken links",
                 "1 links to a folder above them", "1 that are no files"):  # fmt: skip
        assert told in line


@pytest.mark.parametrize("name", ["9.JPG", "9.jfif", "9.Tif", "9.webp", "9.JPEG", "9.pbm"])
def test_endings_in_any_case_are_known(tmp_path: Path, name: str) -> None:
    make_pictures(tmp_path)
    suffix = Path(name).suffix.lower()
    kind = {".jfif": "jpeg", ".pbm": "ppm", ".tif": "tiff", ".jpg": "jpeg"}.get(suffix, suffix[1:])
    add(tmp_path / "test" / "a" / name, kind=kind)
    assert sizes(tmp_path)[2] == 17


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos")
    add(tmp_path / "elsewhere" / "more" / "0.png", 1)
    add(tmp_path / "elsewhere" / "1.png", 2)
    (tmp_path / "photos" / "test" / "a" / "linked").symlink_to(tmp_path / "elsewhere" / "more")
    (tmp_path / "photos" / "test" / "b" / "x.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    shutil.move(tmp_path / "photos" / "train" / "a", tmp_path / "a")
    (tmp_path / "photos" / "train" / "a").symlink_to(tmp_path / "a")
    assert sizes(tmp_path / "photos") == [14, 2, 18]
    assert "1 pictures below test/a/ lie in folders of their own" in image_folder(str(tmp_path / "photos")).note


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("café", unicodedata.normalize("NFD", "café")), ("cat", "cat "), ("cat", "Cat"), ("big cat", "big  cat")],
)
def test_class_names_that_look_the_same_are_the_same(tmp_path: Path, ours: str, theirs: str) -> None:
    make_pictures(tmp_path)
    (tmp_path / "train" / "a").rename(tmp_path / "train" / ours)
    (tmp_path / "test" / "a").rename(tmp_path / "test" / theirs)
    data = image_folder(str(tmp_path))
    assert data.classes == tuple(sorted((ours, "b"))) and len(data.test) == 16
    assert f"test/{theirs} is class {ours!r}" in data.note


def test_letters_in_two_cases_are_two_classes_where_both_are_there(tmp_path: Path) -> None:
    assert image_folder(str(make_pictures(tmp_path, classes="aA"))).classes == ("A", "a")


def test_a_class_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    os.rename(os.fsencode(tmp_path / "train" / "a"), os.fsencode(tmp_path / "train") + b"/caf\xe9")  # noqa: PTH104
    with pytest.raises(DataError, match=r"has a folder named b'caf\\xe9', which is no UTF-8 text"):
        image_folder(str(tmp_path))


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_file_names_may_be_any_bytes(tmp_path: Path, memory: float) -> None:
    make_pictures(tmp_path)
    picture = tmp_path / "train" / "a" / "0.png"
    os.rename(os.fsencode(picture), os.fsencode(picture.parent) + b"/caf\xe9.png")  # noqa: PTH104
    assert len(image_folder(str(tmp_path), memory=memory).train) == 14


def test_a_class_of_unknown_endings_says_what_it_holds(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    for path in (tmp_path / "train" / "b").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(DataError, match=rf"{tmp_path}/train/b holds no pictures, but 8 .heic\nknown endings: .*\.jpg"):
        image_folder(str(tmp_path))


def test_the_same_picture_in_two_places_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pictures(tmp_path)
    for number in range(3):
        shutil.copy(tmp_path / "train" / "a" / f"{number}.png", tmp_path / "test" / "a" / f"again{number}.png")
    shutil.copy(tmp_path / "train" / "a" / "5.png", tmp_path / "train" / "b" / "5 again.png")
    image_folder(str(tmp_path))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("the same pictures: 3 of test in train too, 1 more than once in train, from which validation is "
                         "cut, 1 in two classes")  # fmt: skip


# --- evaluating on other data

TRAIN = ["teacher=smallcnn", "teacher.widths=[4]", "teacher.fit.epochs=0", "student=tinycnn", "schedule=constant",
         "schedule.train.epochs=1", "report=false", "dataset=image_folder", "dataset.root=photos", "run_dir=run"]  # fmt: skip


@pytest.fixture
def trained(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", classes="abc")
    assert distill("train", *TRAIN) == 0


@pytest.mark.parametrize("parts", [("test",), ("val",), ()])
def test_eval_needs_only_what_it_reads(
    trained: None, tmp_path: Path, parts: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    make_pictures(tmp_path / "new", parts or (".",), classes="bc")
    for path in (tmp_path / "new").rglob("*.png"):  # of another size
        Image.open(path).resize((40, 30)).save(path)
    capsys.readouterr()
    assert distill("eval", "ckpt=run", "dataset.root=new", "predictions=p.csv") == 0
    assert f"data: test: {(*parts, 'new')[0]}/" in capsys.readouterr().err
    labels = [line.split(",")[1] for line in Path("p.csv").read_text().splitlines()[1:]]
    assert labels == ["1"] * 8 + ["2"] * 8  # b and c, as the student knows them


def test_eval_gives_of_its_own_data_what_the_run_gave(trained: None) -> None:
    for split, number in (("train", 21), ("val", 3), ("test", 24)):
        assert distill("eval", "ckpt=run", f"split={split}", "predictions=p.csv") == 0
        assert len(Path("p.csv").read_text().splitlines()) == number + 1


def test_eval_refuses_a_class_that_the_student_does_not_know(
    trained: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pictures(tmp_path / "new", ("test",), classes="abd")
    assert distill("eval", "ckpt=run", "dataset.root=new") == 4
    assert "it does not know the data's d" in capsys.readouterr().err
    assert distill("eval", "ckpt=run", "dataset.root=new", "split=val") == 3
    assert "val/<class>/" in capsys.readouterr().err
