"""A run over several processes: what comes out, what lies in its folder, how it ends when one of them does, and how it goes on."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICK, distill, make_documents, read_json, rows, without_times
from ranks import BYTES, codes, distill_ranks, stopped, together, weights

from distill_cli.base import files, locks
from distill_cli.config.load import load
from distill_cli.data import Batch
from distill_cli.models import inference
from distill_cli.runs.identity import LOCK
from distill_cli.tasks import task as tasks
from distill_cli.tasks.rows import Dense
from distill_cli.training import job as jobs
from distill_cli.training.guard import Guard

LINE = ["train", *QUICK, "optimizer=sgd", "optimizer.lr=0.01", "dataset.limit=200", "batch_size=25"]
LANGUAGE = [*BYTES, "batch_size=5", "threads=1", "teacher.keep=topk"]
LANGUAGE += [
    f"{who}.{size}" for who in ("teacher", "student") for size in ("layers=1", "width=16", "heads=2", "inner=16")
]


def numbers(run: Path) -> list[dict[str, Any]]:
    return [without_times(row) for row in rows(run)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a teacher and its cached answers lie, and a run of one process with `accumulate=2`."""
    place = tmp_path_factory.mktemp("prepared")
    assert distill(*LINE, f"output_dir={place}/outputs", f"run_dir={place}/whole", "optimizer.accumulate=2") == 0
    return place


def test_two_processes_are_two_parts_of_a_batch(prepared: Path) -> None:
    ended = distill_ranks(2, *LINE, f"output_dir={prepared}/outputs", "run_dir=run")
    assert codes(ended) == [0, 0], ended
    assert "2 processes, each with its part of every batch" in ended[0].said and not ended[1].said
    run, whole = Path("run"), prepared / "whole"
    assert torch.equal(weights(run), weights(whole))
    for ours, theirs in zip(numbers(run), numbers(whole), strict=True):
        assert ours["val"] == theirs["val"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    assert read_json(run / "status.json")["status"] == "finished"
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}


def test_what_is_kept_of_a_teacher_is_made_together_to_the_same_bytes(prepared: Path) -> None:
    shutil.copytree(prepared / "outputs" / "teachers", "outputs/teachers")
    assert codes(distill_ranks(2, *LINE, "run_dir=run", "schedule.refine.epochs=0")) == [0, 0]
    ours, theirs = (sorted((root / "outputs" / "cache").rglob("*.npy")) for root in (Path(), prepared))
    assert [path.parts[-2:] for path in ours] == [path.parts[-2:] for path in theirs] and len(ours) == 3
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]


@pytest.mark.slow
def test_two_processes_train_a_language_model_as_one_does() -> None:
    make_documents(Path("texts"))
    assert distill(*LANGUAGE, "run_dir=alone") == 0
    ended = distill_ranks(2, *LANGUAGE, "run_dir=run")
    assert codes(ended) == [0, 0], ended
    (ours,), (theirs,) = (rows(Path(name)) for name in ("run", "alone"))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    assert ours["val"] == pytest.approx(theirs["val"], rel=1e-5)
    assert weights(Path("run")).sub(weights(Path("alone"))).norm() < 1e-6 * weights(Path("alone")).norm()


@pytest.mark.slow
def test_a_teacher_a_baseline_a_memory_and_two_that_learn_from_each_other_are_trained_by_all() -> None:
    line = [*LINE, "schedule.refine.epochs=0", "batch_size=50"]
    ended = distill_ranks(2, *line, "run_dir=run", "baseline=true", "objective=[kd,crd,similarity]")
    assert codes(ended) == [0, 0], ended
    assert "baseline" in read_json(Path("run/summary.json"))["test"]
    assert (
        len(list(Path("outputs/teachers").glob("digits*"))) == len(list(Path("outputs/baselines").glob("[!.]*"))) == 1
    )
    for name, words in {"along": ["teacher.joint=true"], "compared": ["objective=[crd,rkd,similarity,dist]"]}.items():
        assert codes(distill_ranks(2, *line, f"run_dir={name}", *words)) == [0, 0]
        assert distill(*line, f"run_dir={name}-alone", *words) == 0
        ours, whole = weights(Path(name)), weights(Path(f"{name}-alone"))
        assert ours.sub(whole).norm() < 1e-5 * whole.norm(), name


@pytest.mark.parametrize("on", [0, 1])
def test_one_that_is_asked_to_stop_stops_all_after_the_same_step(prepared: Path, on: int) -> None:
    line = [*LINE, f"output_dir={prepared}/outputs", "run_dir=run"]
    ended = stopped(2, line, 3, lambda: os.kill(os.getpid(), signal.SIGTERM), on)
    assert codes(ended) == [143, 143], ended
    assert "".join(one.said for one in ended).count("stopped after step 4; it is saved") == 1
    assert read_json(Path("run/status.json"))["status"] == "interrupted"
    assert codes(distill_ranks(2, *line)) == [0, 0]
    assert torch.equal(weights(Path("run")), weights(prepared / "whole"))


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(prepared: Path) -> None:
    line = [*LINE, f"output_dir={prepared}/outputs", "run_dir=run"]
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    assert codes(stopped(2, line, 2, stop, 0)) == [143, 143]
    assert codes(stopped(1, line, 4, stop, 0)) == [143]
    ended = distill_ranks(3, *line)
    assert codes(ended) == [0, 0, 0]
    assert "started with ranks 2, it goes on with 3: its last bits may differ" in ended[0].said
    assert weights(Path("run")).sub(weights(prepared / "whole")).norm() < 1e-5 * weights(prepared / "whole").norm()
    losses = [[row["loss"]["total"] for row in rows(run)] for run in (Path("run"), prepared / "whole")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # each sample counted once


@pytest.mark.slow
@pytest.mark.parametrize("on", [0, 1])
def test_one_that_dies_ends_all_and_nothing_is_lost(prepared: Path, on: int) -> None:
    line = [*LINE, f"output_dir={prepared}/outputs", "run_dir=run", "save_every=1"]
    ended = stopped(2, line, 3, lambda: os.kill(os.getpid(), signal.SIGKILL), on)
    assert codes(ended) == ([-9, 9] if on == 0 else [9, -9]), ended
    assert codes(distill_ranks(2, *line)) == [0, 0]
    assert torch.equal(weights(Path("run")), weights(prepared / "whole"))


def test_a_number_that_is_not_finite_on_one_stops_all_and_is_told_once(prepared: Path) -> None:
    def spoil() -> None:
        backward = Guard.backward

        def spoilt(self: Guard, loss: Any, terms: Any) -> None:
            backward(self, loss * float("nan"), terms)

        Guard.backward = spoilt  # type: ignore[method-assign]

    ended = stopped(2, [*LINE, f"output_dir={prepared}/outputs", "run_dir=run"], 1, spoil, on=1)
    assert codes(ended) == [5, 5], ended
    assert "".join(one.said for one in ended).count("not finite: the total loss at step 3") == 1


def test_a_full_disk_ends_all_with_its_code(prepared: Path) -> None:
    def fill() -> None:
        def refuse(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        files.Sink.write = refuse  # type: ignore[assignment, method-assign]

    ended = stopped(2, [*LINE, f"output_dir={prepared}/outputs", "run_dir=run", "save_every=1"], 1, fill, on=0)
    assert codes(ended) == [6, 6], ended
    assert "".join(one.said for one in ended).count("no space") == 1


def test_a_folder_in_use_is_told_to_all(prepared: Path) -> None:
    Path("run").mkdir()
    lock = locks.claim(Path("run") / LOCK)
    ended = distill_ranks(2, *LINE, f"output_dir={prepared}/outputs", "run_dir=run")
    lock.release()
    assert codes(ended) == [7, 7], ended


@pytest.mark.parametrize("words", [["-m", "T=1,2"], ["on_policy=0.5"]])
def test_what_several_processes_cannot_do_is_refused(words: list[str]) -> None:
    ended = distill_ranks(2, "train", *QUICK, *words, "teacher.fit.epochs=0")
    assert codes(ended) == [2, 2], ended


def test_judged_by_several_processes_a_model_has_the_same_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs.read(load("train", QUICK))
    monkeypatch.setattr(inference, "at_once", lambda model, split: 64)
    splits = [job.data.train.take(torch.arange(samples)) for samples in (1, 127, 128, 129, 257)]

    def judged() -> list[dict[str, float]]:
        return [tasks.measure(job.task, job.student, split, asked) for split in splits]

    def asked(batch: Batch) -> Dense:
        return Dense(torch.nn.functional.one_hot(batch.targets, 10) * 3.0)

    alone = repr(judged())
    for ended in together(3, judged):
        assert (ended.code, ended.said.strip()) == (0, alone)
