"""What a record of settings is made of: keys, each with its default, its help and its rules. Which keys there are: schema.py."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, NamedTuple


def key(default: Any = dataclasses.MISSING, help: str = "", **rules: Any) -> Any:
    """A key with its default, its line in help, and rules.

    Bounds: gt, ge, lt, le, choices; filled: text that is not empty; path: and that can be a path.
    form: what a value may look like where that is not its type: ramp (a number or [from, to]), names (one or a list), every
    (steps or a time), devices (auto or a number), size (auto or pixels), weight (auto or a number), weights (balanced or a list).
    node: the record of an open mapping; nodes: of each entry of a mapping by name.
    free: a resumed run may change it: it decides where and how a run works, not what comes out of it.
    passed: the class that is built takes it too; other keys of an open node are ours alone.
    shared: a further teacher takes it from the first one.
    """
    rules["help"] = help
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata=rules)
    return field(default=default, metadata=rules)


class Key(NamedTuple):
    """A key of a record: its annotation, that without None and whether None was in it; its rules and default.

    `simple`: its value is text, a number, a flag or a list of such, as it is written.
    """

    name: str
    hint: Any
    kind: Any
    optional: bool
    simple: bool
    rules: Mapping[str, Any]
    default: Any


def _keys(shape: type) -> tuple[Key, ...]:
    """The keys of a record in the order they are shown in: its own, then those that it has from its base."""
    hints, every = typing.get_type_hints(shape), []
    fields = {one.name: one for one in dataclasses.fields(shape)}
    for name in {**shape.__annotations__, **fields}:
        one = fields[name]
        if "help" in one.metadata:
            optional = typing.get_args(hints[name])[1:] == (types.NoneType,)
            kind = typing.get_args(hints[name])[0] if optional else hints[name]
            default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
            simple = one.metadata.keys().isdisjoint(("node", "nodes", "form"))
            every.append(Key(name, hints[name], kind, optional, simple, one.metadata, default))
    return tuple(every)


keys: Callable[[type], tuple[Key, ...]] = functools.cache(_keys)


def of_class(shape: type, node: Mapping[str, Any]) -> dict[str, Any]:
    """A node without the keys that are ours: what its class is built from."""
    ours = {key.name for key in keys(shape) if not key.rules.get("passed")}
    return {name: value for name, value in node.items() if name not in ours}
