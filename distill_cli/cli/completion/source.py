"""Flags, words and schema as other modules spell them out, read from their source: to import these takes longer than a Tab may."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distill_cli.config.shipped import PACKAGE


class Flag(NamedTuple):
    name: str  # the longest of its names
    takes_value: bool
    choices: Sequence[str]


def flags(command: str, configured: bool) -> dict[str, Flag]:
    """A command's flags by each of their names."""
    found = {name: Flag("--help", takes_value=False, choices=()) for name in ("-h", "--help")}
    for node in ast.walk(_module("cli/dispatch" if configured else f"cli/commands/{command}")):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            names = [ast.literal_eval(argument) for argument in node.args]
            rules = _keywords(node)
            choices = ast.literal_eval(rules["choices"]) if "choices" in rules else ()
            flag = Flag(max(names, key=len), "action" not in rules, choices)
            found.update({name: flag for name in names if name.startswith("-")})
    if command != "train":
        for name in ("--from", "--debug"):  # dispatch adds them for train alone
            found.pop(name, None)
    return found


def constant(module: str, name: str) -> Any:
    """The value of a constant that a module of ours spells out."""
    return _constants(module)[name]


def fields(shape: str) -> Sequence[str]:
    """The fields of one of the schema's dataclasses."""
    return list(_shapes().get(shape, ()))


def shape_of(command: str) -> str:
    """The dataclass in the schema that a command's configuration has; "" for none."""
    for node in _module("config/schema").body:
        if isinstance(node, ast.AnnAssign) and _name(node.target) == "SCHEMAS" and isinstance(node.value, ast.Dict):
            named = zip(node.value.keys, node.value.values, strict=True)
            return next((_name(value) for key, value in named if key and ast.literal_eval(key) == command), "")
    return ""


def choices(shape: str, key: str) -> Sequence[str]:
    """The values that the schema allows for a key, where it lists them."""
    rules: Mapping[str, ast.expr] = {}
    parts = iter(key.split("."))
    for part in parts:
        rules = _shapes().get(shape, {}).get(part, {})
        if "nodes" in rules:
            next(parts, None)  # a stage's or an objective's own name
        shape = _name(rules.get("node") or rules.get("nodes"))
    if "choices" not in rules:
        return ()
    found: Sequence[str] = eval(
        compile(ast.Expression(rules["choices"]), "schema", "eval"), _constants("config/schema")
    )
    return found


@functools.cache
def _shapes() -> dict[str, dict[str, dict[str, ast.expr]]]:
    """The schema's dataclasses: of each its fields, and of each field the rules that bound it."""
    shapes: dict[str, dict[str, dict[str, ast.expr]]] = {}
    for node in _module("config/schema").body:
        if isinstance(node, ast.ClassDef):
            shape = {name: rules for base in node.bases for name, rules in shapes.get(_name(base), {}).items()}
            for field in node.body:
                if isinstance(field, ast.AnnAssign):
                    shape[_name(field.target)] = _keywords(field.value) if isinstance(field.value, ast.Call) else {}
            shapes[node.name] = shape
    return shapes


@functools.cache
def _module(name: str) -> ast.Module:
    return ast.parse(Path(PACKAGE, f"{name}.py").read_text(encoding="utf-8"))


@functools.cache
def _constants(module: str) -> dict[str, Any]:
    found = {}
    for node in _module(module).body:
        if isinstance(node, ast.Assign):
            try:
                found[_name(node.targets[0])] = ast.literal_eval(node.value)
            except ValueError:  # worked out, not spelt out
                continue
    return found


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def _name(node: ast.expr | None) -> str:
    return node.id if isinstance(node, ast.Name) else ""
