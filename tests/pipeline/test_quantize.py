"""Proves a run with a stage of 8 bits: what it starts from, what its summary shows, and who can take its student."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers import QUICK, distill, killed, read_json, rows

from distill_cli.base import files
from distill_cli.models import quantized
from distill_cli.models.deployable import Deployable

INT8 = ["schedule=quantize", "schedule.quantize.epochs=2"]
WHO = {"teacher", "student", "student_last", "student_fp32", "student_int8"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("quantised")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert distill("train", *QUICK, *INT8, "baseline=true", "run_dir=run") == 0
    return place / "run"


def test_the_summary_has_the_student_before_and_after_rounding_side_by_side(run: Path) -> None:
    summary = read_json(run / "summary.json")
    assert set(summary["test"]) == WHO | {"baseline"}
    assert summary["fp32"] == {"epoch": 2} and summary["best"]["stage"] == "quantize"
    # Rounding moves the answers, and learning under it moves them again.
    divergences = [summary["test"][who]["kl"] for who in ("student_fp32", "student_int8", "student")]
    assert len(set(divergences)) == 3


def test_the_fp32_student_is_to_the_bit_what_a_run_without_that_stage_gives(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    assert distill("train", *QUICK, f"run_dir={tmp_path / 'plain'}") == 0
    assert files.sha256(tmp_path / "plain" / "student.safetensors") == files.sha256(
        run / "fp32" / "student.safetensors"
    )


def test_weights_are_of_few_steps_once_rounded_and_the_card_has_the_ranges(run: Path) -> None:
    student, whole = Deployable.read(run), Deployable.read(run / "fp32")
    assert not quantized.is_quantized(whole.network.net)
    layers = [module for module in student.network.net.modules() if isinstance(module, quantized.Quantized)]
    assert len(layers) == 3
    for layer in layers:
        written = quantized.Stored(layer).weight
        assert written.dtype == torch.int8 and int(written.abs().max()) == 64
    *_, rounding = read_json(run / "model.json")["model"]["edits"]
    assert set(rounding["ranges"]) == {"features.0", "features.3", "fc"}


@pytest.mark.parametrize("which", ["", "fp32", "checkpoints/last.pt"])
def test_eval_measures_what_the_summary_says(which: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    assert distill("eval", f"ckpt={run / which}") == 0
    folder, suffix = (run / "eval", "-last") if which.endswith(".pt") else (run / which, "")
    folder = folder if which else run / "eval"
    found = read_json((folder if which != "fp32" else run / "fp32") / f"digits-test{suffix}.json")
    who = {"": "student", "fp32": "student_fp32"}.get(which, "student_last")
    assert found["student"] == pytest.approx(read_json(run / "summary.json")["test"][who], abs=1e-12)


def test_a_student_of_8_bits_teaches_and_another_starts_from_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    words = ["teacher=tinycnn", f"teacher.checkpoint={run}", "student=tinycnn", f"student.checkpoint={run}",
             "schedule=constant", "schedule.train.epochs=1", "report=false", "optimizer.lr=1e-9"]  # fmt: skip
    assert distill("train", *words, f"run_dir={tmp_path / 'next'}") == 0
    before, after = (read_json(place / "summary.json")["test"] for place in (run, tmp_path / "next"))
    assert after["teacher"]["accuracy"] == before["student"]["accuracy"]
    assert not quantized.is_quantized(Deployable.read(tmp_path / "next").network.net)
    assert after["student"]["accuracy"] == pytest.approx(before["student"]["accuracy"], abs=0.02)


def test_the_best_epoch_is_one_of_8_bits_and_a_run_killed_before_the_stage_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    words = [*QUICK, *INT8, "baseline=true", f"run_dir={tmp_path / 'run'}"]
    killed("train", *words, saves=2)
    assert [row["stage"] for row in rows(tmp_path / "run")] == ["imitate", "refine"]
    assert distill("train", *words) == 0
    assert read_json(tmp_path / "run" / "summary.json")["test"] == read_json(run / "summary.json")["test"]


def test_a_stage_after_one_of_8_bits_has_to_be_so_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *QUICK, "schedule.imitate.quantize=int8") == 2
    assert "schedule.refine.quantize: a stage before it is int8" in capsys.readouterr().err


def test_a_schedule_may_begin_in_8_bits(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    words = [*QUICK, "schedule.imitate.quantize=int8", "schedule.refine.quantize=int8"]
    assert distill("train", *words, f"student.checkpoint={run / 'fp32'}", f"run_dir={tmp_path / 'run'}") == 0
    before, after = (read_json(place / "summary.json") for place in (run, tmp_path / "run"))
    assert after["test"]["student_fp32"] == before["test"]["student_fp32"] and after["fp32"]["epoch"] == 0
    shutil.rmtree(tmp_path / "run")
