"""Overrides as typed on the command line: paths quoted, read by Hydra's grammar, expanded for a sweep."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException, OverrideParseException

from distill_cli.base import files
from distill_cli.base.errors import ConfigError, nearest
from distill_cli.config import schema
from distill_cli.config.fields import keys
from distill_cli.config.places import OPTIONAL_GROUPS, group_files, group_names, unknown_choice
from distill_cli.config.values import LARGEST, complaint, short, shown

# Values that are paths are taken as typed: `~` expanded, spaces, umlauts and = allowed.
PATH_KEYS = {"ckpt", "dataset.root", "teacher.checkpoint", "student.checkpoint", "run_dir", "output_dir", "predictions",
             "output", "sort_into", "hydra.sweep.dir", "logger.tensorboard.dir", "logger.mlflow.store"}  # fmt: skip
INPUT = "input"  # a path, or any text at all

HERE = ("processes", "basic")  # launchers that share out the runs of a sweep on this machine
MOST = 10_000  # values of one sweep: each is composed before the first runs

# What people call our keys elsewhere.
ALIASES = {
    "temperature": "T", "temp": "T", "tau": "T", "kd_T": "T", "lr": "optimizer.lr", "learning_rate": "optimizer.lr",
    "epochs": "schedule.<stage>.epochs", "steps": "schedule.<stage>.steps",
    "bs": "batch_size", "checkpoint": "teacher.checkpoint", "data": "dataset",
    "model": "student", "loss": "objective", "num_workers": "workers", "weight_decay": "optimizer.weight_decay",
    "data_dir": "dataset.root", "root": "dataset.root", "output": "output_dir",
}  # fmt: skip


def quoted(override: str, multirun: bool = False) -> str:
    """The same override with a path value expanded and quoted for Hydra's grammar."""
    key, equals, value = override.partition("=")
    if key in OPTIONAL_GROUPS and value == "null":
        return f"{key}=[]"  # Hydra takes null for no choice of a group
    if key == INPUT and value != "null":
        return f"{key}=" + in_quotes(value.replace("${", "\\${"))
    has_quotes = len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]
    if not equals or key.lstrip("+") not in PATH_KEYS or not value or has_quotes or "${" in value:
        return override
    if value == "null" or (multirun and "," in value):
        return override
    path = files.place(value, key.lstrip("+"))
    return f"{key}=" + in_quotes(str(path) if value.startswith("~") else value)


def in_quotes(text: str, quote: str = "'") -> str:
    """A text in Hydra's quotes, where a backslash is one by itself except before a quote."""
    escaped = re.sub(rf"(\\*)({quote}|\Z)", lambda found: found[1] * 2 + (f"\\{quote}" if found[2] else ""), text)
    return f"{quote}{escaped}{quote}"


def parse(overrides: Sequence[str], multirun: bool) -> list[Override]:
    """Parse overrides by Hydra's grammar.

    Raises:
        ConfigError: on a word that is not `key=value`, or several values without -m.
    """
    parsed = []
    for text in overrides:
        try:
            text.encode()
            override = OverridesParser.create().parse_override(text)
        except UnicodeEncodeError as error:
            raise ConfigError(f"{ascii(text)[1:-1]}: holds bytes that are not UTF-8; rename what it names") from error
        except (OverrideParseException, HydraException, RecursionError) as error:
            raise _unparsable(text) from error
        except ValueError as error:  # Python reads no whole number of thousands of digits
            raise ConfigError(f"{text.partition('=')[0]}: must be at most {LARGEST}, got {short(text)}") from error
        if not override.key_or_group:
            raise _unparsable(text)
        if override.is_sweep_override() and not multirun:
            raise ConfigError(f"{text}: lists several values for one run", f"add -m to sweep over them: -m {text}")
        if override.value() is None and override.key_or_group in group_names():
            raise ConfigError(f"{text}: one must be chosen\nchoices: {', '.join(group_files(override.key_or_group))}")
        for value in _values(override):
            _check(override.key_or_group, value)
        parsed.append(override)
    return parsed


def _values(override: Override) -> list[Any]:
    """What an override gives its key: several values for one that is swept over listed ones."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return [item for item in value.list if not isinstance(item, RangeSweep)]
    if isinstance(value, IntervalSweep):
        return [value.start, value.end]
    if isinstance(value, RangeSweep):
        ends = (value.start or 0, value.stop or 0)
        if value.step and abs(ends[1] - ends[0]) > MOST * abs(value.step):
            raise ConfigError(f"{override.key_or_group}: a sweep takes at most {MOST} values of one key")
        return list(ends)
    return [value]


def _check(key: str, value: Any) -> None:
    """Refuse what would stop Hydra or omegaconf before the schema sees it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check(f"{key}.{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            _check(key, inner)
    elif isinstance(value, int | float) and key in (*group_names(), *OPTIONAL_GROUPS):
        raise ConfigError(unknown_choice(key, shown(value), list(group_files(key))))
    elif isinstance(value, int | float) and not isinstance(value, bool) and complaint(value, {}):
        raise ConfigError(f"{key}: {complaint(value, {})}")


def _unparsable(text: str) -> ConfigError:
    key, equals, value = text.partition("=")
    if key.strip("+~") and equals:
        better = shlex.quote(f"{key}=" + in_quotes(value, '"'))
        return ConfigError(f"{short(text)}: this value cannot be read", f"quote it: {short(better)}")
    close = nearest(text, [*ALIASES, *(key.name for key in keys(schema.Train)), *group_names()])
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
    yield from map(list, itertools.product(*_axes(parsed)))


def _axes(parsed: Sequence[Override]) -> list[list[str]]:
    """The texts each override stands for: several for one that is swept over (the two ends of a range), else its own."""
    axes = []
    for override in parsed:
        text, value, values = override.input_line or "", override.value(), list[Any]()
        if isinstance(value, Glob):
            values = value.filter(sorted(group_files(override.key_or_group)))
        elif override.is_discrete_sweep():
            values = list(dict.fromkeys(override.sweep_string_iterator()))
        elif override.is_sweep_override():
            values = _values(override)
        axes.append([f"{text.partition('=')[0]}={value}" for value in values] or [text])
    return axes


def value_of(parsed: Sequence[Override], key: str) -> Any:
    """The value an override gives to `key`, the last one when there are several; None when none does.

    Raises:
        ConfigError: it is to be swept.
    """
    of_key = [override for override in parsed if override.key_or_group == key]
    if any(override.is_sweep_override() for override in of_key):
        raise ConfigError(f"{key}: takes one value, it cannot be swept")
    return of_key[-1].value() if of_key else None


def launcher(parsed: Sequence[Override], here: str | None) -> str | None:
    """The launcher that was chosen for one run. None: none was, it is done by this process.

    Args:
        here: what is always done by this process; None: it may be done elsewhere.

    Raises:
        ConfigError: a launcher was chosen for what is done here, or what only a sweep can use.
    """
    name = value_of(parsed, "hydra/launcher")
    for key in [override.key_or_group for override in parsed]:
        if key == "hydra/sweeper" or key.startswith(("hydra.sweeper.", "hydra.sweep.")):
            raise ConfigError(f"{key}: is for a sweep", "distill train -m ... runs one")
        if key == "hydra/launcher" or key.startswith("hydra.launcher."):
            if here:
                raise ConfigError(f"{key}: {here} works where it is typed", "leave it out")
            if name is None or name in HERE:
                raise ConfigError(
                    f"{key}: shares out the runs of a sweep", "add -m, or choose a cluster: hydra/launcher=slurm"
                )
    return str(name) if name else None
