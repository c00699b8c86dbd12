"""Proves which pictures of a folder have labels, and where the names of the classes come from when no folder tells them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from helpers import distill, make_pictures, pictures_in, read_json, rows

from distill_cli.base.errors import ConfigError, DataError
from distill_cli.data import UNKNOWN, Data
from distill_cli.data.folder import image_folder

SHORT = ["dataset=image_folder", "teacher=smallcnn", "teacher.widths=[8]", "student=tinycnn", "student.widths=[4,8]",
         "schedule=constant", "schedule.train.epochs=1", "report=false", "threads=1"]  # fmt: skip


def flattened(folder: Path) -> None:
    """Put the pictures of the class folders beside each other."""
    for path in sorted(folder.glob("*/*.png")):
        path.rename(folder / f"{path.parent.name}-{path.name}")
    for inner in [path for path in folder.iterdir() if path.is_dir()]:
        inner.rmdir()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight pictures of each of two classes in train, val and test, those of train flat."""
    flattened(make_pictures(tmp_path / "q", ("train", "val", "test")) / "train")
    return tmp_path / "q"


def read(root: Path, classes: Sequence[str] = (), **how: object) -> Data:
    return image_folder(str(root), model_classes=lambda: classes, **how)  # type: ignore[arg-type]


def test_pictures_without_class_folders_have_no_labels(root: Path) -> None:
    data = read(root)
    assert data.train.targets.tolist() == [UNKNOWN] * 16 and data.classes == ("a", "b")
    assert data.val.complete and data.test.targets.tolist() == [0] * 8 + [1] * 8
    assert "no labels in train/: it has no class folders" in data.note
    assert read(root, ("b", "c", "a")).classes == ("b", "c", "a")  # a model may know more, in its own order
    assert read(root, ("x", "y")).classes == ("a", "b")  # or others
    turned = read(root, classes=["b", "a"])
    assert turned.classes == ("b", "a") and pictures_in(turned.test.take(torch.arange(8))).min() >= 100  # b is brighter


def test_where_no_folder_tells_the_classes_a_model_or_the_settings_do(root: Path) -> None:
    for part in ("val", "test"):
        flattened(root / part)
    with pytest.raises(DataError, match=r"train holds no class folders, so .* no labels.*\n.*dataset\.classes=\[a,b\]"):
        read(root)
    assert read(root, ("one", "two")).classes == read(root, classes=["one", "two"]).classes == ("one", "two")
    shutil.rmtree(root / "val")
    data = read(root, ("one", "two"))
    assert (len(data.train), len(data.val)) == (14, 2) and not len(data.val.labelled)  # cut all the same


def test_labels_of_train_can_be_left_out(tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "q")
    data = read(root, labels=False)
    assert not len(data.train.labelled) and not len(data.val.labelled) and data.test.complete
    assert "no labels in train/: dataset.labels=false" in data.note


def test_pictures_of_another_folder_are_trained_on_without_labels(tmp_path: Path) -> None:
    root, more = make_pictures(tmp_path / "q"), make_pictures(tmp_path / "q" / "more", ("deep",), number=3)
    data = read(root, unlabeled=str(more))
    assert (len(data.train), len(data.train.labelled), len(data.val)) == (20, 14, 2) and data.val.complete
    assert "6 pictures of more/ in train, without labels" in data.note
    known, unknown = pictures_in(data.train.take(data.train.labelled)), data.train.targets == UNKNOWN
    assert len(known) == 14 and int(unknown.sum()) == 6
    with pytest.raises(DataError, match=r"dataset\.unlabeled=.*nowhere: there is no such folder"):
        read(root, unlabeled=str(tmp_path / "nowhere"))


def test_a_student_learns_from_flat_pictures_and_is_measured_where_there_are_labels(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = make_pictures(tmp_path / "p", ("train", "val", "test"))
    assert distill("teacher", *SHORT, f"dataset.root={labelled}") == 0
    (teacher,) = (tmp_path / "outputs" / "teachers").glob("[!.]*")
    words = ["train", *SHORT, f"dataset.root={root}", f"teacher.checkpoint={teacher}"]
    assert distill(*words) == 2
    assert (
        "leaves 0.3 to labels, and train has none (test: test/; validation: val/; no labels" in capsys.readouterr().err
    )
    assert distill(*words, "alpha=1", "run_dir=labelled") == 0
    run = tmp_path / "labelled"
    assert "accuracy" in read_json(run / "summary.json")["test"]["student"]
    assert rows(run)[0]["loss"].keys() == {"total", "kd"}
    for part in ("val", "test"):  # nor there
        flattened(root / part)
    assert distill(*words, "alpha=1", "run_dir=run") == 0
    assert rows(tmp_path / "run")[0]["chosen_by"] == "val.kl"
    assert distill("eval", "ckpt=run") == 0  # the student's card names the classes
    assert "16 samples (0 with labels)" in " ".join(capsys.readouterr().out.split())


def test_the_labels_of_any_data_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from distill_cli.config.load import load as settings_of
    from distill_cli.data import load

    dataset = settings_of("train", ["dataset=digits", "dataset.labels=false", "dataset.size=8"]).dataset  # type: ignore[attr-defined]
    data = load(dataset, 0)
    assert not len(data.train.labelled) and not len(data.val.labelled) and data.test.complete
    dataset = settings_of("train", ["dataset=digits", "+dataset.unlabeled=more"]).dataset  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"dataset\.unlabeled: digits takes no such key"):
        load(dataset, 0)
