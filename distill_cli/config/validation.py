"""A composed configuration held against its schema: types and bounds key by key, then what only shows when several are read."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill_cli.base.errors import ConfigError, did_you_mean
from distill_cli.config import arrangement
from distill_cli.config.kinds import LARGEST, complaint, describe, fits, plain, shown
from distill_cli.config.schema import INTERVAL, UNITS, Dataset, Eval, Fit, Teacher, Train, stage_objectives

NAME = re.compile(r"[A-Za-z0-9_-]+")  # of a teacher or a link: a folder is called so


def validate(cfg: DictConfig, schema: type) -> None:
    """Check types and bounds of a composed configuration.

    Raises:
        ConfigError: naming every key that is wrong, its value and what is allowed there.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        values = plain(cfg)
    except (OmegaConfBaseException, OverflowError) as error:
        key = getattr(error, "full_key", None) or "the configuration"
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    if missing:
        raise ConfigError("\n".join(f"{key}: has no default, give it as {key}=VALUE" for key in missing))
    problems = list(_problems(values, schema, ""))
    # A stage that follows T or alpha would only repeat the complaint about it.
    told = {problem for problem in problems if not problem.startswith("schedule.")}
    problems = [p for p in problems if p in told or re.sub(r"^schedule\.[^.]+\.", "", p) not in told]
    if schema is Train:
        sound = not problems
        problems += _train_problems(values)
        problems += _arrangement_problems(values) if sound else []
    if problems:
        raise ConfigError("\n".join(problems))


def _problems(values: Mapping[str, Any], shape: type, where: str) -> Iterator[str]:
    hints = typing.get_type_hints(shape)
    for known in dataclasses.fields(shape):
        key, rules = f"{where}{known.name}", known.metadata
        if known.name not in values:
            if known.name == "_target_":
                yield f"{where.rstrip('.')}: has no _target_, the class or function to build"
            elif shape in (Teacher, Fit):
                yield f"{key}: is needed and was taken out"
            continue
        value = values[known.name]
        if "node" in rules:
            if isinstance(value, Mapping) and value:
                yield from _problems(value, rules["node"], f"{key}.")
            elif shape is Teacher or (shape is Dataset and value is not None):
                yield f"{key}: should be a mapping of keys, got {shown(value)}"
            elif shape not in (Eval, Dataset):
                yield f"{key}: nothing is chosen; pick one, as in {key}=NAME (`distill list` shows them)"
        elif "nodes" in rules:
            for name, node in (value or {}).items():
                if isinstance(node, Mapping):
                    yield from _problems(node, rules["nodes"], f"{key}.{name}.")
                else:
                    yield f"{key}.{name}: should be a mapping of keys, got {shown(node)}"
        elif rules.get("ramp"):
            pair = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            if len(pair) > 2 or not pair:
                yield f"{key}: should be a number or [from, to], got {shown(value)}"
            for number in pair[:2]:
                yield from _wrong(key, number, float, rules)
        elif rules.get("names"):
            listed = [value] if isinstance(value, str) else value
            if value is not None and not fits(listed, list[str]):
                yield f"{key}: should be an objective's name or a list of them, got {shown(value)}"
        elif rules.get("every"):
            if not _is_interval(value):
                yield f"{key}: should be a number of steps, or a time as in 60s, 5m or 1h, got {shown(value)}"
        elif rules.get("size"):
            if value != "auto" and not _is_count(value):
                yield f"{key}: should be auto or a number of pixels, got {shown(value)}"
        else:
            yield from _wrong(key, value, bool if rules.get("flag") else hints[known.name], rules)
    for name, value in values.items():
        if name not in hints:  # a key of the class's own
            yield from _numbers(f"{where}{name}", value, {})


def _wrong(key: str, value: Any, kind: Any, rules: Mapping[str, Any]) -> Iterator[str]:
    if not fits(value, kind):
        yield f"{key}: should be {describe(kind)}, got {shown(value)}"
        return
    yield from _numbers(key, value, rules)
    if rules.get("filled") and value is not None and not value.strip():
        yield f"{key}: is empty; leave it out, or give a value"
    if "choices" in rules and value not in rules["choices"]:
        guess = did_you_mean(str(value), rules["choices"])
        yield f"{key}: no choice called {shown(value)}; {guess}choices: {', '.join(rules['choices'])}"


def _numbers(key: str, value: Any, rules: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the numbers in a value, at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(f"{key}.{name}", inner, rules)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(key, inner, rules)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        wrong = complaint(value, rules)
        if wrong:
            yield f"{key}: {wrong}"


def _train_problems(plain: Mapping[str, Any]) -> list[str]:
    """What only shows when several keys are read together."""
    problems = []
    stages: Mapping[str, Any] = plain["schedule"] or {}
    objectives: Mapping[str, Any] = plain["objective"] or {}
    if not objectives:
        problems.append("objective: nothing is chosen; pick one or a list, as in objective=kd")
    if not stages:
        problems.append("schedule: has no stages; pick one, as in schedule=two_stage")
    elif all(stage.get("epochs") == 0 for stage in stages.values()):
        problems.append("schedule: every stage has 0 epochs, so nothing would be trained")
    for name, stage in stages.items():
        for used in stage_objectives(stage, objectives):
            if used not in objectives:
                problems.append(
                    f"schedule.{name}.objective: {used!r} is not among the chosen objectives "
                    f"({', '.join(objectives)}); try objective=[{','.join([*objectives, str(used)])}]"
                )
    dataset = plain["dataset"] or {}
    if (dataset.get("mean") is None) != (dataset.get("std") is None):
        problems.append("dataset.mean and dataset.std belong together: give both, or neither")
    teacher, optimizer = plain["teacher"] or {}, plain["optimizer"] or {}
    if teacher.get("joint") and optimizer.get("accumulate", 1) != 1:
        problems.append("optimizer.accumulate: a jointly trained teacher takes its step on the whole batch; use 1")
    return problems + _teacher_problems(teacher, "teacher")


def _teacher_problems(node: Mapping[str, Any], key: str) -> list[str]:
    """What is wrong with a teacher's keys when they are read together."""
    problems = []
    if (node.get("mean") is None) != (node.get("std") is None):
        problems.append(f"{key}.mean and {key}.std belong together: give both, or neither")
    if node.get("joint") and node.get("checkpoint"):
        problems.append(f"{key}.joint: trains the teacher along with the student, so it takes no {key}.checkpoint")
    if node.get("mutual") and not node.get("joint"):
        problems.append(f"{key}.mutual: only a teacher that is trained along learns from the student: {key}.joint=true")
    return problems


def _arrangement_problems(plain: Mapping[str, Any]) -> list[str]:
    """What is wrong with who teaches whom."""
    problems = []
    chain, link, members = plain["chain"] or {}, plain["link"], plain["teachers"] or {}
    if link is not None and link not in chain:
        known = f"links: {', '.join(chain)}" if chain else "there is no chain"
        problems.append(f"link: there is no link {link!r} in the chain; {known}")
    for key, nodes in (("chain", chain), ("teachers", members)):
        odd = [name for name in nodes if not NAME.fullmatch(name)]
        problems += [f"{key}.{name}: should be called by letters, digits, - and _ only" for name in odd]
    if arrangement.FIRST in members:
        problems.append("teachers.teacher: that is what the one of `teacher=` is called; choose another name")
    problems += [problem for name, node in members.items() for problem in _member_problems(node, f"teachers.{name}")]
    if problems:
        return problems
    everyone = arrangement.teachers(plain)
    for name in members:
        problems += _problems(everyone[name], Teacher, f"teachers.{name}.")
        problems += _teacher_problems(everyone[name], f"teachers.{name}")
    if len({node["joint"] for node in everyone.values()}) > 1:
        problems.append("teachers: some are trained along and some are not (joint); let all be one or the other")
    if plain["teacher"]["joint"] and plain["teacher"]["choose"] == "best":
        problems.append("teacher.choose: best is for teachers that are not trained along; those answer by their mean")
    return problems


def _member_problems(node: Mapping[str, Any], key: str) -> Iterator[str]:
    """What a further teacher says that it cannot, or that would have no effect."""
    fit, known = node.get("fit", {}), [f.name for f in dataclasses.fields(Fit)]
    if not isinstance(fit, Mapping):
        yield f"{key}.fit: should be a mapping of keys, got {shown(fit)}"
        return
    for name in fit:
        if name not in known:
            guess = did_you_mean(name, known, f"{key}.fit.")
            yield f"{key}.fit.{name}: there is no such key. {guess}keys: {', '.join(known)}"
    if "choose" in node:
        yield f"{key}.choose: belongs to the first teacher: teacher.choose={node['choose']}"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST


def _is_interval(value: Any) -> bool:
    if isinstance(value, str):
        found = INTERVAL.fullmatch(value)
        return found is not None and 0 < float(found[1]) * UNITS[found[2]] <= LARGEST
    return value is None or _is_count(value)
