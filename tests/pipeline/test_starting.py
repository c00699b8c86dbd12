"""Proves where a student may start from, weights of a run or of a file, and when a run may train longer than it was told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICK, distill, read_json, rows, without_times
from safetensors.torch import load_file, save_file

from distill_cli.base import files
from distill_cli.config.load import load
from distill_cli.training import job

BRIEF = [*QUICK, "dataset.limit=200", "threads=1", "schedule=constant"]
BRIEF = [word for word in BRIEF if not word.startswith(("schedule.imitate", "schedule.refine"))]
STEADY = [*BRIEF, "optimizer.curve=constant", "optimizer.warmup=0"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of one epoch whose curve is constant, and its teacher."""
    place = tmp_path_factory.mktemp("starting")
    words = [f"output_dir={place / 'outputs'}", f"run_dir={place / 'run'}"]
    assert distill("train", *STEADY, "schedule.train.epochs=1", *words) == 0
    return place


def student_of(*words: str) -> dict[str, Any]:
    """The student's weights before the first step of a run of these settings."""
    return job.read(load("train", [*BRIEF, *words])).student.net.state_dict()


def same(state: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(state[name], tensor) for name, tensor in other.items())


def test_a_student_starts_from_a_run_a_folder_of_ours_or_a_file(places: Path, tmp_path: Path) -> None:
    trained = load_file(places / "run" / "student.safetensors")
    other = {f"module.{k}": v * 2 for k, v in trained.items()}
    torch.save({"model": other, "student": {k: v * 3 for k, v in trained.items()}, "epoch": 3}, tmp_path / "theirs.pth")
    save_file({**trained, "fc.weight": torch.ones(7, 784), "fc.bias": torch.ones(7)}, tmp_path / "seven.safetensors")
    fresh = student_of()
    for start in (places / "run", places / "run" / "student.safetensors"):
        assert same(student_of(f"student.checkpoint={start}"), trained)
    assert same(student_of(f"student.checkpoint={tmp_path / 'theirs.pth'}"), {k: v * 3 for k, v in trained.items()})
    seven = student_of(f"student.checkpoint={tmp_path / 'seven.safetensors'}")
    assert same(seven, {k: v for k, v in trained.items() if not k.startswith("fc.")})
    assert torch.equal(seven["fc.weight"], fresh["fc.weight"])  # a head of ten classes is new


def test_the_start_is_told_and_is_part_of_what_a_run_and_its_baseline_are(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(places / "outputs", "outputs")
    words = [*BRIEF, "schedule.train.epochs=1", "baseline=true"]
    torch.save(load_file(places / "run" / "student.safetensors"), "start.pth")
    for name, more in {"one": [], "two": ["student.checkpoint=start.pth"]}.items():
        assert distill("train", *words, *more, f"run_dir={name}") == 0
    assert "start      start.pth" in capsys.readouterr().out
    first, second = (read_json(tmp_path / name / "summary.json")["test"] for name in ("one", "two"))
    assert first["baseline"]["nll"] != second["baseline"]["nll"]
    assert first["teacher"] == second["teacher"]
    assert len(list((tmp_path / "outputs" / "baselines").glob("[!.]*"))) == 2
    (tmp_path / "two" / "summary.json").unlink()
    shutil.move("start.pth", "moved.pth")
    assert distill("resume", "two", "student.checkpoint=moved.pth") == 0  # the weights count, not where they lie
    torch.save({k: v + 1 for k, v in torch.load("moved.pth").items()}, "moved.pth")
    (tmp_path / "two" / "summary.json").unlink()
    assert distill("resume", "two", "student.checkpoint=moved.pth") == 4
    assert "was started on something else:\n    student: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("nowhere", "there is no file"),
        ("outputs", "there is no"),
        ("unfinished", "holds a run that is not finished"),
        ("wide.pth", "does not fit SmallCNN"),
    ],
)
def test_a_start_that_cannot_be_used_is_exit_4_before_anything_is_trained(
    start: str, said: str, places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(places / "outputs", "outputs")
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    shutil.copy(places / "run" / "checkpoints" / "last.pt", tmp_path / "unfinished" / "checkpoints")
    torch.save(load_file(next((places / "outputs" / "teachers").glob("[!.]*/*.safetensors"))), "wide.pth")
    assert distill("train", *BRIEF, f"student.checkpoint={start}") == 4
    assert said in capsys.readouterr().err
    if start == "unfinished":  # as the hint says
        assert student_of("student.checkpoint=unfinished/checkpoints/last.pt")


def result(run: Path) -> list[Any]:
    summary = read_json(run / "summary.json")
    kept = [summary[key] for key in ("test", "val", "best", "params")]
    return [*kept, [without_times(row) for row in rows(run)], files.sha256(run / "student.safetensors")]


@pytest.mark.parametrize(
    "more", [[], ["teacher.joint=true"], ["objective.kd.weight=auto", "objective.kd.balance_steps=6"]]
)
def test_a_run_that_trains_longer_is_to_the_bit_the_one_that_was_longer_from_the_start(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "grown" / "report.html"
    words = [*STEADY, *more, f"report={not more}".lower()]
    assert distill("train", *words, "schedule.train.epochs=2", "run_dir=grown") == 0
    before = page.exists() and page.read_text()
    for epochs in (5,) if more else (3, 5):
        assert distill("resume", "grown", f"schedule.train.epochs={epochs}") == 0
    assert distill("train", *words, "schedule.train.epochs=5", "run_dir=whole") == 0
    assert result(tmp_path / "grown") == result(tmp_path / "whole")
    assert more or page.read_text() != before
    capsys.readouterr()
    assert distill("resume", "grown") == 0
    assert "finished" in capsys.readouterr().err
    assert read_json(tmp_path / "grown" / "run.json")["config"]["schedule"]["train"]["epochs"] == 5


@pytest.mark.parametrize(
    ("made", "asked", "why"),
    [
        (BRIEF, "schedule.train.epochs=3", "optimizer.curve=cosine"),
        ([*STEADY, "optimizer.warmup=0.1"], "schedule.train.epochs=3", "optimizer.warmup"),
        ([*STEADY, "schedule.train.T=[4,1]"], "schedule.train.epochs=3", "T moves through train"),
        ([*STEADY, "objective.kd.warmup=0.5"], "schedule.train.epochs=3", "an objective's warmup"),
        (STEADY, "schedule.train.epochs=1", ""),
        (STEADY, "T=5", ""),
    ],
    ids=["curve", "warmup", "ramp", "objective", "shorter", "another key"],
)
def test_what_would_have_been_otherwise_is_refused_with_the_line_for_a_new_run(
    made: list[str], asked: str, why: str, places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(places / "outputs", "outputs")
    assert distill("train", *made, "schedule.train.epochs=2", "run_dir=run") == 0
    before = (tmp_path / "run" / "summary.json").read_bytes(), (tmp_path / "run" / "run.json").read_bytes()
    capsys.readouterr()
    assert distill("resume", "run", asked) == 4
    said = capsys.readouterr().err
    run = tmp_path / "run"
    assert f"distill train --from {run} {asked} student.checkpoint={run}" in said
    assert ("it cannot just train longer" in said) == bool(why)
    assert why in said
    assert ((run / "summary.json").read_bytes(), (run / "run.json").read_bytes()) == before
    if why == "optimizer.curve=cosine":
        assert distill("train", "--from", str(run), asked, f"student.checkpoint={run}", "run_dir=on") == 0
        assert len(rows(tmp_path / "on")) == 3
