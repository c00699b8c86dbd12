"""Sweeps: checked before they start, one process a run, survived by what finished, gone on with, judged by their folders."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import QUICK, distill, read_json, rows, until, without_times

from distill_cli.base.files import write_json
from distill_cli.base.names import overrides_slug
from distill_cli.sweep import jobs, live
from distill_cli.sweep.launcher import Processes, visible_gpus

SWEEP = ["train", *QUICK, "hydra.sweep.dir=sweep"]

# A network that, while the file `doomed` names its width, kills its process or fails.
DOOMED = """
import os, signal
from pathlib import Path
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width: int, in_channels: int, num_classes: int) -> None:
        if Path("killed").exists() and width == int(Path("killed").read_text()):
            os.kill(os.getpid(), signal.SIGKILL)
        if Path("failing").exists() and width == int(Path("failing").read_text()):
            raise RuntimeError("this width cannot be had")
        super().__init__(nn.Conv2d(in_channels, width, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(4 * width, num_classes))
"""


@pytest.fixture
def doomed(tmp_path: Path) -> Path:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "doomed.yaml").write_text("# may die\n_target_: doomed.Net\nwidth: 4\n")
    (tmp_path / "doomed.py").write_text(DOOMED)
    return tmp_path


def results(sweep: Path) -> dict[str, Any]:
    """Each finished run's summary by its folder's name, without times and places."""
    found = {}
    for path in sorted(sweep.glob("*/summary.json")):
        summary = read_json(path)
        gone = ("seconds", "samples_per_second", "run", "checksum")
        found[path.parent.name] = {key: value for key, value in summary.items() if key not in gone}
    return found


def written(sweep: Path) -> dict[str, int]:
    """When each run's summary was written, in nanoseconds."""
    return {path.parent.name: path.stat().st_mtime_ns for path in sweep.glob("*/summary.json")}


def alive(folder: Path) -> list[int]:
    """Processes whose current directory is `folder`: a sweep and its runs among them."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if place.readlink() == folder:
                found.append(int(place.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def test_every_combination_runs_on_one_split_teacher_and_cache_with_one_baseline_a_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = SWEEP
    assert distill(*words, "-m", "T=1,3", "seed=0,1", "hydra.launcher.n_jobs=2") == 0
    assert {path.parent.name for path in Path("sweep").glob("*/summary.json")} == {
        "T-1_seed-0", "T-1_seed-1", "T-3_seed-0", "T-3_seed-1"}  # fmt: skip
    for group, number in (("teachers", 1), ("cache", 3), ("baselines", 2)):
        assert len(list((tmp_path / "outputs" / group).glob("[!.]*"))) == number, group
    shown = capsys.readouterr()
    assert "4 of 4 runs done" in shown.out
    assert "[4/4]" in shown.err
    assert "T=3" in shown.out
    assert "no difference shown" in shown.out or "hurts" in shown.out or "helps" in shown.out
    with (tmp_path / "sweep" / "leaderboard.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["n"] for row in table] == ["2", "2"]
    assert {row["T"] for row in table} == {"1", "3"}
    assert "<html" in (tmp_path / "sweep" / "report.html").read_text()
    run = tmp_path / "sweep" / "T-3_seed-1"
    known = read_json(run / "run.json")
    assert (known["config"]["T"], known["config"]["seed"]) == (3.0, 1)
    assert (known["config"]["threads"], known["machine"]["threads"]) == (None, 1)
    assert [row["T"] for row in rows(run)] == [3.0, 1.0]
    said = [path.read_text() for path in Path("sweep").glob("*/console.log")]
    assert sum("teacher: fitting" in text for text in said) == 1
    assert sum(text.count("cache: asking") for text in said) == 3
    assert sum("baseline: training" in text for text in said) == 2


def test_a_run_of_a_sweep_has_the_bits_of_the_same_run_alone(tmp_path: Path) -> None:
    assert distill(*SWEEP, "-m", "T=1,3") == 0
    assert distill("train", *QUICK, "T=3", "baseline=true", "run_dir=alone") == 0
    for name in ("student.safetensors", "metrics.jsonl"):
        ours, alone = ((tmp_path / place / name).read_bytes() for place in ("sweep/T-3", "alone"))
        if name == "student.safetensors":
            assert ours == alone
        else:
            assert ours.count(b"\n") == alone.count(b"\n")


@pytest.mark.slow
def test_a_failing_and_a_killed_run_cost_those_only_and_are_all_that_runs_again(
    doomed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SWEEP, "student=doomed", "-m", "student.width=2,3,4,5"]
    (doomed / "killed").write_text("3")
    (doomed / "failing").write_text("4")
    assert distill(*words) == 1
    shown = capsys.readouterr().out
    assert "2 of 4 runs done" in shown
    assert "killed by SIGKILL" in shown
    assert "this width cannot be had" in shown
    assert read_json(doomed / "sweep" / "student.width-3" / "status.json")["exit_code"] == 137
    before = written(doomed / "sweep")
    assert set(before) == {"student.width-2", "student.width-5"}
    (doomed / "killed").unlink()
    (doomed / "failing").unlink()
    assert distill("resume", "sweep") == 0
    assert "4 runs, 2 of them done before" in (shown := capsys.readouterr().out)
    assert "4 of 4 runs done" in shown
    after = written(doomed / "sweep")
    assert {name: after[name] for name in before} == before
    assert len(after) == 4


@pytest.mark.slow
def test_killed_half_way_its_runs_end_with_it_and_again_it_ends_as_if_nothing_had_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*SWEEP, "-m", "T=1,3", "seed=0,1", "hydra.launcher.n_jobs=2", "schedule.refine.epochs=6"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for place in (whole, broken):
        place.mkdir()
    command = [sys.executable, "-m", "distill_cli", *words]
    with subprocess.Popen(command, cwd=broken, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: written(broken / "sweep"), process)
        process.kill()
    done = written(broken / "sweep")
    assert 1 <= len(done) < 4
    for _ in range(100):
        if not alive(broken):
            break
        time.sleep(0.1)
    assert not alive(broken)
    monkeypatch.chdir(broken)
    assert distill("resume", "sweep") == 0
    after = written(broken / "sweep")
    assert {name: after[name] for name in done} == done
    monkeypatch.chdir(whole)
    assert distill(*words) == 0
    assert results(broken / "sweep") == results(whole / "sweep")
    tables = [list(csv.DictReader((place / "sweep" / "leaderboard.csv").open())) for place in (whole, broken)]
    for row in (row for table in tables for row in table):
        del row["runs"]  # their folders
    assert tables[0] == tables[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_its_runs_save_and_the_line_to_go_on_is_said(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "distill_cli", *SWEEP, "-m", "T=1,3", "schedule.refine.epochs=500"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until((tmp_path / "sweep" / "T-1" / "metrics.jsonl").exists, process)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    assert "to go on: distill resume" in said
    assert read_json(tmp_path / "sweep" / "T-1" / "status.json")["status"] == "interrupted"
    assert "it is saved" in (tmp_path / "sweep" / "T-1" / "console.log").read_text()
    assert not (tmp_path / "sweep" / "T-3").exists()


@pytest.mark.slow
def test_a_grown_axis_in_any_order_runs_what_is_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(*SWEEP, "-m", "T=1,3", "baseline=false") == 0
    before = written(tmp_path / "sweep")
    assert distill("resume", "sweep", "T=5,1,3") == 0
    after = written(tmp_path / "sweep")
    assert set(after) == {"T-1", "T-3", "T-5"}
    assert {name: after[name] for name in before} == before
    capsys.readouterr()
    assert distill("resume", "sweep", "optimizer.lr=0.01") == 4
    shown = capsys.readouterr().err
    assert "holds a run of another configuration" in shown
    assert "optimizer.lr: 0.003 -> 0.01" in shown
    assert written(tmp_path / "sweep") == after


def test_folders_are_named_by_what_is_swept_whatever_its_order() -> None:
    settings = ["seed=1", "T=3", "student=tinycnn", "student.widths=[4,5]"]
    name = overrides_slug(settings, ["T", "seed", "student.widths"])
    assert name == overrides_slug(settings[::-1], ["student.widths", "seed", "T"])
    assert name.startswith("T-3_seed-1_student.widths-")
    assert overrides_slug(["T=3"], ["T"]) != overrides_slug(["T=3.0"], ["T"])


def test_another_process_on_the_same_sweep_is_told_who_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "distill_cli", *SWEEP, "-m", "T=1,3", "schedule.refine.epochs=500"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until((tmp_path / "sweep" / "T-1").exists, process)
        assert distill("resume", "sweep") == 7
        assert f"in use by process {process.pid}" in capsys.readouterr().err
        process.kill()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["T=1,0"], "T: must be greater than 0, got 0"),
        (["T=1,3", "student=smallcnn,nosuch"], "student: nothing is called 'nosuch'"),
        (["T=interval(1,3)"], "names a range, which only a search can use"),
        (["T=1,3", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs: should be a whole number from 1, got 0"),
        (["T=1,3", "optimize=val.accuracy,val.kl"], "optimize: takes one value"),
        (["T=1,3", "optimize=test.accuracy"], "optimize: no choice called"),
        (["T=1,3", "hydra.sweep.subdir=x"], "hydra.sweep.subdir"),
        (["hydra/sweeper=optuna", "T=interval(8,1)"], "T: "),
        (["hydra/sweeper=optuna", "T=1,2", "hydra.sweeper.n_trials=abc"], "hydra.sweeper.n_trials: should be a whole"),
        (["T=1,3", "hydra.sweep.dir=conf.txt"], "is no folder"),
        (["+student.x=1,2"], "student.x"),
        (["device=cpu,cuda:9"], "device: this machine has no 'cuda:9'"),
        (["T=1,3", "hydra/launcher=nosuch"], "hydra/launcher: nothing is called 'nosuch'"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf.txt").touch()
    assert distill("train", "-m", *QUICK, *words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize(
    "text",
    [
        "student._target_=os.system,os.getcwd",
        "+student.x={_target_:os.system},{_target_:os.getcwd}",
        "T=${oc.env:HOME},3",
        "hydra.launcher.setup=[touch harm]",
        "hydra/launcher=../../harm",
        "student=../harm,smallcnn",
        "hydra.sweeper.storage=sqlite:///harm",
        "logger.mlflow.tracking_uri=http://harm",
        "++logger={tensorboard:{_target_:distill_cli.trackers.tensorboard.TensorBoard,dir:harm}}",
    ],
)
def test_a_crafted_sweep_folder_runs_no_code(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep").mkdir()
    about = {"name": "train", "directory": str(tmp_path), "output_dir": "outputs", "overrides": ["seed=0,1", text]}
    write_json(tmp_path / "sweep" / "sweep.json", about)
    assert distill("resume", "sweep") in (2, 4)
    assert capsys.readouterr().err
    assert {path.name for path in (tmp_path / "sweep").iterdir()} == {"sweep.json"}


def test_another_sweep_a_run_and_links_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    about = {"name": "train", "directory": str(tmp_path), "output_dir": "outputs", "overrides": [*QUICK, "T=1,3"]}
    write_json(sweep / "sweep.json", about)
    assert distill(*SWEEP, "-m", "alpha=0.1,0.2") == 4
    assert "holds a sweep over T, this sweep is over alpha" in capsys.readouterr().err
    assert distill("resume", "sweep", "T=1") == 4
    assert read_json(sweep / "sweep.json")["overrides"] == about["overrides"]
    (sweep / "multirun.yaml").symlink_to(tmp_path / "precious")
    assert distill("resume", "sweep") == 4
    assert "is a link" in capsys.readouterr().err
    assert not (tmp_path / "precious").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    assert distill("train", *QUICK, "-m", "T=1,3", "hydra.sweep.dir=run") == 4
    assert "holds a run, not a sweep" in capsys.readouterr().err


@pytest.mark.slow
def test_a_damaged_run_costs_itself_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(*SWEEP, "-m", "student=glob(tinyc*)", "T=1,3,1", "baseline=false") == 0
    folders = sorted(path.parent for path in (tmp_path / "sweep").glob("*/summary.json"))
    assert [folder.name for folder in folders] == ["T-1_student-tinycnn", "T-3_student-tinycnn"]
    (folders[0] / "summary.json").write_text("{")
    (folders[1] / "run.json").write_text("{")
    capsys.readouterr()
    assert distill("resume", "sweep") == 0
    shown = capsys.readouterr()
    assert "2 of 2 runs done" in shown.out
    assert "this run is left out" in shown.err
    assert read_json(folders[0] / "summary.json")["val"]["student"]["accuracy"] > 0


def test_a_damaged_sweep_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    assert distill("resume", "sweep") == 4
    write_json(tmp_path / "sweep" / "sweep.json", {"name": "train"})
    assert distill("resume", "sweep") == 4
    assert "damaged" in capsys.readouterr().err


def test_gpus_and_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    four, cores = Processes(n_jobs=4, gpus=[0, 1]), len(os.sched_getaffinity(0))
    slots = [four._environment(slot, 4) for slot in range(4)]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "1", "0", "1"]
    assert {slot["DISTILL_THREADS"] for slot in slots} == {str(max(1, cores // 4))}
    assert Processes(gpus=["a", "b", "c"]).n_jobs == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert visible_gpus() == ["2", "5"]
    assert Processes().n_jobs == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    assert Processes().n_jobs == 1
    assert Processes(n_jobs=8)._environment(0, 1) == {}, "a run alone has the machine"


def fake_run(folder: Path, status: str, accuracy: float | None = None, since: float = 0.0, **more: Any) -> None:
    folder.mkdir(parents=True)
    (folder / jobs.CONSOLE).touch()
    now = time.time()
    write_json(folder / "status.json", {"status": status, "reason": None, "started": now - 5, "updated": now, **more})
    if accuracy is not None:
        write_json(folder / "summary.json", {"val": {"student": {"accuracy": accuracy}}})


def test_the_view_counts_what_the_folders_say_and_names_the_best(tmp_path: Path) -> None:
    since = time.time() - 10
    folders = {name: tmp_path / name for name in ("a", "b", "c", "d", "e")}
    fake_run(folders["a"], "finished", 0.8)
    view = live.View(lambda: folders, 5, "val.accuracy", since)
    assert view.of("finished") == {"a"}
    fake_run(folders["b"], "finished", 0.9)
    fake_run(folders["c"], "failed", reason="no room\nfree some")
    fake_run(folders["d"], "running")
    assert sorted(view.look()) == ["b", "c"]
    assert view.line().startswith("2/5 done, 1 running, 1 failed, best val.accuracy 0.9000 (b), about ")
    assert view.told("b") == "[2/5] b: val.accuracy 0.9000, 5 s"
    assert view.told("c") == "[3/5] c: failed: no room free some"
    assert view.of("waiting") == {"e"}
    assert jobs.state(folders["d"], since, over=True).reason == "it ended without a word"
    assert [live.words(seconds) for seconds in (3, 240, 9000)] == ["3 s", "4 min", "2 h 30 min"]


def test_a_run_stopped_in_its_very_last_words_is_finished_when_it_is_gone_on_with(tmp_path: Path) -> None:
    assert distill("train", *QUICK, "run_dir=run") == 0
    status = read_json(tmp_path / "run" / "status.json")
    del status["checksum"]
    write_json(tmp_path / "run" / "status.json", {**status, "status": "interrupted"})
    assert distill("resume", "run") == 0
    assert read_json(tmp_path / "run" / "status.json")["status"] == "finished"


def test_a_run_of_an_earlier_call_that_did_not_finish_is_waiting(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", "failed", reason="before")
    assert jobs.state(tmp_path / "a", time.time() + 10).name == "waiting"


def test_a_new_run_from_an_old_ones_recipe_says_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("train", *QUICK, "T=4", "run_dir=old") == 0
    capsys.readouterr()
    assert distill("train", "--from", "old", "T=2", "seed=1", "run_dir=new") == 0
    shown = capsys.readouterr().out
    assert "the recipe of old, with\n  T: 4.0 -> 2.0\n" in shown
    assert "  seed: 0 -> 1\n" in shown
    assert "output_dir" not in shown
    new = read_json(tmp_path / "new" / "run.json")["config"]
    assert (new["T"], new["seed"], new["optimizer"]["lr"]) == (2.0, 1, 0.003)
    assert without_times(read_json(tmp_path / "old" / "summary.json"))["seed"] == 0
    assert distill("train", "--from", "nothing") == 4
    capsys.readouterr()
    assert (
        distill("train", "--from", "old", "-m", "T=1,2", "seed=2", "hydra.sweep.dir=s", "hydra.launcher.n_jobs=0") == 2
    )
    assert "with\n  seed: 0 -> 2\n  T: several values\n" in capsys.readouterr().out
    assert not (tmp_path / "s" / "sweep.json").exists(), "what is wrong is not remembered"
    assert distill("train", "--from", "old", "--cfg", "job", "T=9") == 0
    assert "T: 9.0" in capsys.readouterr().out
