"""Go on with a run or a sweep where it stopped; the result is the same as without the stop.

usage: distill resume PATH [key=value ...] [options]

  distill resume outputs/train/<date>/<run>
  distill resume outputs/sweeps/<date>/<sweep>          finished runs stay, missing ones are run
  distill resume RUN workers=4 device=cpu               settings that do not change the result
  distill resume SWEEP T=1,3,5,10                       more values of an axis: their runs are added
  distill resume RUN trust=[mypackage]                  its configuration may name classes of that package
  distill resume RUN --config-dir mine                  if it was started with it

The line it was started with, typed again with run_dir=RUN or hydra.sweep.dir=SWEEP, does the same. A finished run
shows its summary.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.cli.commands import train
from distill_cli.config import compose, overrides, vetting
from distill_cli.config.load import load
from distill_cli.runs import identity
from distill_cli.sweep import sweep


def run(words: Sequence[str]) -> int:
    """Go on with the run or the sweep that the words name; returns the exit code.

    Raises:
        ConfigError: the words do not name one, or it was started in another folder. CheckpointError: what its folder
            says cannot be used, names code that is not trusted, or differs from what is there now.
    """
    folder, config_dir, typed = _read(words)
    if (folder / identity.SWEEP).is_file():
        known = sweep.known(folder)
        vetting.same_directory(known["directory"], known["output_dir"], typed)
        texts = vetting.merged(known, [*typed, overrides.quoted(f"hydra.sweep.dir={folder}")], multirun=True)
        with compose.session("train", config_dir) as engine:
            return sweep.run(engine, known["name"], config_dir, texts, train.run)
    if not (folder / identity.FILE).is_file():
        raise CheckpointError(
            f"{folder.absolute()} holds no run ({identity.FILE} is missing) and no sweep", "give the folder of one"
        )
    known = identity.read(folder)
    texts = vetting.merged(known, [*typed, f"run_dir={folder}"])
    vetting.same_directory(known["directory"], known["config"]["output_dir"], typed)
    train.run(load("train", texts, known["name"], config_dir))
    return 0


def _read(words: Sequence[str]) -> tuple[Path, str | None, list[str]]:
    """The folder, --config-dir, and the settings."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-cd", "--config-dir")
    try:
        found, unknown = parser.parse_known_intermixed_args(words)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error), "distill resume --help shows the options") from error
    if unknown:
        raise ConfigError(f"unrecognized arguments: {' '.join(unknown)}", "distill resume --help shows the options")
    settings = [word for word in found.words if "=" in word and not Path(word).is_dir()]
    folders = [word for word in found.words if word not in settings]
    if len(folders) != 1:
        raise ConfigError("which run?", "distill resume outputs/train/<date>/<run>")
    return Path(folders[0]).expanduser(), found.config_dir, settings
