"""A chain of runs: a model between teacher and student learns from the one before it and teaches the next.

Each link is a run of its own in `chain/<link>/` below the folder of the run that the chain ends in: the same settings and
`link=<link>`. It can be gone on with alone; gone on with as a whole, finished links are left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from distill_cli.base import ui
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.config import arrangement, kinds
from distill_cli.pipeline import distillation
from distill_cli.runs import identity
from distill_cli.runs.run import Run
from distill_cli.training import setup


def distill(cfg: DictConfig, run: Run) -> dict[str, Any]:
    """Run the job in its folder, the links before it first; returns its summary.

    Raises:
        DistillError: as the parts say.
    """
    plain = kinds.plain(cfg)
    names, link = list(plain["chain"]), plain["link"]
    if not names or run.summary() is not None:  # finished: its links are not asked for
        return distillation.distill(cfg, run)
    if link is not None:
        if run.folder.name != link or run.folder.parent.name != "chain":
            raise ConfigError(
                f"link={link}: a link is a run below the chain's own, and {run.folder} is none",
                "distill resume RUN/chain/NAME goes on with one; without link= the whole chain is run",
            )
        return _link(cfg, run, plain, link, run.folder.parent.parent)
    setup.check(plain)  # of every link at once, before the first is trained
    for place, name in enumerate(names):
        folder = arrangement.folder_of(name, run.folder)
        folder.parent.mkdir(exist_ok=True)
        own = cfg.copy()
        with open_dict(own):
            own.link, own.run_dir = name, str(folder)
        with Run(own, folder, named=True, more=[f"link={name}"]) as inner:
            if inner.summary() is not None:
                ui.say(f"chain: {name} is finished")
                continue
            ui.show(f"chain      link {place + 1} of {len(names) + 1}: {name}\n")
            _link(own, inner, plain, name, run.folder)
            ui.show("")
    ui.show(f"chain      link {len(names) + 1} of {len(names) + 1}: the student\n")
    return _link(cfg, run, plain, None, run.folder)


def _link(cfg: DictConfig, run: Run, plain: Mapping[str, Any], link: str | None, home: Path) -> dict[str, Any]:
    """Run one link, whose teacher is the link before it, below `home`."""
    names = list(plain["chain"])
    at = names.index(link) if link is not None else len(names)
    called = {"student": link} if link is not None else {}
    if at:
        called["teacher"] = names[at - 1]
        before = arrangement.folder_of(names[at - 1], home)
        if not (before / identity.SUMMARY).exists():
            raise CheckpointError(
                f"{before} is not finished: it is the teacher of this link",
                f"distill resume {home} runs the whole chain",
            )
    return distillation.distill(cfg, run, arrangement.linked(plain, link, home), called)
