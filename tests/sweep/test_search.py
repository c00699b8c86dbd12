"""Searches and clusters: Optuna on validation, stopped and gone on with; submitit and Ray, with a run that fails."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from helpers import QUICK, distill, distill_process, read_json, until
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from distill_cli.base.errors import ConfigError
from distill_cli.sweep import search

SHORT = [*QUICK, "threads=1", "baseline=false"]
SEARCH = ["train", *SHORT, "-m", "hydra/sweeper=optuna", "hydra.sweep.dir=search", "T=interval(1,8)",
          "alpha=interval(0.1,1)"]  # fmt: skip


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    (study,) = optuna.get_all_study_names(f"sqlite:///{folder / search.STUDY}")
    return optuna.load_study(study_name=study, storage=f"sqlite:///{folder / search.STUDY}").trials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("T=1,3", CategoricalDistribution(["1", "3"])),
        ("schedule=two_stage,constant", CategoricalDistribution(["two_stage", "constant"])),
        ("T=interval(1,8)", FloatDistribution(1, 8)),
        ("optimizer.lr=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("batch_size=int(interval(16,128))", IntDistribution(16, 128)),
        ("seed=range(0,5)", IntDistribution(0, 4)),
    ],
)
def test_what_is_swept_is_what_is_searched(text: str, expected: object) -> None:
    assert search.distribution(OverridesParser.create().parse_override(text)) == expected


def test_what_cannot_be_searched_is_told() -> None:
    with pytest.raises(ConfigError, match=r"a search takes a,b,c or interval"):
        search.distribution(OverridesParser.create().parse_override("teacher=glob(*)"))


@pytest.mark.slow
def test_a_search_is_told_what_several_processes_reached(tmp_path: Path) -> None:
    assert distill(*SEARCH, "hydra.sweeper.n_trials=2", "devices=2") == 0
    reached = [read_json(path)["val"]["student"]["accuracy"] for path in (tmp_path / "search").glob("*/summary.json")]
    assert sorted(trial.value or 0.0 for trial in trials(tmp_path / "search")) == sorted(reached)


@pytest.mark.slow
def test_a_search_killed_in_a_trial_goes_on_with_that_one_to_as_many_as_were_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "distill_cli", *SEARCH, "hydra.sweeper.n_trials=3", "schedule.refine.epochs=8"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        place = tmp_path / "search"
        until(lambda: len(list(place.glob("*/metrics.jsonl"))) > 1 and list(place.glob("*/summary.json")), process)
        process.send_signal(signal.SIGKILL)
    before = {path.parent.name for path in place.glob("*/run.json")}
    assert distill("resume", "search") == 0
    shown = capsys.readouterr().out
    assert "\n3 runs done" in shown
    after = {path.parent.name: read_json(path) for path in place.glob("*/summary.json")}
    assert len(after) == 3
    assert before <= set(after)
    known = trials(place)
    known = [trial for trial in known if trial.value is not None]
    values = [trial.value for trial in known]
    assert sorted(values) == sorted(summary["val"]["student"]["accuracy"] for summary in after.values())
    assert len({trial.params["T"] for trial in known}) == 3
    best = re.search(r"search: 3 trials, best val.accuracy (\S+): T=(\S+) alpha=(\S+)", shown)
    assert best is not None
    assert float(best[1]) == pytest.approx(max(values), abs=1e-4)
    assert 1 <= float(best[2]) <= 8
    assert (place / "leaderboard.csv").read_text().count("\n") == 4


@pytest.mark.slow
def test_a_search_for_less_minimises_and_a_failing_trial_counts_as_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *SHORT, "-m", "hydra/sweeper=optuna", "hydra.sweep.dir=search", "optimize=val.kl"]
    words += ["student.widths=[4],[1,1,1,1,1,1,1]", "hydra.sweeper.n_trials=3"]
    assert distill(*words) == 1
    known = trials(tmp_path / "search")
    states = [trial.state for trial in known]
    assert len(states) == 3
    assert optuna.trial.TrialState.FAIL in states
    shown = capsys.readouterr().out
    lowest = min(trial.value for trial in known if trial.value is not None)
    assert f"best val.kl {lowest:.4f}" in shown
    assert "poolings leave nothing" in shown


def test_without_optuna_it_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "optuna"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert distill(*SEARCH) == 2
    assert "pip install 'distill-cli[sweep]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "ray_cluster"])
def test_a_run_that_fails_on_a_cluster_costs_itself_only(launcher: str, tmp_path: Path) -> None:
    words = [*SHORT, "-m", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep"]
    done = distill_process("train", *words, "student.widths=[4],[1,1,1,1,1,1,1]", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "1 of 2 runs done" in done.stdout
    assert "poolings leave nothing" in done.stdout
    assert len(list((tmp_path / "sweep").glob("*/summary.json"))) == 1


def test_slurms_preset_is_what_submitit_takes() -> None:
    from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
    from omegaconf import OmegaConf

    from distill_cli.config.places import conf_dir

    preset = OmegaConf.load(conf_dir() / "hydra" / "launcher" / "slurm.yaml")
    assert set(preset) == set(OmegaConf.structured(SlurmQueueConf))
