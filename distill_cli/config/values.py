"""Plain YAML values: does one fit an annotation and its bounds, and how are both said in a user's words."""

from __future__ import annotations

import math
import operator
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

BOUNDS = (("gt", operator.gt, "greater than"), ("ge", operator.ge, "at least"), ("lt", operator.lt, "less than"),
          ("le", operator.le, "at most"))  # fmt: skip
LARGEST = 2**31 - 1  # the most that every library below takes as a count, a size or a seed


def fits(value: Any, kind: Any) -> bool:
    """Whether a plain YAML value can stand where `kind` is annotated; an int may stand for a float."""
    if kind is Any or kind is typing.Union:
        return True
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is typing.Literal:
        return value in args
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            return False
        return all(fits(item, args[0]) for item in value) if args and args[0] is not Ellipsis else True
    if kind is type(None):
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (bool, str, dict, list):
        return isinstance(value, kind)
    return True  # a class of the user's own: only it can say


def describe(kind: Any) -> str:
    """An annotation in a user's words."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (list, tuple, Sequence):
        return f"a list, each entry {describe(args[0])}" if args else "a list"
    return names.get(kind, str(kind))


def complaint(number: float, rules: Mapping[str, Any]) -> str | None:
    """What is wrong with a number: it is not finite, breaks a bound gt, ge, lt or le, or is whole and beyond LARGEST."""
    if isinstance(number, float) and not math.isfinite(number):
        return f"should be a finite number, got {shown(number)}"
    for rule, holds, words in BOUNDS:
        if rule in rules and not holds(number, rules[rule]):
            return f"must be {words} {rules[rule]}, got {shown(number)}"
    if isinstance(number, int) and abs(number) > LARGEST:
        return f"must be at {'most ' if number > 0 else 'least -'}{LARGEST}, got {shown(number)}"
    return None


def shown(value: Any) -> str:
    """A value as it would be written in YAML, or nearly."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write whole numbers of thousands of digits
        return "a number of thousands of digits"
    return short(text)


def short(text: str) -> str:
    """A text with its middle left out when it is long."""
    return text if len(text) <= 300 else f"{text[:60]}...{text[-20:]} ({len(text)} characters)"
