"""`distill predict` gives what `distill eval` measures, for whatever is named, and goes on past what cannot be read."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import QUICK, distill
from PIL import Image, ImageOps

from distill_cli import models
from distill_cli.base.errors import StorageError
from distill_cli.data import PictureSpec
from distill_cli.deploy.predicting import copied
from distill_cli.deploy.predictor import Predictor
from distill_cli.models import Classifier
from distill_cli.models.deployable import Deployable

CLASSES = ("bright", "dark", "mixed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ of three classes and run/, of a student of them."""
    home = tmp_path_factory.mktemp("predict")
    random = np.random.default_rng(0)
    for part, number in (("train", 30), ("test", 12)):
        for place, name in enumerate(CLASSES):
            folder = home / "photos" / part / name
            folder.mkdir(parents=True)
            for count in range(number):
                pixels = random.integers(0, 130, (20, 24, 3)) + (125, 0, 60)[place]
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{count:02}.jpg")
    before = Path.cwd()
    os.chdir(home)
    words = ["dataset=image_folder", "dataset.root=photos", "dataset.size=16", "student.widths=[4]", "run_dir=run"]
    assert distill("train", *QUICK, *words) == 0
    os.chdir(before)
    return home


def predicted(place: Path, given: str | Path, *words: str, code: int = 0, name: str = "p.csv") -> list[dict[str, Any]]:
    """The rows that the command writes."""
    assert distill("predict", f"ckpt={place / 'run'}", f"input={given}", f"output={name}", *words) == code
    text = Path(name).read_text()
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text)))


def test_a_folder_is_answered_as_evaluation_does_to_the_byte(place: Path) -> None:
    rows = predicted(place, place / "photos" / "test")
    assert distill("eval", f"ckpt={place / 'run'}", "predictions=e.csv") == 0
    evaluated = list(csv.DictReader(io.StringIO(Path("e.csv").read_text())))
    assert len(rows) == len(evaluated) == 36
    for row, other in zip(rows, evaluated, strict=True):
        assert [row[f"p_{name}"] for name in CLASSES] == [other[f"student_{name}"] for name in CLASSES]
        assert row["predicted"] == CLASSES[int(other["predicted"])]
        assert row["confidence"] == max((row[f"p_{name}"] for name in CLASSES), key=float)
        assert not row["error"] and Path(row["path"]).is_file()


def test_batches_order_and_workers_change_next_to_nothing(place: Path) -> None:
    first = predicted(place, place / "photos" / "test")
    table = "path\n" + "".join(f"{row['path']}\n" for row in reversed(first))
    Path("files.csv").write_text(table)
    for words in (["batch_size=1"], ["batch_size=7", "workers=2"]):
        again = predicted(place, "files.csv", *words)
        assert [row["path"] for row in again] == [row["path"] for row in reversed(first)]
        for one, other in zip(again, reversed(first), strict=True):
            assert max(abs(float(one[f"p_{name}"]) - float(other[f"p_{name}"])) for name in CLASSES) <= 1e-6


def test_what_cannot_be_read_is_a_row_with_its_reason_and_the_exit_code_3(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = place / "photos" / "test" / "dark" / "03.jpg"
    Path("cut.jpg").write_bytes(good.read_bytes()[:300])
    Path("text.png").write_text("no picture")
    Path("files.csv").write_text(f"path,note\ncut.jpg,x\n{good},x\nmissing.jpg,x\ntext.png\n,x\ntext.png,x\n")
    rows = predicted(place, "files.csv", code=3)
    assert [bool(row["error"]) for row in rows] == [True, False, True, True, True, True]
    assert float(rows[1]["p_dark"]) == pytest.approx(float(predicted(place, good)[0]["p_dark"]), abs=1e-6)
    assert not rows[0]["p_dark"]
    for row, reason in zip(rows, ("cut.jpg", "", "missing.jpg", "1 columns", "no path", "identify"), strict=True):
        assert reason in row["error"]
    assert "5 of 6 inputs could not be read" in capsys.readouterr().err
    lines = predicted(place, "files.csv", "workers=1", code=3, name="p.jsonl")
    assert [line.get("error", "") for line in lines] == [row["error"] for row in rows]
    assert lines[1]["probabilities"]["dark"] == float(rows[1]["p_dark"])


def test_the_likeliest_classes_and_a_threshold(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = place / "photos" / "test"
    every = predicted(place, test)
    best = predicted(place, test, "top=2", "threshold=0.5")
    assert list(best[0]) == ["path", "predicted", "confidence", "error", "top_1", "p_1", "top_2", "p_2"]
    for row, other in zip(best, every, strict=True):
        likeliest = sorted(CLASSES, key=lambda name: -float(other[f"p_{name}"]))[:2]
        assert [row["top_1"], row["top_2"]] == likeliest
        assert row["p_2"] == other[f"p_{likeliest[1]}"]
        assert row["predicted"] == (likeliest[0] if float(row["confidence"]) >= 0.5 else "")
    assert "36 inputs" in capsys.readouterr().out


def test_pictures_are_copied_into_folders_of_their_classes(place: Path) -> None:
    test = place / "photos" / "test"
    sure = "threshold=0.4"
    rows = predicted(place, test, sure, "sort_into=sorted")
    copies = sorted(path for path in Path("sorted").rglob("*") if path.is_file())
    assert len(copies) == sum(bool(row["predicted"]) for row in rows) > 20  # the same names in three folders
    for row in rows:
        if row["predicted"]:
            content = Path(row["path"]).read_bytes()
            assert any(copy.read_bytes() == content for copy in Path("sorted", row["predicted"]).iterdir())
    predicted(place, test, sure, "sort_into=sorted")
    assert sorted(path for path in Path("sorted").rglob("*") if path.is_file()) == copies


def test_a_class_has_a_folder_of_its_name_unless_that_leads_elsewhere() -> None:
    Path("one.jpg").write_bytes(b"1")
    for name in ("dünkel 1", "../out", "", ".hidden", "a/b", "x" * 300):
        copy = copied(Path("one.jpg"), Path("sorted"), name)
        assert copy.parent.parent == Path("sorted") and copy.is_file()
    assert Path("sorted", "dünkel 1", "one.jpg").is_file() and not Path("out").exists()
    assert len({path.parent.name for path in Path("sorted").rglob("*.jpg")}) == 6


def test_no_half_of_a_picture_is_left_where_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:3])
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    monkeypatch.setattr("shutil.copy2", full)
    Path("one.jpg").write_bytes(b"123456")
    with pytest.raises(StorageError, match=r"sorted/a/one\.jpg needs at least 6 B"):
        copied(Path("one.jpg"), Path("sorted"), "a")
    assert not list(Path("sorted/a").iterdir())


def test_paths_through_a_pipe_are_answered_and_shown(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = sorted((place / "photos" / "test" / "dark").iterdir())
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{path}\n" for path in paths)))
    assert [row["path"] for row in predicted(place, "-")] == [str(path) for path in paths]
    assert capsys.readouterr().out.count("dark/") == 12  # a line of the table each


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["input=nothing.jpg"], 3, "there is no such file or folder"),
        ([], 2, "input: what is to be answered?"),
        (["input=.", "output=p.txt"], 2, "ends in .csv or .jsonl"),
        (["input=."], 3, "holds no pictures"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    place: Path, words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("predict", f"ckpt={place / 'run'}", *words) == code
    assert told in capsys.readouterr().err


def test_without_a_checkpoint_the_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("predict", "input=x") == 2
    assert "ckpt: which checkpoint?" in capsys.readouterr().err


def test_a_student_of_pictures_that_are_no_squares_is_given_photos_of_its_shape(place: Path) -> None:
    student, spec = Predictor.read(place / "run"), PictureSpec(3, (12, 20), (0.5,), (0.5,))
    node = {"_target_": "distill_cli.models.smallcnn.SmallCNN", "widths": [4], "in_channels": None}
    wide = Classifier(models.build(node, "student", spec, 3).net, spec)
    Path("wide").mkdir()
    Deployable({**student.card, "model": node, "input": spec.as_card()}, wide).write(Path("wide").absolute())
    photo = place / "photos" / "test" / "dark" / "03.jpg"
    assert distill("predict", "ckpt=wide", f"input={photo}", "output=p.csv") == 0
    (row,) = csv.DictReader(io.StringIO(Path("p.csv").read_text()))
    pixels = np.array(ImageOps.fit(Image.open(photo), (20, 12), Image.Resampling.BILINEAR))
    expected = Predictor.read(Path("wide"))(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])[0]
    assert [float(row[f"p_{name}"]) for name in CLASSES] == pytest.approx(expected.tolist(), abs=1e-9)
