"""One run as one job of a cluster, through Hydra's launcher: submitted, shown as it goes on, and ended as the job ended."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from distill_cli.base import ui
from distill_cli.base.errors import DistillError, WorkerError
from distill_cli.config import load, overrides
from distill_cli.config.schema import Train
from distill_cli.sweep import jobs, plugins


@dataclass(frozen=True)
class Job(jobs.Start):
    """What a launcher calls in each process of the job; returns its exit code."""

    def __call__(self, cfg: DictConfig) -> int:
        return self.done()


def run(
    engine: Any, config_name: str, config_dir: str | None, parsed: Sequence[Override], task: Callable[[Train], Any]
) -> int:
    """Submit the run with these settings, and wait for it; returns its exit code.

    Raises:
        ConfigError: some value is wrong; nothing has been submitted. WorkerError: the job was lost.
        KeyboardInterrupt: we were asked to stop; the job of a cluster goes on.
    """
    texts = [override.input_line or "" for override in parsed if override.key_or_group != "run_dir"]
    folder = load.settings(engine, config_name, "train", [override.input_line or "" for override in parsed]).folder
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(task, config_name, config_dir, str(Path.cwd()), None)
    place = [overrides.quoted(f"hydra.sweep.dir={folder}"), "hydra.sweep.subdir=."]
    ui.say(f"one job; what it prints is shown here, and kept in {folder / jobs.CONSOLE}")
    try:
        with followed(folder / jobs.CONSOLE):
            code = int(plugins.single(engine, config_name, job, [*texts, *place]))
    except DistillError:
        raise
    except KeyboardInterrupt:
        if overrides.value_of(parsed, "hydra/launcher") == "slurm":
            ui.say("the job goes on without this line; scancel ends it")
        raise
    except Exception as error:  # the cluster lost it
        first = str(error).strip().partition("\n")[0]
        hint = f"the same line with run_dir={shlex.quote(str(folder))} goes on with it"
        raise WorkerError(f"the job broke off: {type(error).__name__}: {first}", hint) from error
    if code < 0:
        raise WorkerError(f"the run's process was ended by {signal.Signals(-code).name}")
    return code


@contextmanager
def followed(path: Path) -> Iterator[None]:
    """Inside, print what is written into a file; it may be begun anew, as by a job that was queued again."""
    path.unlink(missing_ok=True)
    shown = 0

    def more() -> None:
        nonlocal shown
        with suppress(OSError), path.open("rb") as file:  # not there yet; or whoever read our words is gone
            file.seek(shown if path.stat().st_size >= shown else 0)
            print(file.read().decode(errors="replace"), end="", flush=True)
            shown = file.tell()

    with ui.looking(more):
        yield
