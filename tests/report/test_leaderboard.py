"""Proves that a leaderboard's numbers are those of its runs' summaries, that runs which differ by their seed alone are
one row and all others are not, and that nothing is left out without a word.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT, distill, read_json
from rich.console import Console
from scipy import stats

from distill_cli.base import files
from distill_cli.base.errors import CheckpointError
from distill_cli.report import records
from distill_cli.report.leaderboard import Entry, csv_text, leaderboard, remarks, table

STUDENTS = [0.9361, 0.9528, 0.9417, 0.9611, 0.9389]
BASELINES = [0.9222, 0.9306, 0.9361, 0.9444, 0.9250]


def config(T: float = 3.0, alpha: float = 0.7, seed: int = 0) -> dict[str, Any]:
    refine = {"epochs": 1, "T": [T, 1.0], "alpha": [alpha, 0.0], "shape": "linear", "objective": None, "lr": None}
    return {
        "device": "auto", "threads": None, "output_dir": "outputs", "batch_size": 64, "T": T, "alpha": alpha, "seed": seed,
        "baseline": True, "label_smoothing": 0.0, "compile": False, "precision": "auto",
        "dataset": {"_target_": "distill_cli.data.digits.digits", "root": None, "val_fraction": 0.1, "split_seed": 0},
        "teacher": {"_target_": "distill_cli.models.zoo.torchvision", "name": "resnet18", "checkpoint": None,
                    "fit": {"epochs": 1, "seed": 0}},
        "student": {"_target_": "distill_cli.models.smallcnn.SmallCNN", "widths": [8, 16]},
        "objective": {"kd": {"_target_": "distill_cli.objectives.logits.KD", "weight": 1.0}},
        "schedule": {"imitate": {**refine, "T": T, "alpha": alpha}, "refine": refine},
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.001},
    }  # fmt: skip


def scores(accuracy: float, nll: float = 0.2, kl: float | None = 0.05) -> dict[str, float]:
    fidelity = {} if kl is None else {"kl": kl, "agreement": 0.9 + kl}
    return {"accuracy": accuracy, "f1": accuracy, "nll": nll, "ece": 0.02, **fidelity}


def make_run(
    folder: Path,
    typed: Sequence[str] = (),
    *,
    seed: int = 0,
    val: float = 0.95,
    test: float = 0.94,
    last: float = 0.93,
    baseline: float | None = None,
    nll: float = 0.2,
    kl: float | None = 0.05,
    model: str = "tinycnn",
    started: float = 1.0,
    finished: bool = True,
    **changes: Any,
) -> Path:
    """A run's folder as far as a report reads it. changes: of the configuration, T__x=1 standing for T.x=1."""
    own = config(
        **{key: float(v) for key, _, v in (t.partition("=") for t in typed) if key in ("T", "alpha")}, seed=seed
    )
    for key, value in changes.items():
        *path, name = key.split("__")
        node = own
        for part in path:
            node = node[part]
        node[name] = value
    folder.mkdir(parents=True)
    overrides = [*typed, f"seed={seed}", "baseline=true"]
    about = {"config": own, "overrides": overrides, "name": "train", "directory": "/", "prints": {}, "machine": {}}
    files.write_json(folder / "run.json", about)
    files.write_json(folder / "status.json", {"status": "finished" if finished else "interrupted", "started": started})
    names = {"dataset": "digits", "model": model}
    files.write_json(folder / "model.json", {"names": names, "teacher": {"path": "../teacher"}})
    choices = {
        "student": model,
        "schedule": "two_stage",
        "optimizer": "adam",
        "objective": "kd",
        "hydra/env": "default",
    }
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": {"runtime": {"choices": choices}}}))
    row = {"stage": "imitate", "epoch": 1, "step": 20, "T": 3.0, "alpha": 0.7, "lr": 0.001, "images_per_second": 1e3,
           "seconds": 1.0, "loss": {"total": 1.0, "ce": 1.0, "kd": 1.0}, "val": scores(val)}  # fmt: skip
    files.write(folder / "metrics.jsonl", f"{json.dumps(row)}\n")
    everyone = {"teacher": scores(0.97, kl=None), "student": scores(test, kl=kl), "student_last": scores(last)}
    summary = {
        "run": str(folder), "seed": seed, "overrides": overrides, "test": everyone,
        "val": {**everyone, "student": scores(val, nll)}, "params": {"teacher": 11_000_000, "student": 9_098},
        "compression": 11_000_000 / 9_098, "best": {"epoch": 1, "stage": "imitate"}, "images_per_second": 1e3,
        "seconds": {"teacher": 1.0, "cache": 1.0, "train": 1.0, "eval": 1.0},
    }  # fmt: skip
    if baseline is not None:
        everyone["baseline"] = summary["val"]["baseline"] = scores(baseline)
        summary["difference"] = {"accuracy": test - baseline, "half_interval": 0.01, "samples": 360}
    if finished:
        files.write_json(folder / "summary.json", summary)
    return folder


def five(place: Path, typed: Sequence[str] = (), number: int = 5, gain: float = 0.0, **more: Any) -> None:
    """Runs over seeds 0, 1, ..., each with a baseline; `gain` is added to every student."""
    for seed, (test, baseline) in enumerate(zip(STUDENTS[:number], BASELINES, strict=False)):
        name = f"{'_'.join(typed).replace('=', '-')}-seed-{seed}"
        own = {"val": test - 0.01, "last": test - 0.002, "test": test + gain, "baseline": baseline, "kl": test / 20}
        make_run(place / name, typed, seed=seed, **{**own, **more})


def board(*places: Path) -> list[Entry]:
    return leaderboard(records.finished(places))


def only(*places: Path) -> Entry:
    (entry,) = board(*places)
    return entry


def numbers(place: Path, *keys: str) -> np.ndarray:
    """A number of every summary below `place`, by seed, read without our code."""
    found = sorted((read_json(path) for path in place.rglob("summary.json")), key=lambda summary: summary["seed"])
    for key in keys:
        found = [value[key] for value in found]
    return np.array(found)


# --- statistics


@pytest.mark.parametrize("n", [2, 3, 5])
def test_means_spreads_p_and_interval_are_those_of_the_summaries(n: int, tmp_path: Path) -> None:
    five(tmp_path, number=n)
    entry = only(tmp_path)
    for stat, keys in (
        (entry.val, ("val", "student", "accuracy")),
        (entry.test, ("test", "student", "accuracy")),
        (entry.test_last, ("test", "student_last", "accuracy")),
        (entry.kl, ("test", "student", "kl")),
        (entry.agreement, ("test", "student", "agreement")),
        (entry.baseline, ("test", "baseline", "accuracy")),
    ):
        values = numbers(tmp_path, *keys)
        assert stat is not None and stat.n == n == len(values)
        assert stat.mean == pytest.approx(values.mean(), abs=1e-9)
        assert stat.spread == pytest.approx(values.std(ddof=1), abs=1e-9)
    deltas = numbers(tmp_path, "test", "student", "accuracy") - numbers(tmp_path, "test", "baseline", "accuracy")
    error = deltas.std(ddof=1) / n**0.5
    half = stats.t.ppf(0.975, n - 1) * error
    found = entry.difference
    assert found is not None and (found.n, found.over) == (n, "seeds")
    assert found.mean == pytest.approx(deltas.mean(), abs=1e-9)
    assert [found.low, found.high] == pytest.approx([deltas.mean() - half, deltas.mean() + half], abs=1e-9)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(deltas.mean()) / error, n - 1), abs=1e-9)
    assert (entry.params, entry.compression, entry.seeds) == (9_098, 11_000_000 / 9_098, list(range(n)))


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.0, "helps"), (-0.0088, "no difference shown"), (-0.03, "hurts"), (0.2, "helps")]
)
def test_the_verdict_follows_p_and_the_sign(gain: float, verdict: str, tmp_path: Path) -> None:
    five(tmp_path, gain=gain)
    entry = only(tmp_path)
    assert entry.verdict == verdict
    assert entry.difference is not None and entry.difference.p is not None
    assert (entry.difference.p < 0.05) == (verdict != "no difference shown")


@pytest.mark.parametrize(
    ("test", "verdict"),
    [(0.95, "helps"), (0.945, "no difference shown"), (0.929, "hurts"), (0.94, "no difference shown")],
)
def test_one_seed_is_judged_over_the_test_samples(test: float, verdict: str, tmp_path: Path) -> None:
    make_run(tmp_path / "a", test=test, baseline=0.94 - 1e-9)
    entry = only(tmp_path)
    found = entry.difference
    assert found is not None and (found.p, found.n, found.over) == (None, 360, "test samples")
    assert [found.low, found.high] == pytest.approx([test - 0.95, test - 0.93], abs=1e-8)
    assert entry.verdict == verdict
    assert entry.test.spread is None
    assert entry.note == "1 seed"


def test_two_seeds_are_said_to_be_few_and_three_are_not(tmp_path: Path) -> None:
    five(tmp_path / "two", number=2)
    five(tmp_path / "three", number=3)
    assert only(tmp_path / "two").note == "2 seeds: fewer than three"
    assert only(tmp_path / "three").note == ""


@pytest.mark.parametrize(
    ("gain", "n", "p", "verdict"),
    [
        (0.0, 2, 1.0, "no difference shown"),
        (0.0, 5, 1.0, "no difference shown"),
        (0.02, 2, 0.5, "no difference shown"),
        (0.02, 6, 2**-5, "helps"),
        (-0.02, 6, 2**-5, "hurts"),
    ],
)
def test_equal_differences_have_no_spread_and_warn_of_nothing(
    gain: float, n: int, p: float, verdict: str, tmp_path: Path
) -> None:
    for seed in range(n):  # whose differences are equal but for rounding
        make_run(tmp_path / str(seed), seed=seed, test=0.17 + seed / 7 + gain, baseline=0.17 + seed / 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        entry = only(tmp_path)
    found = entry.difference
    assert found is not None and found.p == p
    assert [found.low, found.mean, found.high] == pytest.approx([gain] * 3, abs=1e-12)
    assert entry.verdict == verdict


def test_seeds_without_a_baseline_count_for_the_mean_and_not_for_the_difference(tmp_path: Path) -> None:
    five(tmp_path, number=3)
    make_run(tmp_path / "without", seed=3, test=0.5)
    entry = only(tmp_path)
    assert entry.test.mean == pytest.approx(np.mean([*STUDENTS[:3], 0.5]))
    assert entry.baseline is not None and entry.baseline.n == 3
    assert entry.difference is not None and entry.difference.n == 3
    assert entry.difference.mean == pytest.approx(np.mean(np.subtract(STUDENTS[:3], BASELINES[:3])))
    assert entry.note == "3 of 4 seeds with a baseline"


def test_without_baseline_or_fidelity_there_is_no_word_on_them(tmp_path: Path) -> None:
    make_run(tmp_path / "a", kl=None)
    entry = only(tmp_path)
    assert (entry.kl, entry.agreement, entry.baseline, entry.difference, entry.verdict) == (None, None, None, None, "")


def test_of_a_seed_that_was_run_twice_the_newest_counts(tmp_path: Path) -> None:
    make_run(tmp_path / "a", test=0.8, started=3.0)
    make_run(tmp_path / "b", test=0.9, started=5.0)
    make_run(tmp_path / "c", test=0.7, started=4.0)
    entry = only(tmp_path)
    assert (entry.seeds, entry.test.n, entry.test.mean) == ([0], 1, 0.9)
    assert [record.folder for record in entry.records] == [tmp_path / "b"]
    assert entry.note == "1 seed; seed 0 was run 3 times: the newest counts"
    assert "Seed 0 was run 3 times: the newest counts." in remarks([entry])


# --- what is one row, and what it is called


FREE = [
    {"seed": 1}, {"device": "cpu"}, {"threads": 2}, {"output_dir": "elsewhere"}, {"baseline": False}, {"report": False},
    {"logger": {"csv": {"path": "x"}}},
]  # fmt: skip
BINDING = [
    {"batch_size": 32}, {"T": 4.0}, {"student__widths": [8, 32]}, {"teacher__fit__seed": 1}, {"dataset__split_seed": 1},
    {"optimize": "val.nll"}, {"schedule__refine__epochs": 2}, {"teacher__checkpoint": "a.pt"},
    {"dataset__root": "b"}, {"student__depth": 2},
]  # fmt: skip


@pytest.mark.parametrize("change", FREE, ids=str)
def test_runs_that_differ_in_what_changes_no_result_are_one_row(change: dict[str, Any], tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", **{"seed": 1, **change})
    assert only(tmp_path).seeds == [0, 1]


@pytest.mark.parametrize("change", BINDING, ids=str)
def test_runs_that_differ_in_anything_else_are_two_rows_with_labels_of_their_own(
    change: dict[str, Any], tmp_path: Path
) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", seed=1, **change)
    entries = board(tmp_path)
    assert len(entries) == 2
    ((key, value),) = change.items()
    changed = next(entry for entry in entries if entry.seeds == [1])
    assert changed.settings == {key.replace("__", "."): value}  # nobody typed it: the configuration tells
    assert entries[0].label != entries[1].label


def test_labels_are_the_typed_settings_that_differ(tmp_path: Path) -> None:
    for T in (1, 3):
        for alpha in (0.5, 0.9):
            typed = [f"T={T}", f"alpha={alpha}", "student=tinycnn", "optimizer.lr=0.003"]
            five(tmp_path, typed, number=2, optimizer__lr=0.003)
    entries = board(tmp_path)
    assert sorted(entry.label for entry in entries) == [
        "T=1 alpha=0.5", "T=1 alpha=0.9", "T=3 alpha=0.5", "T=3 alpha=0.9"]  # fmt: skip
    assert {(entry.settings["T"], entry.settings["alpha"]) for entry in entries} == {
        (1.0, 0.5), (1.0, 0.9), (3.0, 0.5), (3.0, 0.9)}  # fmt: skip
    assert all(entry.seeds == [0, 1] for entry in entries)


def test_one_row_is_called_by_all_that_was_typed(tmp_path: Path) -> None:
    make_run(tmp_path / "a", ["T=3", "student=tinycnn", "+student.widths=[8,16]", "device=cpu", "experiment=mine"])
    assert only(tmp_path).label == "T=3 student=tinycnn student.widths=[8,16] experiment=mine"


def test_what_one_typed_and_another_left_at_the_default_is_told_apart_only_where_it_differs(tmp_path: Path) -> None:
    make_run(tmp_path / "a", ["T=3", "student=tinycnn", "optimizer=adam", "schedule=two_stage", "objective=[kd]"])
    make_run(tmp_path / "b", ["T=4"], seed=1)
    make_run(tmp_path / "c", ["alpha=0.5"], model="smallcnn", student__widths=[64, 128])
    assert {entry.label for entry in board(tmp_path)} == {
        "T=3 student=tinycnn alpha=0.7", "T=4 student=tinycnn alpha=0.7", "T=3 student=smallcnn alpha=0.5"
    }  # fmt: skip


def test_a_recipe_and_an_objective_are_called_by_their_names(tmp_path: Path) -> None:
    make_run(tmp_path / "a", ["objective=ce"], objective={"ce": {"_target_": "x.CE", "weight": 1.0}})
    make_run(tmp_path / "b")
    make_run(tmp_path / "c", ["experiment=mine"], batch_size=32)
    assert {entry.label for entry in board(tmp_path)} == {
        "objective=ce",
        "objective=kd",
        "objective=kd experiment=mine",
    }


def test_rows_with_the_same_typed_settings_are_told_apart_by_the_configuration(tmp_path: Path) -> None:
    make_run(tmp_path / "a", ["T=1"])
    make_run(tmp_path / "b", ["T=3"])
    make_run(tmp_path / "c", ["T=3"], student__widths=[4])
    labels = {entry.label for entry in board(tmp_path)}
    assert labels == {"T=1 student.widths=[8,16]", "T=3 student.widths=[8,16]", "T=3 student.widths=[4]"}


def test_validation_ranks_then_its_nll_then_the_settings(tmp_path: Path) -> None:
    make_run(tmp_path / "a", ["T=1"], val=0.90, test=0.99)
    make_run(tmp_path / "b", ["T=2"], val=0.91, nll=0.3)
    make_run(tmp_path / "c", ["T=3"], val=0.91, nll=0.2)
    make_run(tmp_path / "d", ["T=4"], val=0.91, nll=0.3)
    assert [entry.settings["T"] for entry in board(tmp_path)] == [3.0, 2.0, 4.0, 1.0]


# --- which runs are found


def test_runs_are_found_in_and_below_the_paths_each_once(tmp_path: Path) -> None:
    five(tmp_path / "sweep" / "deep", number=3)
    make_run(tmp_path / "sweep" / ".hidden" / "x", seed=7)
    make_run(tmp_path / "sweep" / "checkpoints" / "x", seed=8)
    make_run(tmp_path / "other", seed=9)
    (tmp_path / "sweep" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "again").symlink_to(tmp_path / "sweep")
    one = next((tmp_path / "sweep" / "deep").iterdir())
    entry = only(tmp_path / "sweep", one, tmp_path / "again", tmp_path / "sweep")
    assert (entry.seeds, entry.note) == ([0, 1, 2], "")
    assert len(records.finished([one])) == 1


def test_a_damaged_run_is_left_out_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    five(tmp_path, number=4)
    first, second, third, _ = sorted(path for path in tmp_path.iterdir())
    text = (first / "summary.json").read_text()
    (first / "summary.json").write_text(text.replace("0.9361", "0.9991"))
    (second / "run.json").write_text("{")
    summary = files.read_json(third / "summary.json")
    del summary["val"]["student"]
    files.write_json(third / "summary.json", summary)
    assert only(tmp_path).seeds == [3]
    said = capsys.readouterr().err
    assert said.count("this run is left out") == 3
    assert f"{first / 'summary.json'} is not what was written: its checksum differs" in said
    assert f"{second / 'run.json'} is damaged" in said
    assert f"{third / 'summary.json'} is damaged: it does not say val.student.accuracy" in said


@pytest.mark.parametrize("bad", ["high", None, float("inf")])
def test_what_is_no_number_is_damage(bad: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    summary = files.read_json(folder / "summary.json")
    summary["test"]["student"]["accuracy"] = bad
    text = f'{{"checksum": "{files._checksum(summary)}", {json.dumps(summary)[1:]}'  # write_json refuses inf
    (folder / "summary.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"does not say test\.student\.accuracy"):
        records.read(folder)


def test_unfinished_runs_are_left_out_and_told(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", ["T=1"], seed=1, finished=False)
    assert only(tmp_path).seeds == [0]
    assert records.unfinished([tmp_path]) == [("T=1 seed=1 baseline=true", "interrupted")]


def test_names_come_from_the_cards_and_else_from_what_was_chosen_or_typed(tmp_path: Path) -> None:
    def names(folder: Path) -> list[str]:
        return [records.read(folder).names[key] for key in ("dataset", "model", "teacher")]

    folder = make_run(tmp_path / "run", ["student=mine"], model="small")
    assert names(folder) == ["digits", "small", "resnet18"]
    (folder / "model.json").unlink()
    assert names(folder) == ["digits", "small", "resnet18"]
    (folder / ".hydra" / "hydra.yaml").write_text("hydra: [")
    assert names(folder) == ["digits", "mine", "resnet18"]
    (tmp_path / "teacher").mkdir()
    files.write_json(tmp_path / "teacher" / "model.json", {"names": {"model": "big"}})
    assert names(make_run(tmp_path / "with")) == ["digits", "tinycnn", "big"]


# --- as CSV, as a table, in words


def test_the_csv_read_back_holds_every_digit(tmp_path: Path) -> None:
    five(tmp_path / "T=1, ü", ["T=1"], number=3)
    five(tmp_path / "b", ["T=3", "alpha=0.3"], gain=0.02, number=3)
    make_run(tmp_path / "c", ["T=5"], val=0.5)
    entries = board(tmp_path)
    rows = list(csv.DictReader(io.StringIO(csv_text(entries))))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    for row, entry in zip(rows, entries, strict=True):
        assert row["settings"] == entry.label == f"T={row['T']} alpha={row['alpha']}"
        assert row["seeds"].split() == [str(seed) for seed in entry.seeds]
        assert row["runs"].split("; ") == [str(record.folder) for record in entry.records]
        assert int(row["n"]) == entry.val.n
        for name, stat in (("val", entry.val), ("test", entry.test), ("test_last", entry.test_last)):
            assert float(row[f"{name}_mean"]) == stat.mean
            assert row[f"{name}_spread"] == ("" if stat.spread is None else repr(stat.spread))
        assert entry.kl is not None and float(row["kl_mean"]) == entry.kl.mean
        assert entry.agreement is not None and float(row["agreement_mean"]) == entry.agreement.mean
        assert (float(row["params"]), float(row["compression"])) == (entry.params, entry.compression)
        assert row["verdict"] == entry.verdict
        if entry.difference is None or entry.baseline is None:
            assert not any(row[key] for key in ("baseline_mean", "baseline_spread", "difference", "low", "p", "over"))
            continue
        d = entry.difference
        assert [float(row[key]) for key in ("difference", "low", "high", "p")] == [d.mean, d.low, d.high, d.p]
        assert [float(row[f"baseline_{key}"]) for key in ("mean", "spread")] == [
            entry.baseline.mean,
            entry.baseline.spread,
        ]
        assert row["over"] == "seeds"
    assert rows[2]["difference"] == ""


def printed(entries: Sequence[Entry]) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=120).print(table(entries))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_the_table_fits_and_keeps_a_row_of_two_axes_on_one_line(tmp_path: Path) -> None:
    for T in (1, 10):
        for alpha in (0.5, 0.9):
            five(tmp_path, [f"T={T}", f"alpha={alpha}"], gain=-0.1)
    entries = board(tmp_path)
    lines = printed(entries)
    assert len(lines) == 3 + len(entries) and max(map(len, lines)) <= 120 and "…" not in "".join(lines)
    for entry, line in zip(entries, lines[3:], strict=True):
        assert entry.difference is not None
        assert entry.label in line and entry.verdict in line and f"{entry.val.mean:.4f}" in line
        assert f"{entry.test.mean:.4f}±{entry.test.spread:.4f}" in line
        assert f"{100 * entry.difference.mean:+.2f} [{100 * entry.difference.low:+.2f}, " in line


def test_long_settings_are_folded_and_not_cut(tmp_path: Path) -> None:
    five(tmp_path, ["T=1", "student=" + "abcdefgh" * 9, "optimizer.lr=0.123"], number=2, optimizer__lr=0.123)
    lines = printed(board(tmp_path))
    folded = "".join(line[3 : lines[1].index(" n ")].strip() for line in lines[3:])
    assert max(map(len, lines)) <= 120
    assert "abcdefgh" * 9 in folded and "optimizer.lr=0.123" in folded


def test_remarks_say_what_to_know_before_believing(tmp_path: Path) -> None:
    five(tmp_path / "a", number=3)
    assert remarks(board(tmp_path)) == []
    make_run(tmp_path / "b", ["T=1"], baseline=0.9)
    make_run(tmp_path / "c", ["T=2"])
    said = remarks(board(tmp_path))
    assert said[0] == "1 seed (2 of 3 configurations)."
    assert "-m seed=0,1,2" in said[1]
    assert said[2].startswith("What did distillation buy (1 of 3 configurations)? baseline=true")
    assert len(said) == 3
    for T in range(4, 7):
        make_run(tmp_path / f"T-{T}", [f"T={T}"], baseline=0.9)
    (chance,) = [text for text in remarks(board(tmp_path)) if "by chance" in text]
    assert chance.startswith("5 configurations are compared on the same test set") and "one in twenty" in chance


def test_several_data_sets_in_one_table_are_pointed_out(tmp_path: Path) -> None:
    five(tmp_path / "a", number=3)
    five(tmp_path / "b", number=3, dataset__split_seed=3)
    assert remarks(board(tmp_path)) == []
    for run in (tmp_path / "b").iterdir():
        files.write_json(run / "model.json", {"names": {"dataset": "mnist", "model": "tinycnn"}})
    assert remarks(board(tmp_path)) == ["Several data sets (digits, mnist): compare the rows of one."]


# --- runs that are judged by something else than accuracy


def judged_by_nll(place: Path, typed: Sequence[str], students: Sequence[float], baseline: float = 2.6) -> None:
    """Runs of a language model over seeds, whose NLLs are these."""
    for seed, nll in enumerate(students):
        folder = make_run(place / f"{'_'.join(typed)}-{seed}", typed, seed=seed)
        made = read_json(folder / "summary.json")
        made |= {"metric": "nll", "unit": "tokens"}
        for split in ("val", "test"):
            reached = {"student": nll, "student_last": nll + 0.1, "teacher": 1.9, "baseline": baseline + 0.001 * seed}
            for who, value in reached.items():
                made[split][who] = {
                    "nll": value,
                    "perplexity": 2.718**value,
                    "accuracy": 0.4,
                    "kl": 0.5,
                    "agreement": 0.6,
                }
        made["difference"] = {"nll": nll - baseline, "half_interval": 0.01, "samples": 360}
        del made["checksum"]
        files.write_json(folder / "summary.json", made)


def test_the_lowest_nll_is_first_and_less_of_it_is_a_help(tmp_path: Path) -> None:
    judged_by_nll(tmp_path, ["T=1"], [2.50, 2.51, 2.49])
    judged_by_nll(tmp_path, ["T=2"], [2.40, 2.41, 2.39])
    judged_by_nll(tmp_path, ["T=3"], [2.70, 2.71, 2.69])
    entries = board(tmp_path)
    assert [entry.label for entry in entries] == ["T=2", "T=1", "T=3"]
    assert [entry.verdict for entry in entries] == ["helps", "helps", "hurts"]
    assert entries[0].difference is not None and entries[0].difference.mean == pytest.approx(-0.201)
    lines = printed(entries)
    assert lines[0].startswith("student, best on validation: NLL, mean") and "-0.201 [-0.2" in lines[3]
    assert next(csv.DictReader(io.StringIO(csv_text(entries))))["val_mean"] == repr(entries[0].val.mean)


def test_runs_that_are_judged_by_unlike_metrics_are_told_apart(tmp_path: Path) -> None:
    judged_by_nll(tmp_path, ["T=1"], [2.50, 2.51, 2.49])
    five(tmp_path, ["T=2"], number=3)
    assert "The rows are judged by accuracy and NLL: compare those of one." in remarks(board(tmp_path))


def test_a_run_that_does_not_say_what_it_is_judged_by_is_damaged(tmp_path: Path) -> None:
    judged_by_nll(tmp_path, ["T=1"], [2.5])
    (folder,) = tmp_path.iterdir()
    made = {key: value for key, value in read_json(folder / "summary.json").items() if key != "checksum"}
    del made["val"]["student"]["nll"], made["val"]["student"]["agreement"]
    files.write_json(folder / "summary.json", made)
    with pytest.raises(CheckpointError, match=r"does not say val\.student\.nll"):
        records.read(folder)


# --- distill report


def test_a_run_gets_its_numbers_and_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "run", ["T=3"], test=0.9361, baseline=0.9)
    assert distill("report", "run") == 0
    shown = capsys.readouterr().out
    assert "0.9361" in shown and "+3.61 [+2.61, +4.61]" in shown and "helps" in shown and "1 seed." in shown
    assert shown.splitlines()[-1].split() == ["report", "run/report.html"]
    assert "</html>" in (tmp_path / "run" / "report.html").read_text()
    assert not (tmp_path / "run" / "leaderboard.csv").exists()


def test_a_sweep_gets_its_leaderboard_at_its_top(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    five(tmp_path / "sweep", ["T=1"])
    five(tmp_path / "sweep", ["T=3"], gain=-0.03)
    make_run(tmp_path / "sweep" / "x", ["T=9"], finished=False)
    assert distill("report", "sweep") == 0
    shown = capsys.readouterr()
    assert "T=1" in shown.out and "hurts" in shown.out
    assert shown.out.splitlines()[-2].split() == ["leaderboard", "sweep/leaderboard.csv"]
    assert shown.out.splitlines()[-1].split() == ["report", "sweep/report.html"]
    assert "1 run is not finished and left out" in shown.err
    rows = list(csv.DictReader((tmp_path / "sweep" / "leaderboard.csv").open(encoding="utf-8")))
    assert [row["settings"] for row in rows] == ["T=1", "T=3"]
    assert "</html>" in (tmp_path / "sweep" / "report.html").read_text()
    assert distill("report", "sweep") == 0  # what it wrote is no obstacle


@pytest.mark.parametrize(("words", "home"), [(["a", "b"], "report"), (["a", "b", "output=x/y"], "x/y"),
                                             (["a", "output=x"], "x"), (["b/seed", "output=x"], "x")])  # fmt: skip
def test_several_are_reported_where_asked(words: list[str], home: str, tmp_path: Path) -> None:
    five(tmp_path / "a", ["T=1"], number=3)
    make_run(tmp_path / "b" / "seed", ["T=3"])
    before = {path for path in tmp_path.rglob("*") if path.name in ("report.html", "leaderboard.csv")}
    assert distill("report", *words) == 0
    after = {path for path in tmp_path.rglob("*") if path.name in ("report.html", "leaderboard.csv")}
    assert after - before == {tmp_path / home / "report.html", tmp_path / home / "leaderboard.csv"}


def test_a_folder_with_an_equals_sign_is_a_path(tmp_path: Path) -> None:
    five(tmp_path / "T=3", number=3)
    assert distill("report", "T=3") == 0
    assert (tmp_path / "T=3" / "leaderboard.csv").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere"], 4, "nowhere: there is no such folder"),
        (["run", "nowhere"], 4, "nowhere: there is no such folder"),
        (["run/summary.json"], 4, "run/summary.json: is a file"),
        (["empty"], 4, "empty: no finished run lies there"),
        (["half"], 4, "half: this run is not finished"),
        (["half"], 4, "distill resume half goes on with it"),
        (["above"], 4, "above: no finished run lies there (1 not finished)"),
        ([], 2, "which runs?"),
        (["output=x"], 2, "which runs?"),
        (["run", "outptu=x"], 2, "'outptu=x' is not a word it takes"),
        (["run", "outptu=x"], 2, "did you mean output?"),
        (["run", "output="], 2, "'output=' is not a word it takes"),
        (["run", "--force"], 2, "'--force' is not a word it takes"),
    ],
)
def test_wrong_words_and_paths_are_told_and_nothing_is_written(
    words: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run")
    make_run(tmp_path / "half", finished=False)
    make_run(tmp_path / "above" / "half", finished=False)
    (tmp_path / "empty").mkdir()
    assert distill("report", *words) == code
    assert said in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.name in ("report.html", "leaderboard.csv", "report", "x")]


def test_a_report_needs_neither_torch_nor_hydra(tmp_path: Path) -> None:
    five(tmp_path / "sweep", number=3)
    code = (
        "import sys; from distill_cli.cli.commands import report; report.run(['sweep']); "
        "sys.exit(','.join(sorted({'torch', 'hydra'} & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert done.stderr.decode().strip() == ""
