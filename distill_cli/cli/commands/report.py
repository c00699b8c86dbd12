"""Show what finished runs reached: one run's page, or a leaderboard over seeds and settings with its own page.

usage: distill report PATH [PATH ...] [output=DIR]
       distill report RUN logger=NAME

  distill report outputs/train/<date>/<run>       one run: its numbers, and report.html in its folder
  distill report outputs/sweeps/<date>/<time>     a sweep: leaderboard.csv and report.html at its top
  distill report outputs                          all runs
  distill report RUN RUN SWEEP output=compared    several together; without output= into ./report
  distill report RUN logger=wandb                 send a run to a tracker, or to several: logger=[tensorboard,mlflow]
  distill report RUN logger=wandb logger.wandb.project=x

Runs that differ by their seed alone make one row, with the spread. Validation ranks the rows; the difference to the
same student trained on labels only is tested over the seeds (baseline=true trains it).

What a tracker has of the run already is not sent again. A run that is still running is followed until it ends; Ctrl-C then
stops the sending, not the run. A run that was stopped or has failed is sent as far as it came.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill_cli.base import files, locks, ui
from distill_cli.base.errors import BusyError, CheckpointError, ConfigError, StorageError
from distill_cli.cli.words import refused
from distill_cli.report import leaderboard, records, write
from distill_cli.runs import identity


def run(words: Sequence[str]) -> None:
    """Report on the runs that the words name, or send one to trackers.

    Raises:
        ConfigError: a word is none that is taken. CheckpointError: a path is no folder, or no finished run lies there.
        StorageError: a tracker did not take the run.
    """
    paths, output, settings = _read(words)
    folder = paths[0]
    one = output is None and len(paths) == 1 and (folder / identity.FILE).is_file()
    if settings and not one:
        raise ConfigError(
            f"{settings[0]}: sends one run, and {', '.join(map(str, paths))} is not the folder of one",
            "distill report outputs/train/<date>/<run> logger=NAME; a sweep's runs are folders in the sweep's",
        )
    nodes = _trackers(folder, settings) if settings else {}
    if one and (not nodes or (folder / identity.SUMMARY).exists()):
        leaderboard.show(leaderboard.leaderboard([records.read(folder)]))
        ui.show(f"report       {write.of_run(folder)}")
    if nodes:
        _send(folder.absolute(), nodes)
    if not one:
        home = output or (folder if len(paths) == 1 else Path("report"))
        leaderboard.show(write.of_sweep(paths, home))
        if left := records.unfinished(paths):
            ui.say(f"{len(left)} {'run is' if len(left) == 1 else 'runs are'} not finished and left out")
        ui.show(f"leaderboard  {home / write.TABLE}")
        ui.show(f"report       {home / write.PAGE}")


def _read(words: Sequence[str]) -> tuple[list[Path], Path | None, list[str]]:
    """The paths, the folder that output= names, and the settings of trackers."""
    paths, output, settings = [], None, []
    for word in words:
        key, equals, value = word.partition("=")
        if key == "output" and value:
            output = files.place(value, "output")
        elif equals and key.lstrip("+~").split(".")[0] == "logger":
            settings.append(word)
        elif word.startswith("-") or (equals and not files.exists(word)):
            raise refused("report", word, ["output", "logger"])
        else:
            paths.append(files.place(word, "distill report"))
    if not paths:
        raise ConfigError("which runs?", "distill report outputs/train/<date>/<run>, or a folder of runs")
    return paths, output, settings


def _trackers(folder: Path, settings: Sequence[str]) -> dict[str, Any]:
    """The configuration of the trackers that the settings choose for the run in `folder`, by name.

    Raises:
        ConfigError: there is no such tracker, or it takes no such key.
    """
    from distill_cli import trackers  # not for who sends nothing: Hydra takes its time to import
    from distill_cli.config import overrides
    from distill_cli.config.load import load

    run = identity.read(folder)
    results = Path(run["directory"], run["config"]["output_dir"])  # where a tracker may have its store
    texts = [f"output_dir={results}"] if Path(run["directory"]).is_dir() else []
    texts = [overrides.quoted(text) for text in [*texts, *settings]]
    if swept := [o.input_line for o in overrides.parse(texts, multirun=True) if o.is_sweep_override()]:
        raise ConfigError(
            f"{swept[0]}: lists several values", "several trackers are a list: logger=[tensorboard,wandb]"
        )
    nodes = {name: one.node for name, one in load("train", texts).logger.items()}
    trackers.check(nodes)
    return nodes


def _send(folder: Path, nodes: dict[str, Any]) -> None:
    """Send the run in `folder` to trackers; one that is running is followed until it ends.

    Raises:
        StorageError: one of them did not take it.
    """
    from distill_cli.trackers.following import Following

    names = ", ".join(nodes)
    if _ending(folder) is None:
        ui.say(f"{folder} is still running: it is sent to {names} until it ends; Ctrl-C stops that, not the run")
    with Following(nodes, folder, later=True) as sending:
        while (ending := _ending(folder)) is None:
            time.sleep(1)
        sending.status = ending
    if sending.failed:
        raise StorageError(f"not sent to {', '.join(sorted(sending.failed))}", f"{folder / 'train.log'} says more")
    ui.show(f"sent         {folder} to {names}: {ending}")


def _ending(folder: Path) -> str | None:
    """How the run in `folder` ended, as a tracker is told; None while it runs."""
    try:
        locks.claim(folder / identity.LOCK).release()
    except BusyError:
        return None
    if (folder / identity.SUMMARY).exists():
        return "finished"
    try:
        status = files.read_json(folder / identity.STATUS).get("status", "failed")
    except CheckpointError:
        return "failed"
    return "failed" if status == "running" else str(status)  # running: it was killed
