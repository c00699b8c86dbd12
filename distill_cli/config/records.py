"""A plain mapping -> the frozen record of its kind, each key's type and bounds checked on the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any, TypeVar

from distill_cli.base import files
from distill_cli.base.errors import ConfigError, did_you_mean
from distill_cli.config.fields import Key, keys
from distill_cli.config.schema import Fit, Open, Settings, Teacher
from distill_cli.config.values import LARGEST, complaint, describe, fits, shown

Record = TypeVar("Record")

INTERVAL = re.compile(r"(\d+(?:\.\d+)?)([smh])")
UNITS = {"s": 1, "m": 60, "h": 3600}


def read(
    shape: type[Record], values: Mapping[str, Any], where: str = "", problems: list[str] | None = None, **about: Any
) -> Record:
    """The record that a mapping holds; where a value is wrong, it has the key's default.

    Args:
        where: what stands before its keys in messages. problems: takes every complaint; None: there can be none.
        about: the record's fields that are no keys.
    """
    told: list[str] = []
    if issubclass(shape, Open):
        about["plain"] = values
    names = set()
    for key in keys(shape):
        names.add(key.name)
        value = values.get(key.name, key.default if key.default is not MISSING else "")
        if key.name not in values and key.name == "_target_":
            told.append(f"{where.rstrip('.')}: has no _target_, the class or function to build")
        elif key.name not in values and shape in (Teacher, Fit):
            told.append(f"{where}{key.name}: is needed and was taken out")
        if key.simple and value == key.default and type(value) is type(key.default):
            about[key.name] = value  # a default needs no check
        else:
            about[key.name] = _value(f"{where}{key.name}", value, key, shape, told if key.name in values else [])
    for name, value in values.items():
        if name not in names and not isinstance(value, str | None):  # of the class's own
            _numbers(f"{where}{name}", value, {}, told)
    if problems is not None:
        problems += told
    else:
        assert not told, told
    return shape(**about)


def _value(where: str, value: Any, key: Key, shape: type, problems: list[str]) -> Any:
    """What a record has of a value, or the key's default where it is wrong."""
    rules = key.rules
    default = None if key.default is MISSING else key.default
    if "node" in rules:
        return _node(where, value, key, shape, problems)
    if "nodes" in rules:
        return _nodes(where, value or {}, rules["nodes"], problems)
    if "form" in rules:
        try:
            return FORMS[rules["form"]](value, rules)
        except ValueError as error:
            problems += [f"{where}: {line}" for line in str(error).splitlines()]
            return default
    if type(value) is not key.kind and not fits(value, key.hint):
        problems.append(f"{where}: should be {describe(key.hint)}, got {shown(value)}")
        return default
    if not isinstance(value, str):
        _numbers(where, value, rules, problems)
    elif (rules.get("filled") or rules.get("path")) and not value.strip():
        problems.append(f"{where}: is empty; leave it out, or give a value")
    elif rules.get("path"):
        try:
            files.place(value, where)
        except ConfigError as error:
            problems.append(str(error))
    elif "choices" in rules and value not in rules["choices"]:
        guess = did_you_mean(value, rules["choices"])
        problems.append(f"{where}: no choice called {shown(value)}; {guess}choices: {', '.join(rules['choices'])}")
    return value


def _node(where: str, value: Any, key: Key, shape: type, problems: list[str]) -> Any:
    of, chosen = key.rules["node"], issubclass(shape, Settings)
    if isinstance(value, Mapping) and (value or not chosen):
        return read(of, value, f"{where}.", problems)
    if chosen and key.optional:
        return None
    if chosen:
        problems.append(f"{where}: nothing is chosen; pick one, as in {where}=NAME (`distill list` shows them)")
    elif value is not None or key.default is not None:
        problems.append(f"{where}: should be a mapping of keys, got {shown(value)}")
    return read(of, {}, problems=[])


def _nodes(where: str, nodes: Mapping[str, Any], of: type, problems: list[str]) -> dict[str, Any]:
    records: dict[str, Any] = {}
    for name, node in nodes.items():
        if isinstance(node, Mapping):
            about = {"name": name} if issubclass(of, Open) else {}
            records[name] = read(of, node, f"{where}.{name}.", problems, **about)
        else:
            problems.append(f"{where}.{name}: should be a mapping of keys, got {shown(node)}")
    return records


def _numbers(where: str, value: Any, rules: Mapping[str, Any], problems: list[str]) -> None:
    """Complain about the numbers in a value, at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _numbers(f"{where}.{name}", inner, rules, problems)
    elif isinstance(value, list):
        for inner in value:
            if not isinstance(inner, str):
                _numbers(where, inner, rules, problems)
    elif isinstance(value, int | float) and not isinstance(value, bool) and (wrong := complaint(value, rules)):
        problems.append(f"{where}: {wrong}")


# What each form makes of a value; a ValueError says, a line each, what is wrong with it.


def _ramp(value: Any, rules: Mapping[str, Any]) -> tuple[float, float]:
    ends = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    wrong = [] if len(ends) in (1, 2) else [f"should be a number or [from, to], got {shown(value)}"]
    for number in ends[:2]:
        said = complaint(number, rules) if fits(number, float) else f"should be a number, got {shown(number)}"
        wrong += [said] if said else []
    if wrong:
        raise ValueError("\n".join(wrong))
    return float(ends[0]), float(ends[-1])


def _names(value: Any, rules: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = [value] if isinstance(value, str) else value
    if not fits(names, list[str] | None):
        raise ValueError(f"should be an objective's name or a list of them, got {shown(value)}")
    return None if names is None else tuple(names)


def _classes(value: Any, rules: Mapping[str, Any]) -> tuple[str, ...] | None:
    if value is not None and (not value or not fits(value, list[str | int])):
        raise ValueError(
            f"should be a list of names, got {shown(value)}; numbers with a point need quotes, as in '1.5'"
        )
    return None if value is None else tuple(map(str, value))


def every(value: Any, rules: Mapping[str, Any] | None = None) -> tuple[int | None, float | None]:
    """`save_every` as (steps, seconds), of which one at most is set.

    Raises:
        ValueError: it is neither steps nor a time.
    """
    if value is None or _is_count(value):
        return value, None
    time = INTERVAL.fullmatch(value) if isinstance(value, str) else None
    if time is None or not 0 < (seconds := float(time[1]) * UNITS[time[2]]) <= LARGEST:
        raise ValueError(f"should be a number of steps, or a time as in 60s, 5m or 1h, got {shown(value)}")
    return None, seconds


def _size(value: Any, rules: Mapping[str, Any]) -> int | str:
    if value != "auto" and not _is_count(value):
        raise ValueError(f"should be auto or a number of pixels, got {shown(value)}")
    assert isinstance(value, int | str)
    return value


def _auto_or(kind: type[int] | type[float], what: str) -> Callable[[Any, Mapping[str, Any]], int | float | str]:
    """What reads auto, or a number within a key's bounds."""

    def read_it(value: Any, rules: Mapping[str, Any]) -> int | float | str:
        if value == "auto":
            return "auto"
        if not fits(value, kind):
            raise ValueError(f"should be auto or {what}, got {shown(value)}")
        if wrong := complaint(value, rules):
            raise ValueError(wrong)
        return kind(value)

    return read_it


def _weights(value: Any, rules: Mapping[str, Any]) -> str | list[float] | None:
    if value is None or value == "balanced":
        return value
    if not value or not fits(value, list[float]):
        raise ValueError(f"should be balanced or a list of numbers, one for each class, got {shown(value)}")
    if wrong := [said for number in value if (said := complaint(number, rules))]:
        raise ValueError("\n".join(wrong))
    return list(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST


FORMS: dict[str, Callable[[Any, Mapping[str, Any]], Any]]
FORMS = {
    "ramp": _ramp,
    "names": _names,
    "every": every,
    "devices": _auto_or(int, "a number of processes"),
    "size": _size,
    "weight": _auto_or(float, "a number"),
    "weights": _weights,
    "classes": _classes,
}
