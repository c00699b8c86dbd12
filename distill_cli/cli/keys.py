"""The keys of settings as help shows them: a line each with its default, what it does, and what it may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distill_cli.config.fields import Key, keys
from distill_cli.config.schema import COMMANDS, Dataset, Logger, Objective, Optimizer, Stage, Student, Teacher
from distill_cli.config.values import shown

OF_GROUPS = {"student": Student, "teacher": Teacher, "dataset": Dataset, "objective": Objective, "schedule": Stage,
             "optimizer": Optimizer, "logger": Logger}  # fmt: skip
BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def of_command(command: str) -> str:
    """The groups to choose in, and the keys that a command has whatever is chosen in them."""
    shape = COMMANDS[command].shape
    groups = ", ".join([key.name for key in keys(shape) if key.name in OF_GROUPS])
    first = [] if COMMANDS[command].checkpoint else [f"{groups}, experiment: `distill list GROUP` shows the choices"]
    return "\n".join([*first, *_aligned(_lines(shape, passed=False))])


def of_group(group: str) -> str:
    """The keys that are known to all of a group's choices; each has others of its own. Nothing where there are none."""
    return "\n".join(_aligned(_lines(OF_GROUPS[group], passed=True))) if group in OF_GROUPS else ""


def _lines(shape: type, passed: bool, indent: str = "  ") -> Iterator[tuple[str, str]]:
    """The text and the comment of every line.

    Args:
        passed: whether those that a class takes too are shown.
    """
    for key in keys(shape):
        rules = key.rules
        elsewhere = (rules.get("passed") and not passed) or ("nodes" in rules and key.name in OF_GROUPS)
        if key.name == "_target_" or elsewhere:
            continue
        if "node" not in rules:
            yield f"{indent}{key.name}: {_default(key.default)}", _comment(key)
        elif inner := list(_lines(rules["node"], passed, f"{indent}  ")) if _brought(key) else []:
            yield f"{indent}{key.name}:", _comment(key)
            yield from inner


def _brought(key: Key) -> bool:
    """Whether the keys below are there whatever is chosen."""
    return key.rules.get("every_has", False) or not hasattr(key.rules["node"], "node")


def _default(value: Any) -> str:
    return (
        value if isinstance(value, str) else shown(value) if value is None or isinstance(value, bool) else repr(value)
    )


def _comment(key: Key) -> str:
    rules = key.rules
    said = [rules["help"]] if rules["help"] else []
    said += [" | ".join(rules["choices"])] if "choices" in rules else []
    bounds = " and ".join(f"{sign} {rules[name]}" for name, sign in BOUNDS.items() if name in rules)
    return "; ".join([*said, bounds] if bounds else said)


def _aligned(lines: Iterator[tuple[str, str]]) -> Iterator[str]:
    for text, comment in lines:
        yield f"{text:<24} # {comment}" if comment else text
