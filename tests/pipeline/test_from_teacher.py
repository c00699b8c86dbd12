"""Proves a run whose student is made of its teacher: one table, the same start for both students, and a card without a teacher."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers import distill, read_json

from distill_cli.models.deployable import Deployable

WORDS = ["teacher=resnet8x4", "teacher.widths=[16,16,16,32]", "teacher.fit.epochs=1", "schedule=constant",
         "schedule.train.epochs=1", "report=false", "baseline=true"]  # fmt: skip


@pytest.mark.parametrize("way", ["prune=0.5", "low_rank=0.5"])
def test_teacher_derived_labels_only_and_distilled_stand_in_one_table(way: str, tmp_path: Path) -> None:
    assert distill("train", *WORDS, f"student.from_teacher.{way}", "run_dir=run") == 0
    test = read_json(tmp_path / "run" / "summary.json")["test"]
    assert set(test) == {"teacher", "student", "student_last", "student_start", "baseline"}
    params = read_json(tmp_path / "run" / "summary.json")["params"]
    assert params["student"] < 0.6 * params["teacher"]
    # Elsewhere, without the teacher, and after a learning rate that moves nothing it is what it was made as.
    words = ["optimizer.lr=1e-12", f"student.from_teacher.{way}", "run_dir=still"]
    assert distill("train", *WORDS, *words) == 0
    still = read_json(tmp_path / "still" / "summary.json")["test"]
    for who in ("student", "baseline"):
        assert still[who]["nll"] == pytest.approx(test["student_start"]["nll"], abs=0.5)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    shutil.rmtree(tmp_path / "outputs")
    assert distill("eval", "ckpt=moved") == 0
    found = read_json(tmp_path / "moved" / "eval" / "digits-test.json")["student"]
    assert found["accuracy"] == test["student"]["accuracy"]


def test_a_pruned_student_is_quantised_and_resumed(tmp_path: Path) -> None:
    words = [*WORDS[:3], "schedule=quantize", "schedule.imitate.epochs=1", "schedule.refine.epochs=0",
             "report=false",
             "schedule.quantize.epochs=1", "teacher.depth=14",
             "student.from_teacher.prune=0.5", "student.from_teacher.layers=1"]  # fmt: skip
    assert distill("train", *words, "run_dir=run") == 0
    test = read_json(tmp_path / "run" / "summary.json")["test"]
    assert {"student_start", "student_fp32", "student_int8"} <= set(test)
    kinds = [edit["kind"] for edit in read_json(tmp_path / "run" / "model.json")["model"]["edits"]]
    assert kinds == ["keep", "resize", "fold", "quantize"]
    assert torch.isfinite(next(iter(Deployable.read(tmp_path / "run").network.parameters()))).all()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["student=tinycnn"], "student=tinycnn: student.from_teacher makes the student of its teacher"),
        (["student.widths=[4,4]"], "student.widths=[4,4]: student.from_teacher makes the student of its teacher"),
        (["student.from_teacher.prune=1"], "student.from_teacher.prune"),
        (["+model@chain.first=tinycnn", "+chain.first.from_teacher.prune=0.5"], "chain.first.from_teacher: a link"),
        (["teacher.joint=true"], "it is made of its teacher, but teacher.joint"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_said_along_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *WORDS[:-1], "student.from_teacher.prune=0.5", *words) == 2
    assert told in capsys.readouterr().err
