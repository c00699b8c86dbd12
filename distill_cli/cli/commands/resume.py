"""Go on with a run or a sweep where it stopped; the result is the same as without the stop.

usage: distill resume PATH [key=value ...] [options]

  distill resume outputs/train/<date>/<run>
  distill resume outputs/sweeps/<date>/<sweep>          finished runs stay, missing ones are run
  distill resume RUN workers=4 device=cpu               settings that do not change the result
  distill resume RUN schedule.train.epochs=30           its last stage is made longer, where that is as if said at once
  distill resume SWEEP T=1,3,5,10                       more values of an axis: their runs are added
  distill resume RUN trust=[mypackage]                  its configuration may name classes of that package
  distill resume RUN --config-dir mine                  if it was started with that option

The line it was started with, typed again with run_dir=RUN or hydra.sweep.dir=SWEEP, does the same. A finished run
shows its summary. Where the learning rate, T or alpha move over the whole of what is made longer, the run would have been
another: `distill train --from RUN schedule.LAST.epochs=N student.checkpoint=RUN` then starts a new one from its student.
"""

from __future__ import annotations

from collections.abc import Sequence

from distill_cli.base import files
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.cli.commands import train
from distill_cli.cli.words import arguments
from distill_cli.config import compose, overrides, vetting
from distill_cli.config.load import load
from distill_cli.runs import identity
from distill_cli.sweep import submitted, sweep


def run(words: Sequence[str]) -> int:
    """Go on with the run or the sweep that the words name; returns the exit code.

    Raises:
        ConfigError: the words do not name one, or it was started in another folder. CheckpointError: what its folder
            says cannot be used, names code that is not trusted, or differs from what is there now.
    """
    args = arguments("resume", words)
    typed = [word for word in args.overrides if "=" in word and not files.exists(word)]
    paths = [word for word in args.overrides if word not in typed]
    if len(paths) != 1:
        raise ConfigError("which run?", "distill resume outputs/train/<date>/<run>")
    folder = files.place(paths[0], "distill resume")
    if (folder / identity.SWEEP).is_file():
        kept = sweep.known(folder)
        vetting.same_directory(kept["directory"], kept["output_dir"], typed)
        texts = vetting.merged(kept, [*typed, overrides.quoted(f"hydra.sweep.dir={folder}")], multirun=True)
        with compose.session("train", args.config_dir) as engine:
            return sweep.run(engine, kept["name"], args.config_dir, texts, train.run)
    if not (folder / identity.FILE).is_file():
        raise CheckpointError(
            f"{folder.absolute()} holds no run ({identity.FILE} is missing) and no sweep", "give the folder of one"
        )
    kept = identity.read(folder)
    texts = vetting.merged(kept, [*typed, f"run_dir={folder}"])
    vetting.same_directory(kept["directory"], kept["config"]["output_dir"], typed)
    parsed = overrides.parse(texts, multirun=False)
    if overrides.launcher(parsed, None):
        with compose.session("train", args.config_dir) as engine:
            return submitted.run(engine, kept["name"], args.config_dir, parsed, train.run)
    train.run(load("train", texts, kept["name"], args.config_dir))
    return 0
