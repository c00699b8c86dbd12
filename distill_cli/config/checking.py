"""A composed configuration -> checked settings: its records, and what only shows when several keys are read together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from distill_cli.base.errors import ConfigError, did_you_mean
from distill_cli.config import arrangement
from distill_cli.config.fields import keys
from distill_cli.config.records import read
from distill_cli.config.schema import FIRST, Dataset, Fit, Lora, Settings, Stage, Teacher, Train, stage_objectives
from distill_cli.config.values import shown

NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")  # of a teacher or a link: a folder is called so

Checked = TypeVar("Checked", bound=Settings)


def checked(shape: type[Checked], values: Mapping[str, Any], **about: Any) -> Checked:
    """The settings that a configuration holds.

    Args:
        values: its resolved plain values. about: the fields of settings that are no keys.

    Raises:
        ConfigError: naming every key that is wrong, its value and what is allowed there.
    """
    problems: list[str] = []
    settings = read(shape, values, problems=problems, plain=values, **about)
    # A stage that follows T or alpha would only repeat the complaint about it.
    told = {problem for problem in problems if not problem.startswith("schedule.")}
    problems = [p for p in problems if p in told or re.sub(r"^schedule\.[^.]+\.", "", p) not in told]
    if isinstance(settings, Train):
        sound = not problems
        problems += _train_problems(settings)
        if sound:
            settings = cast("Checked", _arranged(settings, problems))
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def _train_problems(settings: Train) -> Iterator[str]:
    """What only shows when several keys are read together."""
    objectives = list(settings.objective)
    if not objectives:
        yield "objective: nothing is chosen; pick one or a list, as in objective=kd"
    if not settings.schedule:
        yield "schedule: has no stages; pick one, as in schedule=two_stage"
    elif not any(stage.steps or stage.epochs for stage in settings.schedule.values()):
        yield "schedule: every stage has 0 epochs, so nothing would be trained"
    previous: list[Stage] = []
    for name, stage in settings.schedule.items():
        if any(before.quantize for before in previous) and not stage.quantize:
            yield f"schedule.{name}.quantize: a stage before it is int8, so this one has to be: quantize: int8"
        previous.append(stage)
        if stage.steps and any(key.startswith(f"schedule.{name}.epochs=") for key in settings.typed):
            yield f"schedule.{name}: has steps={stage.steps}, so its epochs count nothing; leave them out, or steps=null"
        for used in stage_objectives(stage, objectives):
            if used not in objectives:
                yield (
                    f"schedule.{name}.objective: {used!r} is not among the chosen objectives "
                    f"({', '.join(objectives)}); try objective=[{','.join([*objectives, used])}]"
                )
    yield from _normalisation_problems(settings.dataset, "dataset")
    yield from _made_of_problems(settings)
    if settings.teacher.joint and settings.optimizer.accumulate != 1:
        yield "optimizer.accumulate: a jointly trained teacher takes its step on the whole batch; use 1"
    yield from _teacher_problems(settings.teacher, "teacher")
    rounded = any(stage.quantize for stage in settings.schedule.values())
    for key, student in {
        "student": settings.student,
        **{f"chain.{n}": one for n, one in settings.chain.items()},
    }.items():
        yield from _lora_problems(student.lora, f"{key}.lora")
        if rounded and student.lora.rank:
            yield f"{key}.lora.rank: a stage with quantize trains all weights; leave one of the two out"


def _made_of_problems(settings: Train) -> Iterator[str]:
    """What is wrong with a student that is made of its teacher, and with links that would be."""
    if settings.student.made_of:
        keys_of_class = [
            key for key in settings.typed if re.match(r"[+~]*student(=|\.(?!from_teacher|freeze|lora|checkpoint))", key)
        ]
        yield from (
            f"{key}: student.from_teacher makes the student of its teacher, so it has no other network; leave one of the two out"
            for key in keys_of_class
        )
    for name, link in settings.chain.items():
        if link.made_of:
            yield f"chain.{name}.from_teacher: a link has a network of its own; the last student may be made of its teacher"


def _normalisation_problems(one: Dataset | Teacher, key: str) -> Iterator[str]:
    """What is wrong with a mean and a deviation by channel, of values from 0 to 1."""
    if not one.mean or not one.std:
        if one.mean is not None or one.std is not None:
            yield f"{key}.mean and {key}.std belong together, one value a channel: give both, or neither"
    elif (largest := max(*one.mean, *one.std)) > 1:
        told = f"{key}.mean and {key}.std are of values from 0 to 1, got {largest:g}"
        right = [
            f"{k}=[{','.join(f'{v / 255:.4g}' for v in values)}]"
            for k, values in (("mean", one.mean), ("std", one.std))
        ]
        yield told + (
            f"; divided by 255 they are {' '.join(f'{key}.{text}' for text in right)}" if largest <= 255 else ""
        )


def _teacher_problems(teacher: Teacher, key: str) -> Iterator[str]:
    """What is wrong with a teacher's keys when they are read together."""
    yield from _normalisation_problems(teacher, key)
    if teacher.joint and teacher.checkpoint:
        yield f"{key}.joint: trains the teacher along with the student, so it takes no {key}.checkpoint"
    if teacher.fit.freeze and (teacher.joint or teacher.fit.epochs == 0):
        why = "is trained along with the student" if teacher.joint else f"has {key}.fit.epochs=0"
        yield f"{key}.fit.freeze: nothing is fitted: the teacher {why}"
    yield from _lora_problems(teacher.fit.lora, f"{key}.fit.lora")
    if teacher.fit.lora.rank and (teacher.joint or teacher.fit.freeze):
        other = "teacher.joint trains all of it" if teacher.joint else f"{key}.fit.freeze fits its head alone"
        yield f"{key}.fit.lora.rank: {other}; leave one of the two out"
    if teacher.mutual and not teacher.joint:
        yield f"{key}.mutual: only a teacher that is trained along learns from the student: {key}.joint=true"


def _lora_problems(lora: Lora, key: str) -> Iterator[str]:
    """What is set of adapters where none are asked for."""
    idle = [name for name in ("alpha", "targets", "dropout") if getattr(lora, name)]
    if idle and lora.rank is None:
        yield f"{key}.{idle[0]}: there are no adapters without {key}.rank, as in {key}.rank=8"


def _arranged(settings: Train, problems: list[str]) -> Train:
    """The settings with what further teachers take from the first one; `problems` takes what is wrong with who teaches whom."""
    chain, members = settings.chain, settings.teachers
    count = len(problems)
    if settings.link is not None and settings.link not in chain:
        links = f"links: {', '.join(chain)}" if chain else "there is no chain"
        problems.append(f"link: there is no link {settings.link!r} in the chain; {links}")
    for key, names in (("chain", chain), ("teachers", members)):
        odd = [name for name in names if not NAME.fullmatch(name)]
        problems += [f"{key}.{name}: should be called by letters, digits, - and _ only, at most 100" for name in odd]
    if FIRST in members:
        problems.append("teachers.teacher: this name belongs to `teacher=`; choose another name")
    for name, member in members.items():
        problems += _member_problems(member.plain, f"teachers.{name}")
    if len(problems) > count:
        return settings
    whole = {}
    for place, (name, member) in enumerate(members.items(), start=1):
        node = arrangement.inherited(settings.teacher.plain, member.plain, place)
        called = str(member.plain.get("name") or name)
        whole[name] = read(Teacher, node, f"teachers.{name}.", problems, name=called)
        problems += _teacher_problems(whole[name], f"teachers.{name}")
    if any(teacher.joint != settings.teacher.joint for teacher in whole.values()):
        problems.append("teachers: some are trained along and some are not (joint); let all be one or the other")
    if settings.teacher.joint and settings.teacher.choose == "best":
        problems.append("teacher.choose: best needs teachers with teacher.joint=false; use mean")
    return replace(settings, teachers=whole)


def _member_problems(node: Mapping[str, Any], where: str) -> Iterator[str]:
    """What a further teacher says that it cannot, or that would have no effect."""
    fit, names = node.get("fit", {}), [key.name for key in keys(Fit)]
    if not isinstance(fit, Mapping):
        yield f"{where}.fit: should be a mapping of keys, got {shown(fit)}"
        return
    for name in fit:
        if name not in names:
            guess = did_you_mean(name, names, f"{where}.fit.")
            yield f"{where}.fit.{name}: there is no such key. {guess}keys: {', '.join(names)}"
    if "choose" in node:
        yield f"{where}.choose: belongs to the first teacher: teacher.choose={node['choose']}"
