"""Proves what a run does where labels are missing: it learns from the teacher alone there, is judged by what can be judged,
says so, goes on to the same bits, and refuses what needs the labels. The data are a user's own: the package knows only
that a target is -1.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from helpers import distill, killed, read_json, rows, without_times

CODE = '''
from dataclasses import replace

import torch

from distill_cli.data import Data
from distill_cli.data.digits import digits


def partly(train: int = 100, val: int = 100, test: int = 100) -> Data:
    """Digits, of whose samples so many in a hundred have labels."""
    data = digits(size=8)
    shares = {"train": train, "val": val, "test": test}
    parts = {name: getattr(data, name) for name in shares}
    hidden = {name: torch.arange(len(part)) % 100 >= shares[name] for name, part in parts.items()}
    splits = {name: replace(part, targets=part.targets.where(~hidden[name], -1)) for name, part in parts.items()}
    return replace(data, **splits, digest=f"{data.digest}-{train}-{val}-{test}")
'''
SHORT = ["teacher=smallcnn", "teacher.widths=[8]", "teacher.fit.epochs=1", "student=tinycnn", "student.widths=[4,8]",
         "schedule=constant", "schedule.train.epochs=2", "optimizer.lr=0.003", "report=false", "threads=1"]  # fmt: skip
PARTLY = [*SHORT, "dataset=partly"]


@pytest.fixture(autouse=True)
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "partly_labelled.py").write_text(CODE)
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "partly.yaml").write_text("# made up\n_target_: partly_labelled.partly\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "partly_labelled", raising=False)


@pytest.fixture
def ready(tmp_path: Path) -> list[str]:
    """A teacher that is ready, fitted elsewhere."""
    assert distill("teacher", *PARTLY, "output_dir=elsewhere") == 0
    (folder,) = (path for path in (tmp_path / "elsewhere" / "teachers").iterdir() if path.name[0] != ".")
    kept = [word for word in PARTLY if not word.startswith("teacher.fit")]
    return [*kept, f"teacher.checkpoint={folder}", "alpha=1"]


def unfolded(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def test_without_any_label_a_student_learns_from_its_teacher_and_is_judged_by_it(
    tmp_path: Path, ready: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = ["dataset.train=0", "dataset.val=0", "dataset.test=0"]
    nothing = [f"+{word}" for word in nothing]
    assert distill("train", *ready, *nothing, "report=true", "schedule.train.epochs=3", "run_dir=run") == 0
    said = capsys.readouterr()
    header = unfolded(said.out)
    assert "none in train; none in val; none in test; samples without one learn from the teacher alone" in header
    assert "the best epoch has the lowest val.kl" in header and "CE" not in said.out.split("L = ")[1].split("\n")[0]
    assert "val kl " in said.err and "test has no labels: there the student decides as its teacher on " in said.out
    assert "What did distillation buy?" not in said.out
    summary, epochs = read_json(tmp_path / "run" / "summary.json"), rows(tmp_path / "run")
    assert all(row["loss"].keys() == {"total", "kd"} and row["chosen_by"] == "val.kl" for row in epochs)
    assert summary["val"]["student"].keys() == {"kl", "agreement"} and summary["val"]["teacher"] == {}
    assert summary["best"]["epoch"] == min(epochs, key=lambda row: row["val"]["kl"])["epoch"]
    assert epochs[-1]["val"]["kl"] < epochs[0]["val"]["kl"]  # something was learnt
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Agreement on test" in page and "without a label" in page and "Confusion matrix" not in page
    assert distill("report", "run", "run") == 0  # a leaderboard says what it compares by
    board = capsys.readouterr().out
    assert "what is called accuracy is agreement with the teacher" in board and "baseline=true" not in board
    assert distill("eval", "ckpt=run", "trust=[partly_labelled]", "predictions=p.csv", "per_class=true") == 0
    assert read_json(tmp_path / "run" / "eval" / "partly-test.json")["student"] == pytest.approx(
        summary["test"]["student"], rel=1e-4
    )
    with (tmp_path / "p.csv").open() as file:
        assert {line["label"] for line in csv.DictReader(file)} == {""}
    (tmp_path / "far" / "alone").mkdir(parents=True)
    for name in ("student.safetensors", "model.json"):
        shutil.copy(tmp_path / "run" / name, tmp_path / "far" / "alone")
    capsys.readouterr()
    assert distill("eval", "ckpt=far/alone", "trust=[partly_labelled]") == 3
    assert "test has no labels, and there is no teacher: nothing can be measured" in capsys.readouterr().err


def test_labels_of_val_and_test_judge_where_train_has_none(tmp_path: Path, ready: list[str]) -> None:
    assert distill("train", *ready, "+dataset.train=0", "+dataset.test=50", "run_dir=run") == 0
    summary, epochs = read_json(tmp_path / "run" / "summary.json"), rows(tmp_path / "run")
    assert epochs[0]["chosen_by"] == "val.accuracy" and 0 < summary["test"]["student"]["accuracy"] < 1


def test_half_of_the_labels_teach_and_all_samples_learn_from_the_teacher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A batch of 8 at a time, so that some have no label at all.
    words = ["train", *PARTLY, "+dataset.train=10", "batch_size=8", "baseline=true", "save_every=100", "run_dir=run"]
    words[1:1] = ["dataset.augmentation.flip=true", "dataset.views=2"]  # answers are kept by view
    assert distill(*words) == 0
    said = capsys.readouterr()
    assert "130 of 1,293 in train; samples without one learn from the teacher alone" in unfolded(said.out)
    for label in ("teacher", "baseline"):
        assert f"{label}: learns from the 130 of 1,293 training samples that have labels" in said.err
    assert "baseline: passes 9.9 times as often" in said.err
    assert "baseline  20/20" in said.err  # of 17 steps, the last of 1: 2 * 162
    epochs, weights = rows(tmp_path / "run"), (tmp_path / "run" / "student.safetensors").read_bytes()
    assert epochs[-1]["step"] == 2 * 162 and epochs[-1]["loss"]["ce"] < epochs[0]["loss"]["ce"] < 3
    # Killed and gone on with, and each step in parts, it is the same.
    shutil.rmtree(tmp_path / "run")
    killed(*words, saves=2)
    assert distill("resume", "run") == 0
    assert [without_times(row) for row in rows(tmp_path / "run")] == [without_times(row) for row in epochs]
    assert (tmp_path / "run" / "student.safetensors").read_bytes() == weights
    assert distill(*words[:-1], "optimizer.accumulate=3", "rows_at_once=2", "run_dir=cut") == 0
    for one, other in zip(rows(tmp_path / "cut"), epochs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.01)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["alpha=0.5"], "schedule.train.alpha: goes to 0.5, which leaves 0.5 to labels, and train has none", "alpha=1"),
        (["schedule.train.alpha=[1,0]"], "schedule.train.alpha: goes to 0, which leaves 1 to labels", "alpha=1"),
        (["objective=ce"], "schedule.train: objective=ce learns from labels, and train has none", "objective=kd alpha=1"),
        (["objective=dkd"], "objective.dkd: reads the label of every sample, and 1,293 of 1,293", "objective=kd"),
        (["objective=crd"], "objective.crd: reads the label of every sample", "objective=kd"),
        (["objective.kd.weight=auto"], "weight=auto: is found against the labels' gradient", "give a number"),
        (["baseline=true"], "baseline=true needs labels, and train has none", "baseline=false"),
        (["teacher.fit.epochs=1"], "fitting the teacher needs labels, and train has none", "teacher.checkpoint="),
        (["dataset.class_weights=balanced"], "dataset.class_weights=balanced: train has no labels", "leave"),
        (["+dataset.val=0", "optimize=val.f1"], "optimize=val.f1: validation has no labels", "optimize=val.kl"),
        (["+dataset.train=50", "objective=nkd"], "objective.nkd: reads the label of every sample, and 643 of", "objective=kd"),
        (["+dataset.train=50", "teacher.checkpoint=null", "teacher.joint=true"], "teacher.joint: learns from the label", ""),
        (["+dataset.val=0", "baseline=true"], "baseline=true needs labels, and", "baseline=false"),
    ],
)  # fmt: skip
def test_what_needs_labels_is_refused(
    words: list[str], message: str, hint: str, ready: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ["+dataset.train=0", *words] if "+dataset.train=50" not in words else words
    assert distill("train", *ready, *kept, "run_dir=run") == 2
    shown = capsys.readouterr().err
    first, _, second = shown[shown.index("error: ") :].partition("\n")
    assert message in first and hint in second
