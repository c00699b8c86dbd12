"""Plain YAML values and the annotations they meet: does one fit, and how is an annotation said in words."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf


def plain(cfg: Any) -> dict[str, Any]:
    """A configuration's mapping as plain values, its interpolations resolved."""
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


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
