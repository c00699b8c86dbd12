"""Show what finished runs reached: one run's page, or a leaderboard over seeds and settings with its own page.

usage: distill report PATH [PATH ...] [output=DIR]

  distill report outputs/train/<date>/<run>       one run: its numbers, and report.html in its folder
  distill report outputs/sweeps/<date>/<time>     a sweep: leaderboard.csv and report.html at its top
  distill report outputs                          all runs
  distill report RUN RUN SWEEP output=compared    several together; without output= into ./report

Runs that differ by their seed alone make one row, with the spread. Validation ranks the rows; the difference to the
same student trained on labels only is tested over the seeds (baseline=true trains it).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distill_cli.base import ui
from distill_cli.base.errors import ConfigError, did_you_mean
from distill_cli.report import leaderboard, records, write
from distill_cli.runs import identity


def run(words: Sequence[str]) -> None:
    """Do what the words say.

    Raises:
        ConfigError: they say nothing we know. CheckpointError: a path is no folder, or no finished run lies there.
    """
    paths, output = _read(words)
    if output is None and len(paths) == 1 and (paths[0] / identity.FILE).is_file():
        leaderboard.show(leaderboard.leaderboard([records.read(paths[0])]))
        ui.show(f"report       {write.of_run(paths[0])}")
        return
    home = output or (paths[0] if len(paths) == 1 else Path("report"))
    leaderboard.show(write.of_sweep(paths, home))
    if left := records.unfinished(paths):
        ui.say(f"{len(left)} {'run is' if len(left) == 1 else 'runs are'} not finished and left out")
    ui.show(f"leaderboard  {home / write.TABLE}")
    ui.show(f"report       {home / write.PAGE}")


def _read(words: Sequence[str]) -> tuple[list[Path], Path | None]:
    """The paths, and the folder that output= names."""
    paths, output = [], None
    for word in words:
        key, equals, value = word.partition("=")
        if key == "output" and value:
            output = Path(value).expanduser()
        elif word.startswith("-") or (equals and not Path(word).expanduser().exists()):
            raise ConfigError(
                f"distill report: {word!r} means nothing here",
                f"{did_you_mean(key, ['output'])}distill report --help shows what can be said",
            )
        else:
            paths.append(Path(word).expanduser())
    if not paths:
        raise ConfigError("which runs?", "distill report outputs/train/<date>/<run>, or a folder of runs")
    return paths, output
