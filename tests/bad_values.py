"""Every key of the configuration with values that it must refuse, generated from the schema; a benchmark runs them too."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from distill_cli.config import brought, fields, schema
from distill_cli.config.load import load
from distill_cli.config.overrides import PATH_KEYS

HUGE, LARGE = "1" + "0" * 400, "1" + "0" * 12
NAMED = {"schedule": "refine", "objective": "kd"}  # the entries looked into, of mappings whose names are free
NO_NUMBER = ["abc", "nan", "inf", "-1", HUGE, LARGE, ""]


def bad_values() -> list[str]:
    """Overrides of `distill train` of which each must be refused, with exit code 2."""
    return [text for texts in bad_values_by_key().values() for text in texts]


def bad_values_by_key(command: str = "train") -> dict[str, list[str]]:
    """The same by the key they are for; each key's last one misspells it, where a default configuration has it."""
    present = OmegaConf.create(_default(command))
    found = {}
    for key, known_as in _keys(schema.COMMANDS[command].shape, ""):
        known = OmegaConf.select(present, key, default=OmegaConf) is not OmegaConf
        texts = [f"{'' if known else '++'}{key}={value}" for value in _bad(key, known_as)]
        found[key] = [*texts, f"{misspelt(key)}=1"] if known else texts
    return found


def misspelt(key: str) -> str:
    return key + key[-1]


def _default(command: str) -> dict[str, Any]:
    """The keys that need no + to be set."""
    if schema.COMMANDS[command].checkpoint:
        brought.use_dataset_of(None)
    return dict(load(command, []).plain)


def _keys(shape: type, where: str) -> Iterator[tuple[str, fields.Key]]:
    for one in fields.keys(shape):
        key = f"{where}{one.name}"
        brought_along = not where and shape is not schema.Train and one.name == "dataset"
        if not brought_along:  # by a checkpoint
            yield key, one
        if "node" in one.rules and not brought_along:
            yield from _keys(one.rules["node"], f"{key}.")
        if key in NAMED:
            yield from _keys(one.rules["nodes"], f"{key}.{NAMED[key]}.")


def _bad(key: str, known_as: fields.Key) -> list[str]:
    """Values a key must refuse."""
    rules, optional, kind = known_as.rules, known_as.optional, known_as.kind
    null = [] if optional else ["null"]
    if key in PATH_KEYS:  # whatever is typed is a path, if it can be one
        return ["", "~no-such-user", "x" * 300, *null]
    if "node" in rules or "nodes" in rules:
        return [
            "abc",
            "nan",
            "inf",
            "-1",
            HUGE,
            LARGE,
            "",
            *([] if key in ("dataset.augmentation", "logger") else ["null"]),
        ]
    if rules.get("form") == "ramp":
        return [*NO_NUMBER, "[1,2,3]", "[0.5,nan]", f"[{HUGE},1]", "null"]
    if rules.get("form") == "names":
        return ["nope", "3", "nan", "inf", "-1", "[3]", HUGE, LARGE, ""]
    if rules.get("form") == "every":
        return [*NO_NUMBER, "0", "1.5", "0s", f"{HUGE}s"]
    if rules.get("form") == "size":
        return [*NO_NUMBER, "0", "null"]
    if rules.get("form") == "devices":
        return [*NO_NUMBER, "1.5", *_beyond(rules), *null]
    if rules.get("form") == "weight":
        return [*NO_NUMBER, *_beyond(rules), *null]
    if rules.get("form") == "weights":
        return [*NO_NUMBER, "0", "[]", "[abc]", "[1,-1]", "[nan]", f"[{HUGE}]"]
    if rules.get("form") == "classes":
        return [*NO_NUMBER, "[]", "[1.5]", "[true]", "[[a]]"]
    if kind is bool:
        return ["abc", "3", "nan", "inf", "-1", HUGE, LARGE, "", *null]
    if kind is int:
        return [*NO_NUMBER, "1.5", *_beyond(rules), *null]
    if kind is float:
        return [*NO_NUMBER, *_beyond(rules), *null]
    if kind == list[float]:
        return ["abc", "[abc]", "[nan]", "[inf]", f"[{HUGE}]", f"[{LARGE}]", "", *_beyond(rules), *null]
    if kind == list[str]:
        return ["abc", "nan", "-1", "", *null]
    assert kind is str, f"{key}: no values to refuse for {kind}"
    # a number is text to omegaconf, where the key is not in an open mapping
    typed = ["3", "nan", "inf", "-1", HUGE, LARGE] if "." in key or "choices" in rules else []
    return ["[a]", "", *typed, *null]


def _beyond(rules: typing.Mapping[str, Any]) -> list[str]:
    """The nearest values past the bounds."""
    below = [str(rules["gt"])] if "gt" in rules else []
    above = [str(rules["lt"])] if "lt" in rules else [str(rules["le"] + 1)] if "le" in rules else []
    return below + above
