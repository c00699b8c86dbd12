"""Overrides as typed on the command line: paths quoted, read by Hydra's grammar, expanded for a sweep."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException

from distill_cli import schema
from distill_cli.config import group_files, group_names
from distill_cli.errors import ConfigError, nearest

# Values that are paths are taken as typed: `~` expanded, spaces, umlauts and = allowed.
PATH_KEYS = {"ckpt", "dataset.root", "teacher.checkpoint", "run_dir", "output_dir", "predictions", "hydra.sweep.dir"}

# What people call our keys elsewhere.
ALIASES = {
    "temperature": "T", "temp": "T", "tau": "T", "kd_T": "T", "lr": "optimizer.lr", "learning_rate": "optimizer.lr",
    "epochs": "schedule.<stage>.epochs", "bs": "batch_size", "checkpoint": "teacher.checkpoint", "data": "dataset",
    "model": "student", "loss": "objective", "num_workers": "workers", "weight_decay": "optimizer.weight_decay",
    "data_dir": "dataset.root", "root": "dataset.root", "output": "output_dir",
}  # fmt: skip


def quoted(override: str, multirun: bool = False) -> str:
    """The same override with a path value expanded and quoted for Hydra's grammar."""
    key, equals, value = override.partition("=")
    if not equals or key.lstrip("+") not in PATH_KEYS or not value or value[0] in "'\"" or "${" in value:
        return override
    if value == "null" or (multirun and "," in value):
        return override
    if value.startswith("~"):
        value = str(Path(value).expanduser())
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def parse(overrides: Sequence[str], multirun: bool) -> list[Override]:
    """Parse overrides by Hydra's grammar.

    Raises:
        ConfigError: on a word that is not `key=value`, or several values without -m.
    """
    parsed = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except (OverrideParseException, HydraException) as error:
            raise _unparsable(text) from error
        if override.is_sweep_override() and not multirun:
            raise ConfigError(f"{text}: lists several values for one run", f"add -m to sweep over them: -m {text}")
        if override.value() is None and override.key_or_group in group_names():
            raise ConfigError(f"{text}: one must be chosen\nchoices: {', '.join(group_files(override.key_or_group))}")
        parsed.append(override)
    return parsed


def _unparsable(text: str) -> ConfigError:
    if "=" in text:
        key, _, value = text.partition("=")
        return ConfigError(f"{text}: this value cannot be read", f"quote it: '{key}=\"{value}\"'")
    close = nearest(text, [*ALIASES, *(field.name for field in dataclasses.fields(schema.Train)), *group_names()])
    close = ALIASES.get(close, close) if close else None
    return ConfigError(f"{text}: a setting is written key=value" + (f", as in {close}=VALUE" if close else ""))


def combinations(parsed: Sequence[Override]) -> Iterator[list[str]]:
    """Every value of every axis once, the other axes at their first value: enough to check each before a sweep."""
    axes = _axes(parsed)
    firsts = [axis[0] for axis in axes]
    yield firsts
    for position, axis in enumerate(axes):
        for value in axis[1:]:
            yield [*firsts[:position], value, *firsts[position + 1 :]]


def expand(parsed: Sequence[Override]) -> Iterator[list[str]]:
    """Every combination of a sweep's axes, in order."""
    for line in itertools.product(*_axes(parsed)):
        yield list(line)


def _axes(parsed: Sequence[Override]) -> list[list[str]]:
    """The texts each override stands for: several for one that is swept over listed values, else its own."""
    axes = []
    for override in parsed:
        text = override.input_line or ""
        listed = override.is_sweep_override() and override.is_discrete_sweep()
        values = list(override.sweep_string_iterator()) if listed else []
        axes.append([f"{text.partition('=')[0]}={value}" for value in values] if listed else [text])
    return axes


def value_of(parsed: Sequence[Override], key: str) -> Any:
    """The value an override gives to `key`, the last one when there are several; None when none does.

    Raises:
        ConfigError: it is to be swept.
    """
    found = [override for override in parsed if override.key_or_group == key]
    if any(override.is_sweep_override() for override in found):
        raise ConfigError(f"{key}: takes one value, it cannot be swept")
    return found[-1].value() if found else None
