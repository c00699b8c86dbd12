"""A chain of runs: a model between teacher and student learns from the one before it and teaches the next.

Each link is a run of its own in `chain/<link>/` below the folder of the run that the chain ends in: the same settings and
`link=<link>`. A link can be resumed alone; a chain that is resumed leaves its finished links alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_cli.base import ui
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.config import arrangement
from distill_cli.config.schema import Train
from distill_cli.models import deployable
from distill_cli.pipeline import distillation
from distill_cli.runs import identity
from distill_cli.runs.run import Run
from distill_cli.training import job


def distill(settings: Train, run: Run) -> dict[str, Any]:
    """Run the job in its folder, the links before it first; returns its summary.

    Raises:
        DistillError: as the parts say.
    """
    names, link = list(settings.chain), settings.link
    if not names or run.summary() is not None:  # finished: its links are not asked for
        return distillation.distill(settings, run)
    if link is not None:
        if run.folder.name != link or run.folder.parent.name != "chain":
            raise ConfigError(
                f"link={link}: a link is a run below the chain's own, and {run.folder} is not one",
                "distill resume RUN/chain/NAME resumes one; without link= the whole chain is run",
            )
        return _link(settings, run, run.folder.parent.parent)
    job.check(settings)  # of every link at once, before the first is trained
    for place, name in enumerate(names):
        own = arrangement.at(settings, name, run.folder)
        folder = arrangement.folder_of(name, run.folder)
        folder.parent.mkdir(exist_ok=True)
        with Run(own, folder, named=True) as inner:
            if inner.summary() is not None:
                ui.say(f"chain: {name} is finished")
                continue
            ui.show(f"chain      link {place + 1} of {len(names) + 1}: {name}\n")
            _link(own, inner, run.folder)
            ui.show("")
    ui.show(f"chain      link {len(names) + 1} of {len(names) + 1}: the student\n")
    return _link(settings, run, run.folder)


def _link(settings: Train, run: Run, home: Path) -> dict[str, Any]:
    """Run one link, whose teacher is the link before it, below `home`; the last one's student is the chain's."""
    built: Mapping[str, Any] = {}
    if (teacher := arrangement.before(settings)) is not None:
        folder = arrangement.folder_of(teacher, home)
        if not (folder / identity.SUMMARY).exists():
            raise CheckpointError(
                f"{folder} is not finished: it is the teacher of this link",
                f"distill resume {home} runs the whole chain",
            )
        built = deployable.read_card(folder)["model"]
    return distillation.distill(arrangement.linked(settings, home, built), run)
