"""Who teaches whom, as plain configurations: the members of a group of teachers, and the links of a chain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIRST = "teacher"  # what the teacher of the `teacher` group is called among several


def teachers(plain: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The node of every teacher by name, the first one's first.

    Another takes from the first whatever of `fit`, `joint` and the like it does not say itself; its `fit.seed` is counted
    on, so that two of one architecture differ.
    """
    first = plain[FIRST]
    shared = {key: first[key] for key in ("joint", "mutual", "choose", "cache", "cache_limit")}
    own = {"checkpoint": None, "mean": None, "std": None, "weight": 1.0}
    found = {FIRST: dict(first)}
    for place, (name, node) in enumerate(plain["teachers"].items(), start=1):
        fit = {**first["fit"], "seed": first["fit"]["seed"] + place, **node.get("fit", {})}
        found[name] = {**shared, **own, **node, "fit": fit}
    return found


def folder_of(name: str, run: Path) -> Path:
    """The folder of a chain's link below the folder of the run that the chain ends in."""
    return run / "chain" / name


def linked(plain: Mapping[str, Any], link: str | None, run: Path) -> dict[str, Any]:
    """The configuration of one link: its student learns from the model of the link before it, the first from the teacher.

    Args:
        plain: a whole chain's. link: its name; None: the last, whose student is `student`.
        run: the folder of the run that the chain ends in.
    """
    names = list(plain["chain"])
    at = names.index(link) if link is not None else len(names)
    changed: dict[str, Any] = {"link": link}
    if link is not None:
        changed |= {"student": plain["chain"][link], "baseline": False}
    if at:
        first, before = plain[FIRST], names[at - 1]
        taught = {key: first[key] for key in ("mutual", "choose", "cache", "cache_limit", "weight")}
        taught |= {"checkpoint": str(folder_of(before, run)), "mean": None, "std": None, "joint": False}
        taught["fit"] = {**first["fit"], "epochs": 0}
        changed |= {FIRST: {**plain["chain"][before], **taught}, "teachers": {}}
    return {**plain, **changed}
