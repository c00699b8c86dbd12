"""Proves what the study's tables say: equal trials for each row, a choice made on validation, statistics as by hand."""

from __future__ import annotations

import argparse
import csv
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT
from scipy import stats

from distill_cli.config.load import load

sys.path.append(str(ROOT / "tests" / "bench"))
study, rows, table = (importlib.import_module(name) for name in ("study", "study_rows", "study_table"))

PLAN = rows.ordered()
LABELS, KD, MSE = (0.88, 0.884, 0.879, 0.882, 0.881), (0.89, 0.893, 0.889, 0.894, 0.888), (0.881, 0.883)


def named(dataset: str, name: str) -> Any:
    return next(row for row in PLAN if row.key == (dataset, name))


def line(row: Any, phase: str, number: int, setting: Any, **numbers: float) -> dict[str, str]:
    """A raw row as the bench writes it."""
    found = dict.fromkeys(table.FIELDS, "") | {"part": row.part, "dataset": row.dataset, "row": row.name}
    found |= {"phase": phase, "number": f"{number}", "seed": f"{0 if phase == 'trial' else number}"}
    found |= {name: study.told(getattr(setting, name)) for name in table.SETTING}
    return found | {name: f"{value:.6g}" for name, value in numbers.items()}


def lines(name: str, val: Sequence[float], test: Sequence[float]) -> list[dict[str, str]]:
    """A row's trials by their accuracy on validation, and repeats of its best one by that on test."""
    row = named("fashion", name)
    settings = rows.settings(row, len(val))
    found = [line(row, "trial", n, settings[n], val_accuracy=value, val_nll=0.3) for n, value in enumerate(val)]
    best = settings[int(np.argmax(val))]
    more = {
        "val_accuracy": 0.9,
        "test_kl": 0.1,
        "test_agreement": 0.95,
        "seconds_per_epoch": 9.0,
        "teacher_test_accuracy": 0.94,
    }
    return found + [line(row, "seed", n, best, test_accuracy=value, **more) for n, value in enumerate(test, 1)]


@pytest.fixture
def made() -> list[dict[str, str]]:
    """Raw rows of ce, kd, and of logit_mse with two seeds of five."""
    return [
        *lines("ce", [0.87, 0.88, 0.86], LABELS),
        *lines("kd", [0.88, 0.87, 0.89], KD),
        *lines("logit_mse", [0.88, 0.87, 0.86], MSE),
    ]


def test_the_plan_has_every_row_once_and_students_train_equally_long() -> None:
    assert len({row.key for row in PLAN}) == len(PLAN) == len(rows.ROWS)
    known = {row.key for row in PLAN}
    for row in PLAN:
        assert all((row.dataset, name) in known for name in row.against)
        assert {named(row.dataset, name).epochs for name in row.against} == {row.epochs}, row.name
        if row.part != "conditions" and row.against == ("ce", "kd"):
            assert row.epochs == rows.DATASETS[row.dataset].epochs, row.name


def test_every_row_tries_as_much_the_textbooks_setting_first_and_the_same_draws_each_time() -> None:
    for row in PLAN:
        if not (ROOT / "conf" / "objective" / f"{row.objective}.yaml").exists():
            continue
        settings = rows.settings(row, 4)
        assert len(set(settings)) == 4, f"{row.name} tries a setting twice"
        assert settings == rows.settings(row, 4) and settings[:3] == rows.settings(row, 3)
        assert settings[0].lr == rows.DATASETS[row.dataset].lr
        for (T, alpha, weight, lr), setting in zip(rows.TRIALS[1:4], settings[1:], strict=True):
            assert setting.lr == pytest.approx(lr * settings[0].lr)
            assert setting.T in (None, T) and setting.alpha in (None, alpha)
            assert setting.weight is None or setting.weight == pytest.approx(weight * settings[0].weight)
    lr = rows.DATASETS["fashion"].lr
    assert rows.settings(named("fashion", "ce"), 2)[0] == rows.Setting(None, None, None, 4e-3)
    assert rows.settings(named("fashion", "kd"), 1) == [rows.Setting(3.0, 0.7, 1.0, 4e-3)]
    assert rows.settings(named("fashion", "virtual_teacher"), 1) == [rows.Setting(20.0, 0.1, 1.0, 4e-3)]


def test_what_a_row_tunes_is_what_has_an_effect_on_it() -> None:
    for name, tuned in rows.TUNED.items():
        if (ROOT / "conf" / "objective" / f"{name}.yaml").exists():
            module, _, kind = rows._conf(f"objective/{name}.yaml")[name]["_target_"].rpartition(".")
            objective = getattr(importlib.import_module(module), kind)
            assert ("T" in tuned.split()) == objective.uses_T, name
            assert ("alpha" in tuned.split()) == objective.alpha_weighted, name


@pytest.mark.parametrize("row", [row for row in PLAN if row.part == "arrangements"], ids=lambda row: row.name)
def test_recipes_compose(row: Any, tmp_path: Path) -> None:
    words = study.Job(row, "trial", 1, rows.settings(row, 2)[1]).words()
    settings = load("train", [word.format(root=tmp_path, teacher=tmp_path) for word in words])
    assert sum(stage.epochs for stage in settings.schedule.values()) == row.epochs


def test_validation_chooses_even_where_test_prefers_another_trial(made: list[dict[str, str]]) -> None:
    for found in made:
        if found["phase"] == "trial":
            found["test_accuracy"] = f"{1 - float(found['val_accuracy'])}"
    chosen = table.Study(made, 3, 5).chosen
    assert [chosen["fashion", name]["number"] for name in ("ce", "kd", "logit_mse")] == ["1", "2", "0"]


def test_ties_go_to_the_lower_nll_then_to_the_earlier_trial_and_what_diverged_is_not_chosen() -> None:
    row, (setting,) = named("fashion", "ce"), rows.settings(named("fashion", "ce"), 1)
    trials = [line(row, "trial", n, setting, val_accuracy=0.9, val_nll=nll) for n, nll in enumerate((0.4, 0.3, 0.3))]
    assert table.choose([line(row, "trial", 3, setting), *reversed(trials)])["number"] == "1"
    assert table.choose([line(row, "trial", 0, setting)]) is None


def test_differences_are_those_of_the_seeds_that_both_have(made: list[dict[str, str]]) -> None:
    found = table.Study(made, 3, 5)
    delta = found.against(named("fashion", "kd"), 0)
    by_hand = 100 * (np.array(KD) - np.array(LABELS))
    low, high = stats.ttest_rel(np.array(KD) * 100, np.array(LABELS) * 100).confidence_interval(0.95)
    assert delta.mean == pytest.approx(by_hand.mean()) and delta.seeds == 5
    assert (delta.mean - delta.half, delta.mean + delta.half) == pytest.approx((low, high))
    assert delta.sign == 1 and str(delta).startswith("**+")
    two = found.against(named("fashion", "logit_mse"), 0)
    assert two.mean == pytest.approx(0.0, abs=1e-9) and two.seeds == 2 and two.sign == 0
    assert table.paired({1: 0.5}, {1: 0.25, 2: 0.1}) == table.Interval(25.0, None, 1)
    assert table.paired({1: 0.5}, {2: 0.5}) is None
    assert found.against(named("fashion", "ce"), 0) is None


def test_the_table_comes_from_the_raw_rows_alone_and_marks_what_is_missing(
    made: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "study.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, table.FIELDS)
        writer.writeheader()
        writer.writerows(made)
    monkeypatch.setattr(sys, "argv", ["study.py", "--table", "--trials", "3", "--results", str(tmp_path)])
    assert study.main() == 0
    said = capsys.readouterr().out
    assert (
        (tmp_path / "study.md").read_text() == table.markdown(table.Study(made, 3, 5), 3, 5) == said.removesuffix("\n")
    )
    assert (tmp_path / "study.png").stat().st_size > 10_000
    mean, spread = 100 * np.mean(KD), 100 * np.std(KD, ddof=1)
    assert f"| kd | 2 | 0.4 | 0.3 | 0.002 | {mean:.2f} ± {spread:.2f} | **+0.96 ±" in said
    assert "| logit_mse, unfinished (5 of 8) |" in said and "88.20 ± 0.14 (2)" in said
    assert "| dkd, not run |" in said and "Fashion-MNIST: objectives (teacher 94.0 %, labels 88.1 %)" in said


def test_repeats_of_another_setting_than_the_chosen_one_do_not_count(made: list[dict[str, str]]) -> None:
    for found in made:
        if found["row"] == "kd" and found["seed"] == "5":
            found["lr"] = "0.5"
    found = table.Study(made, 3, 5)
    assert len(found.column(("fashion", "kd"), "test_accuracy")) == 4
    assert found.state(named("fashion", "kd")) == "unfinished (7 of 8)"


def test_seeds_wait_for_all_trials_and_take_what_validation_chose(tmp_path: Path) -> None:
    bench = study.Bench(
        argparse.Namespace(
            out=tmp_path, results=tmp_path, trials=3, seeds=2, only=["fashion/kd"], jobs=2, teacher={}, more=[]
        )
    )
    bench.teachers["fashion"] = tmp_path
    row = named("fashion", "kd")
    for n, value in enumerate((0.8, 0.9, 0.7)):
        job = bench.next_job()
        assert (job.row, job.phase, job.number) == (row, "trial", n)
        bench.lines[job.key] = line(row, "trial", n, job.setting, val_accuracy=value, val_nll=0.3)
    job = bench.next_job()
    assert (job.phase, job.number, job.seed) == ("seed", 1, 1)
    assert job.setting == rows.settings(row, 3)[1]
    assert f"T={job.setting.T:g}" in job.words() and "seed=1" in job.words()
    bench.write()
    assert [found["number"] for found in table.read(bench.csv)] == ["0", "1", "2"]


def test_what_the_manual_says_of_the_study_is_in_its_raw_rows() -> None:
    results = ROOT / "tests" / "bench" / "results"
    tables = table.markdown(table.Study(table.read(results / "study.csv"), 4, 5), 4, 5)
    assert (results / "study.md").read_text(encoding="utf-8") == tables
    known = {cell.strip() for line in tables.splitlines() for cell in line.split("|")}
    page = (ROOT / "distill_cli" / "manual" / "study.md").read_text(encoding="utf-8")
    cells = {cell.strip() for line in page.splitlines() if line.startswith("| ") for cell in line.split("|")[2:]}
    told = {cell for cell in cells if "±" in cell}
    assert len(told) > 30 and told <= known
