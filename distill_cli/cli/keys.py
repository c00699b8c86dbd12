"""The keys of settings as help shows them: a line for each, with its default, what it does and which values it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from distill_cli.config.fields import keys
from distill_cli.config.schema import COMMANDS, Dataset, Logger, Objective, Optimizer, Stage, Student, Teacher

OF_GROUPS = {"student": Student, "teacher": Teacher, "dataset": Dataset, "objective": Objective, "schedule": Stage,
             "optimizer": Optimizer, "logger": Logger}  # fmt: skip
BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def of_command(command: str) -> str:
    """The groups to choose in, and the keys that a command has whatever is chosen in them."""
    shape = COMMANDS[command].shape
    groups = ", ".join([key.name for key in keys(shape) if key.name in OF_GROUPS])
    first = [] if COMMANDS[command].checkpoint else [f"{groups}, experiment: `distill list GROUP` shows the choices"]
    return "\n".join([*first, *_lines(shape, passed=False)])


def of_group(group: str) -> str:
    """The keys that all of a group's choices have; each has others of its own. Nothing where there are none."""
    return "\n".join(_lines(OF_GROUPS[group], passed=True)) if group in OF_GROUPS else ""


def _lines(shape: type, passed: bool, indent: str = "  ") -> Iterator[str]:
    """A line for each key.

    Args:
        passed: whether those that a class takes too are shown.
    """
    for key in keys(shape):
        rules, node = key.rules, key.rules.get("node")
        elsewhere = (rules.get("passed") and not passed) or ("nodes" in rules and key.name in OF_GROUPS)
        if key.name == "_target_" or elsewhere:
            continue
        if node is None:
            default = key.default if isinstance(key.default, str) else json.dumps(key.default)
            yield _line(f"{indent}{key.name}: {default}", rules)
            continue
        always = rules.get("every_has") or not hasattr(node, "node")  # its keys are there whatever is chosen
        if inner := list(_lines(node, passed, f"{indent}  ")) if always else []:
            yield from [_line(f"{indent}{key.name}:", rules), *inner]


def _line(text: str, rules: Mapping[str, Any]) -> str:
    """A key with what it does and what it may be behind it."""
    bounds = " and ".join(f"{sign} {rules[name]}" for name, sign in BOUNDS.items() if name in rules)
    comment = "; ".join(part for part in (rules["help"], " | ".join(rules.get("choices", ())), bounds) if part)
    return f"{text:<24} # {comment}" if comment else text
