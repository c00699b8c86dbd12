"""The check for a machine with one GPU, where there is none: what it says, and that its steps' code runs and is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

BENCH = ROOT / "tests/bench/gpu.py"


def typed(*words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, BENCH, *words], capture_output=True, text=True, env=env, check=False)


@pytest.mark.slow
def test_without_a_gpu_the_steps_of_the_dry_run_are_lines_that_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    refused = typed("--out", str(out))
    assert refused.returncode == 2 and "--dry" in refused.stderr and not out.exists()
    first = typed("--dry", "--out", str(out), "--only", "warm", "live")
    assert first.returncode == 0, first.stdout + first.stderr
    assert [line.split(":")[0] for line in first.stdout.splitlines()[4:]] == ["| warm", "| live"]
    kept = json.loads(out.read_text())
    kept["steps"]["live"]["failed"] = "over its time"
    out.write_text(json.dumps(kept))
    again = typed("--dry", "--out", str(out), "--only", "warm", "live")
    assert again.returncode == 0 and "FAILED" not in again.stdout
    lines = zip(first.stdout.splitlines(), again.stdout.splitlines(), strict=True)
    assert [one == other for one, other in lines] == [True] * 5 + [False]  # the step that had failed was measured again
