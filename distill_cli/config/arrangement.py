"""Who teaches whom, as settings: the members of a group of teachers, and the links of a chain. Nothing given is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill_cli.config.fields import keys, of_class
from distill_cli.config.records import read
from distill_cli.config.schema import FIRST, Student, Teacher, Train


def inherited(first: Mapping[str, Any], member: Mapping[str, Any], place: int) -> dict[str, Any]:
    """The whole node of a further teacher, the `place`-th after the first: what it does not say of the shared keys and `fit`
    it takes from the first; its `fit.seed` is counted on, so that two of one architecture differ.
    """
    ours = [key for key in keys(Teacher) if not key.rules.get("passed") and key.name != "fit"]
    defaults = {key.name: first[key.name] if key.rules.get("shared") else key.default for key in ours}
    fit = {**first["fit"], "seed": first["fit"]["seed"] + place, **member.get("fit", {})}
    return {**defaults, **member, "fit": fit}


def teachers(settings: Train) -> dict[str, Teacher]:
    """Every teacher by name, the one of the `teacher` group first."""
    return {FIRST: settings.teacher, **settings.teachers}


def key_of(name: str) -> str:
    """The key of a teacher of this name."""
    return FIRST if name == FIRST else f"teachers.{name}"


def folder_of(name: str, run: Path) -> Path:
    """The folder of a chain's link below the folder of the run that the chain ends in."""
    return run / "chain" / name


def at(settings: Train, link: str, run: Path) -> Train:
    """The settings of a chain as the run of one link is described by: those of the whole, and which link it is.

    Args:
        run: the folder of the run that the chain ends in.
    """
    said: dict[str, Any] = {"link": link, "run_dir": str(folder_of(link, run))}
    typed = (*(text for text in settings.typed if text != f"link={link}"), f"link={link}")
    source = settings.source.having(said)
    return replace(settings, plain={**settings.plain, **said}, typed=typed, source=source, **said)


def before(settings: Train) -> str | None:
    """The link of a chain that the settings' own learns from; None: from the teacher."""
    names = list(settings.chain)
    at = names.index(settings.link) if settings.link is not None else len(names)
    return names[at - 1] if at else None


def linked(settings: Train, run: Path, built: Mapping[str, Any]) -> Train:
    """What one link's run does: its student learns from the model of the link before it, the first from the teacher.

    Args:
        settings: of a link, or of the chain, whose own student is the last. run: the folder of the run the chain ends in.
        built: the node that the model of the link before is built by now that it is there, as its card has it.
    """
    if settings.link is not None:
        student = settings.chain[settings.link]
        plain = {**settings.plain, "student": student.plain, "baseline": False}
        settings = replace(settings, plain=plain, student=student, baseline=False)
    if (name := before(settings)) is None:
        return settings
    first = settings.teacher.plain
    ours = [key for key in keys(Teacher) if not key.rules.get("passed") and key.name != "fit"]
    node = {key.name: first[key.name] if key.rules.get("shared") else key.default for key in ours}
    node |= {"weight": first["weight"], "joint": False, "checkpoint": str(folder_of(name, run))}
    target = settings.chain[name].node["_target_"]  # a file's word is not taken for what code runs
    node = {**of_class(Student, built), "_target_": target, **node, "fit": {**first["fit"], "epochs": 0}}
    plain = {**settings.plain, "teacher": node, "teachers": {}}
    return replace(settings, plain=plain, teacher=read(Teacher, node, name=name), teachers={})
