"""List what can be chosen: models, datasets, objectives, schedules, optimizers, loggers, experiments.

usage: distill list [models|datasets|objectives|schedules|optimizers|loggers|experiments]

  distill list                 everything, one line each
  distill list datasets        one kind, and the keys that it has
  distill list objectives      with formula and source

Your own files in ./conf (or $DISTILL_CONF) are listed too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distill_cli.base import ui
from distill_cli.base.errors import ConfigError, did_you_mean
from distill_cli.cli import keys
from distill_cli.config import yamls
from distill_cli.config.building import check
from distill_cli.config.places import conf_dir, group_files

KINDS = {
    "models": ("student", "teacher=NAME student=NAME"),
    "datasets": ("dataset", "dataset=NAME"),
    "objectives": ("objective", "objective=NAME or objective=[NAME,NAME]"),
    "schedules": ("schedule", "schedule=NAME"),
    "optimizers": ("optimizer", "optimizer=NAME"),
    "loggers": ("logger", "logger=NAME or logger=[NAME,NAME]"),
    "experiments": ("experiment", "experiment=NAME"),
}


def run(words: Sequence[str]) -> None:
    """Print a table for each kind that the words name, or for all.

    Raises:
        ConfigError: a word names no kind.
    """
    named = [word if word in KINDS else f"{word}s" for word in words]
    for word, kind in zip(words, named, strict=True):
        if kind not in KINDS:
            guess = did_you_mean(word, KINDS)
            raise ConfigError(f"distill list {word}: nothing to list\n{guess}choices: {', '.join(KINDS)}")
    for kind in [kind for kind in KINDS if not words or kind in named]:
        group, usage = KINDS[kind]
        rows, columns = [], ["name", "what"]
        columns += ["L_i", "source"] if kind == "objectives" and words else []
        for name, path in sorted(group_files(group).items()):
            rows.append([name, _about(path), *(_formula(name, path) if "source" in columns else ())])
        ui.show(ui.table(f"{kind}   {usage}", columns, rows, numbers=False))
        if words and (lines := keys.of_group(group)):
            of = "each stage" if group == "schedule" else f"every {group}; its class has more"
            ui.show(f"keys of {of}:\n{lines}")


def _formula(name: str, path: Path) -> tuple[str, str]:
    """An objective's formula and source, which its class states; this imports torch."""
    from distill_cli.objectives import Objective

    node = yamls.load(path).get(name) or {}
    target = check({"_target_": node.get("_target_")}, Objective, f"objective.{name}")
    return getattr(target, "formula", ""), getattr(target, "source", "")


def _about(path: Path) -> str:
    """A YAML file's first comment that is not for Hydra; behind it the path of a file that is not shipped."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    comments = [line.lstrip("# ").strip() for line in lines if line.startswith("#") and "@package" not in line]
    about = comments[0] if comments else ""
    return about if path.is_relative_to(conf_dir()) else f"{about} ({path})".strip()
