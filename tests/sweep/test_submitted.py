"""One run as one job of a cluster: of several processes that submitit starts, queued again, failed; and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import QUICK, distill, distill_process, rows
from safetensors.torch import load_file

LINE = [*QUICK, "optimizer=sgd", "optimizer.lr=0.01", "dataset.limit=200", "batch_size=25", "threads=1"]
JOB = [
    "hydra/launcher=submitit_local",
    "hydra.launcher.tasks_per_node=2",
    "hydra.launcher.timeout_min=5",
    "run_dir=run",
]


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        ("train", ["hydra/launcher=processes"], "hydra/launcher: shares out the runs of a sweep"),
        ("train", ["hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs: shares out the runs of a sweep"),
        ("train", ["hydra/sweeper=optuna"], "hydra/sweeper: is for a sweep"),
        ("train", ["hydra.sweep.dir=sweep"], "hydra.sweep.dir: is for a sweep"),
        ("train", ["hydra/launcher=slurm", "--dry-run"], "--dry-run works where it is typed"),
        ("train", ["hydra/launcher=slurm", "T=-1"], "T: must be greater than 0"),
        ("teacher", ["hydra/launcher=slurm"], "distill teacher works where it is typed"),
    ],
)
def test_a_launcher_that_would_do_nothing_is_refused(
    command: str, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(command, *words) == 2
    assert told in capsys.readouterr().err
    assert not list(Path().iterdir())


@pytest.mark.slow
def test_a_job_that_is_queued_again_goes_on_and_is_one_run() -> None:
    more = ["save_every=1", "schedule.refine.epochs=15"]
    line = [sys.executable, "-m", "distill_cli", "train", *LINE, *more, *JOB]
    submitted = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not Path("run/checkpoints/manifest.json").exists():
        assert submitted.poll() is None
        time.sleep(0.05)
    tasks = subprocess.check_output(["pgrep", "-f", f"core._submit {Path.cwd()}/run"], text=True).split()
    for task in tasks:
        os.kill(int(task), signal.SIGUSR2)  # as Slurm does before a job's time is over
    said, _ = submitted.communicate()
    assert submitted.returncode == 0 and len(tasks) == 2
    assert "2 processes, each with its part of every batch" in said and "going on after step" in said
    assert distill("train", *LINE, *more, "run_dir=alone", "optimizer.accumulate=2") == 0
    ours, theirs = (load_file(Path(name) / "student.safetensors") for name in ("run", "alone"))
    assert all(values.equal(theirs[name]) for name, values in ours.items())
    assert [row["epoch"] for row in rows(Path("run"))] == [row["epoch"] for row in rows(Path("alone"))]


@pytest.mark.slow
def test_a_job_that_fails_ends_the_line_with_its_code(tmp_path: Path) -> None:
    done = distill_process("train", *LINE, *JOB, "optimizer.lr=1e30", cwd=tmp_path)
    assert done.returncode == 5
    assert done.stdout.count("not finite") == 1
