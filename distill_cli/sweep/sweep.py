"""A sweep: every value checked, then its runs through Hydra's sweeper and launcher, and what came of them."""

from __future__ import annotations

import contextlib
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig

from distill_cli.base import files, locks, ui
from distill_cli.base.errors import CheckpointError, ConfigError, DistillError
from distill_cli.base.names import among, overrides_slug
from distill_cli.config import compose, load, overrides, vetting
from distill_cli.config.schema import Train
from distill_cli.runs import identity
from distill_cli.runs.identity import LOCK, SUMMARY, SWEEP
from distill_cli.sweep import jobs, live, plugins, search
from distill_cli.sweep.jobs import Start
from distill_cli.sweep.launcher import Processes
from distill_cli.sweep.search import Search

PARTS = {"teacher", "student", "objective", "optimizer", "device", "logger"}  # what only its class, or torch, can check
MANY = 20  # values whose checking takes long enough to be told


@dataclass(frozen=True)
class Plan:
    """A sweep as composed: the settings of all its runs as Hydra takes them, and which of them are swept over."""

    texts: list[str]
    parsed: list[Override]
    cfg: DictConfig
    searching: bool

    @cached_property
    def keys(self) -> list[str]:
        return [override.get_key_element() for override in self.parsed if override.is_sweep_override()]

    @property
    def total(self) -> int:
        return int(self.cfg.hydra.sweeper.n_trials) if self.searching else len(list(overrides.expand(self.parsed)))

    def label(self, settings: Sequence[str]) -> str:
        """What tells a run from the others."""
        return " ".join(among(settings, self.keys)) or "the only run"

    def folders(self, home: Path) -> dict[str, Path]:
        """The runs' folders in `home` by label: all of a grid's, those of a search that there are."""
        if not self.searching:
            lines = overrides.expand(self.parsed)
            return {self.label(settings): home / overrides_slug(settings, self.keys) for settings in lines}
        folders = {}
        for path in sorted(home.glob(f"*/{identity.FILE}")):
            with contextlib.suppress(CheckpointError):
                folders[self.label(identity.read(path.parent)["overrides"])] = path.parent
        return folders


def run(
    engine: Any, config_name: str, config_dir: str | None, texts: Sequence[str], task: Callable[[Train], Any]
) -> int:
    """Run a sweep, or what is missing of it where its folder holds it already; returns the exit code.

    Args:
        texts: the settings, swept over or not. task: runs the settings of one.

    Raises:
        ConfigError: some value is wrong; nothing has been started. CheckpointError: the folder holds another sweep.
        BusyError: another process runs this one. KeyboardInterrupt: we were asked to stop; so were the runs.
    """
    plan = read(engine, config_name, texts)
    named = overrides.value_of(plan.parsed, "hydra.sweep.dir") is not None
    wanted = Path(plan.cfg.hydra.sweep.dir).absolute()
    if wanted.exists() and not wanted.is_dir():
        raise ConfigError(f"hydra.sweep.dir: {wanted} is no folder")
    home, lock = locks.own(wanted, LOCK, named, lambda place: (place / SWEEP).exists())
    since = time.time()
    try:
        meet(engine, config_name, plan, home)
        start = Start(task, config_name, config_dir, str(Path.cwd()), plan.cfg.optimize)
        view = live.View(lambda: plan.folders(home), plan.total, plan.cfg.optimize, since)
        compose.name_runs_by(plan.keys)
        settings = [*plan.texts, overrides.quoted(f"hydra.sweep.dir={home}")]

        def ready() -> None:
            remember(plan, home, config_name, texts)
            done = f", {len(view.before)} of them done before" if view.before else ""
            ui.show(f"sweep: {plan.total} {'run' if plan.total == 1 else 'runs'}{done}, in {home}\n")

        broken = False
        try:
            with live.shown(view):
                plugins.multirun(engine, config_name, start, settings, (Processes, Search), ready)
        except DistillError:
            raise
        except KeyboardInterrupt:
            ui.say(f"to go on: distill resume {shlex.quote(str(home))}")
            raise
        except Exception as error:  # a cluster lost a run: the folders tell which
            broken = True
            ui.warn(f"the sweep broke off: {type(error).__name__}: {error}")
        return max(close(plan, home, since), int(broken))
    finally:
        lock.release()


def read(engine: Any, config_name: str, texts: Sequence[str]) -> Plan:
    """Compose a sweep and check every value of every axis.

    Raises:
        ConfigError: something is wrong with one of them.
    """
    parsed = overrides.parse(texts, multirun=True)
    if overrides.value_of(parsed, "run_dir") is not None:
        raise ConfigError("run_dir: names one folder, a sweep needs one for each run", "use hydra.sweep.dir=PATH")
    if overrides.value_of(parsed, "hydra.sweep.subdir") is not None:
        raise ConfigError("hydra.sweep.subdir: what is swept over names a run", "hydra.sweep.dir=PATH names the sweep")
    for key in ("optimize", "output_dir", "hydra.sweep.dir"):
        overrides.value_of(parsed, key)  # takes one value
    cfg = compose.compose(engine, config_name, "train", texts, RunMode.MULTIRUN)
    sweeper = cfg.hydra.sweeper
    searching = str(sweeper._target_).endswith(f".{Search.__name__}")
    if searching:
        search.imported()
        plugins.at_least_one("hydra.sweeper.n_trials", sweeper.n_trials)
    typed = {override.key_or_group for override in parsed}
    swept = any(override.is_sweep_override() for override in parsed)
    params = {} if searching and swept else sweeper.params or {}
    more = [f"{key}={value}" for key, value in params.items() if key not in typed]
    if not searching and "baseline" not in typed:
        more.append("baseline=true")  # shared by all runs of a seed and budget, and what they are held against
    both = overrides.parse([*more, *texts], multirun=True)
    last = {(override.key_or_group, override.package): override for override in both}  # +key and key are one
    plan = Plan([override.input_line or "" for override in last.values()], list(last.values()), cfg, searching)
    for override in plan.parsed:
        if searching and override.is_sweep_override():
            search.distribution(override)
        elif override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line}: names a range, which only a search can use", "add hydra/sweeper=optuna"
            )
    values = list(overrides.combinations(plan.parsed))
    if len(values) > MANY:
        ui.say(f"checking {len(values)} values")
    parts = any(re.split(r"[./]", key.lstrip("+"))[0] in PARTS for key in plan.keys)
    for line in values:
        settings = load.settings(engine, config_name, "train", line)
        if parts:
            from distill_cli.training import job  # torch takes its time to import

            job.check(settings)
    return plan


def remember(plan: Plan, home: Path, config_name: str, texts: Sequence[str]) -> None:
    """Write what the sweep is into its folder, for `distill resume`; not where the folder lies, for it may be moved."""
    kept = [text for text in texts if not text.startswith("hydra.sweep.dir=")]
    about = {"name": config_name, "directory": str(Path.cwd()), "output_dir": plan.cfg.output_dir, "overrides": kept}
    files.write_json(home / SWEEP, about)


def known(home: Path) -> dict[str, Any]:
    """What `remember` wrote.

    Raises:
        CheckpointError: it is damaged.
    """
    return identity.read_as(home / SWEEP, {"name": str, "directory": str, "output_dir": str, "overrides": list})


def meet(engine: Any, config_name: str, plan: Plan, home: Path) -> None:
    """Hold the sweep against what `home` holds: the same axes, and finished runs that are what would be run.

    Runs of values that are no longer asked for are compared too; damaged ones will say so when they are run.

    Raises:
        CheckpointError: it holds something else.
    """
    hint = "choose another hydra.sweep.dir, or drop it for a new sweep"
    for path in home.iterdir():
        if path.is_symlink():
            raise CheckpointError(f"{path} is a link: a sweep writes in its own folder only")
    if not (home / SWEEP).exists():
        if (home / identity.FILE).exists():
            raise CheckpointError(f"{home} holds a run, not a sweep", hint)
        return
    before = overrides.parse(known(home)["overrides"], multirun=True)
    axes = {override.get_key_element() for override in before if override.is_sweep_override()}
    if axes and axes != set(plan.keys):
        now = ", ".join(sorted(plan.keys)) or "nothing"
        raise CheckpointError(f"{home} holds a sweep over {', '.join(sorted(axes))}, this sweep is over {now}", hint)
    shared = [override.input_line or "" for override in plan.parsed if not override.is_sweep_override()]
    for path in sorted(home.glob(f"*/{SUMMARY}")):
        try:
            kept = identity.read(path.parent)
            own = among(kept["overrides"], plan.keys)
            if path.parent.name != overrides_slug(own, plan.keys):
                continue
            settings = [*shared, *vetting.merged({"name": "train", "overrides": own}, [])]
        except CheckpointError:
            continue
        today = identity.config_of(load.settings(engine, config_name, "train", settings))
        identity.require_same(kept["config"], today, f"{path.parent} holds a run of another configuration", hint)


def close(plan: Plan, home: Path, since: float) -> int:
    """Show what came of the runs, and write leaderboard and report; returns the exit code."""
    states = {label: jobs.state(folder, since, over=True) for label, folder in plan.folders(home).items()}
    missing = {label: state for label, state in states.items() if state.name != "finished"}
    done = len(states) - len(missing)
    ui.show(f"\n{done} {'' if plan.searching else f'of {plan.total} '}runs done\n")
    if done:
        ui.show(f"report: {report(home)}")
    if missing:
        rows = [[label, state.name, state.why] for label, state in missing.items()]
        ui.show(ui.table("not finished", ["run", "", "why"], rows, numbers=False))
        ui.show(f"a run's train.log says more; to run what is missing:  distill resume {shlex.quote(str(home))}")
    return 1 if missing else 0


def report(home: Path) -> Path:
    """Write and show the leaderboard of the runs in `home`; returns where the page is."""
    from distill_cli.report import leaderboard, write  # scipy and matplotlib take their time to import

    leaderboard.show(write.of_sweep([home], home))
    return home / write.PAGE
