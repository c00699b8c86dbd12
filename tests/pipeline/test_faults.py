"""Proves what a run does when the world fails it: no room, no memory, no right to write, numbers that are not finite."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import QUICK, distill, read_json, rows, without_times

from distill_cli.base import files

WORDS = [*QUICK, "teacher.widths=[8,16]", "schedule.imitate.epochs=3", "threads=1", "save_every=5", "run_dir=run"]

# An objective of the user's own that fails in its N-th step.
FAILING = """
import torch
from distill_cli.objectives.logits import KD

class Failing(KD):
    calls = 0
    def forward(self, *args):
        Failing.calls += 1
        if Failing.calls == {at}:
            {how}
        return super().forward(*args)
"""


def failing(place: Path, at: int, how: str) -> list[str]:
    """Words that choose an objective which fails at step `at`."""
    (place / "conf" / "objective").mkdir(parents=True, exist_ok=True)
    name = f"failing{at}{abs(hash(how)) % 1000}"
    (place / "conf" / "objective" / "kd.yaml").write_text(f"kd:\n  _target_: {name}.Failing\n  weight: 1.0\n")
    (place / f"{name}.py").write_text(FAILING.format(at=at, how=how))
    return [*WORDS, "objective=kd"]


def checkpoint(run: Path, name: str = "last") -> int:
    """The step of a checkpoint that is as it was written."""
    found = torch.load(run / "checkpoints" / f"{name}.pt", weights_only=True)
    listed = files.read_json(run / "checkpoints" / "manifest.json")["files"]
    assert listed[f"{name}.pt"]["sha256"] == files.sha256(run / "checkpoints" / f"{name}.pt")
    return int(found["step"])


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_step_that_is_not_finite_ends_the_run_and_reaches_no_file(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = failing(tmp_path, 33, f"return super().forward(*args) * float('{value}')")
    assert distill("train", *words) == 5
    said = capsys.readouterr().err
    assert "not finite: the term kd at step 33 (imitate, epoch 2), where T=3, alpha=0.7, lr=" in said
    assert "optimizer.clip=1" in said
    assert (checkpoint(tmp_path / "run"), checkpoint(tmp_path / "run", "best")) == (30, 21)
    status = read_json(tmp_path / "run" / "status.json")
    assert (status["status"], status["exit_code"]) == ("failed", 5)
    assert len(rows(tmp_path / "run")) == 1
    weights = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["student"]
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_no_memory_is_exit_8_with_what_to_try_and_the_checkpoint_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = failing(tmp_path, 33, "raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 9 GiB')")
    assert distill("train", *words) == 8
    said = capsys.readouterr().err
    assert "CUDA out of memory" in said and "smaller batch_size" in said and "Traceback" not in said
    assert checkpoint(tmp_path / "run") == 30
    assert read_json(tmp_path / "run" / "status.json")["exit_code"] == 8


def forked(act: Callable[[], int]) -> tuple[int, str]:
    """Exit code and stderr of a fork of this process that does `act`: limits set in it end with it."""
    child = os.fork()
    if not child:
        with Path("said").open("w", buffering=1) as file:
            sys.stdout = sys.stderr = file
            code = act()
            file.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), Path("said").read_text()


def test_a_disk_that_fills_up_costs_no_checkpoint_and_the_run_goes_on_later(tmp_path: Path) -> None:
    assert distill("train", *WORDS[:-1], "run_dir=whole") == 0
    sizes = [path.stat().st_size for path in (tmp_path / "whole" / "checkpoints").glob("*.pt")]

    def limited() -> int:
        # The checkpoints grow with the rows in them: the first ones fit, a later one does not.
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes) - 300, resource.RLIM_INFINITY))
        return distill("train", *WORDS)

    code, said = forked(limited)
    assert code == 6, said
    assert "no space (File too large)" in said and "last.pt needs" in said and "are free" in said
    assert "Traceback" not in said
    run = tmp_path / "run"
    status = read_json(run / "status.json")
    assert (status["status"], status["exit_code"]) == ("failed", 6)
    assert checkpoint(run) > 0
    assert not list(run.rglob(".*.tmp"))
    assert distill("resume", "run") == 0
    assert [without_times(row) for row in rows(run)] == [without_times(row) for row in rows(tmp_path / "whole")]
    assert files.sha256(run / "student.safetensors") == files.sha256(tmp_path / "whole" / "student.safetensors")


def test_a_log_that_takes_no_more_is_exit_6_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.log").write_bytes(b"an earlier line\n" * 300_000)

    def limited() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 300_000 + 100, resource.RLIM_INFINITY))
        return distill("train", *WORDS)

    code, said = forked(limited)
    assert code == 6, said
    assert "no space (File too large)" in said and "train.log" in said
    assert "Traceback" not in said and "Logging error" not in said
    assert read_json(tmp_path / "run" / "status.json")["exit_code"] == 6


def test_a_run_writes_through_no_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").write_text("mine")
    for name in (".lock", "train.log", ".hydra", "checkpoints"):
        run = tmp_path / name.strip(".")
        run.mkdir()
        (run / name).symlink_to(tmp_path / ("precious" if "." in name[1:] or name == ".lock" else "elsewhere"))
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        assert distill("train", *WORDS[:-1], f"run_dir={run}") in (2, 4, 6)
        assert str(run / name) in capsys.readouterr().err
    assert (tmp_path / "precious").read_text() == "mine"
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("place", ["/proc/nowhere", "/sys/nowhere", "/dev/null/x"])
def test_where_nothing_can_be_written_is_exit_6_before_the_data_are_read(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*QUICK, "dataset=image_folder", "dataset.root=not there"]
    assert distill("train", *words, f"output_dir={place}") == 6
    assert distill("train", *words, f"run_dir={place}") == 6
    said = capsys.readouterr().err
    assert said.count(place) >= 2 and "not there" not in said


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert distill("train", *WORDS[:-1], "run_dir=whole") == 0
    import time

    now, calls = time.time, [0]

    def jumping() -> float:
        calls[0] += 1
        return now() + (86_400 if calls[0] % 2 else -86_400)

    monkeypatch.setattr(time, "time", jumping)
    assert distill("train", *WORDS) == 0
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        os.utime(path, (1, 1) if path.name == "last.pt" else None)
    assert checkpoint(tmp_path / "run") == checkpoint(tmp_path / "whole")
    assert files.sha256(tmp_path / "run" / "student.safetensors") == files.sha256(
        tmp_path / "whole" / "student.safetensors"
    )
