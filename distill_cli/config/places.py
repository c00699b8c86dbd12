"""Where configuration lives: the shipped conf/, the user's own folders, and what their groups offer."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from distill_cli.base import files
from distill_cli.base.errors import ConfigError, did_you_mean
from distill_cli.config import yamls
from distill_cli.config.records import read
from distill_cli.config.schema import Fit, Optimizer
from distill_cli.config.shipped import conf_folder

# Groups that read another group's folder: each model is written once and offered in both roles.
SHARED_FOLDERS = {"teacher": "model", "student": "model"}

OPTIONAL_GROUPS = {"experiment", "logger"}  # of which nothing need be chosen


@functools.cache
def conf_dir() -> Path:
    """The shipped conf/."""
    return Path(conf_folder())


_named: list[Path] = []  # what --config-dir named


def use_conf_dir(folder: str | None) -> None:
    """Search `folder` before all others from now on; None: no such folder.

    Raises:
        ConfigError: it does not exist.
    """
    _named[:] = [files.place(folder, "--config-dir").resolve()] if folder is not None else []
    if _named and not _named[0].is_dir():
        raise ConfigError(f"--config-dir: there is no folder {_named[0]}")


def user_conf_dirs() -> list[Path]:
    """The user's own folders, searched in this order before the shipped one: --config-dir, ./conf and $DISTILL_CONF."""
    common = os.environ.get("DISTILL_CONF")
    folders = [*_named, Path("conf"), *([files.place(common, "DISTILL_CONF")] if common else [])]
    folders = [folder.resolve() for folder in folders if folder.is_dir()]
    return [folder for folder in folders if folder != conf_dir()]


def group_files(group: str) -> dict[str, Path]:
    """The YAML files a group offers, by name; the user's win over shipped ones."""
    files: dict[str, Path] = {}
    for folder in [*user_conf_dirs(), conf_dir()]:
        for name in (group, SHARED_FOLDERS.get(group, group)):
            for file in sorted((folder / name).glob("*.yaml")):
                files.setdefault(file.stem, file)
    return files


def group_names() -> list[str]:
    """The groups of which a user must choose one."""
    folders = {p.name for p in conf_dir().iterdir() if p.is_dir()} - {"model", "hydra"} | set(SHARED_FOLDERS)
    return sorted(folders - OPTIONAL_GROUPS)


def optimizer_node(name: str) -> dict[str, Any]:
    """The optimizer group's file `name` as a mapping: what teacher.fit.optimizer names."""
    files = group_files("optimizer")
    if name not in files:
        raise ConfigError(unknown_choice("teacher.fit.optimizer", name, list(files)))
    try:
        return yamls.plain(yamls.load(files[name]))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{files[name]}: cannot be used as teacher.fit.optimizer: {error}") from error


def optimizer_of(fit: Fit) -> Optimizer:
    """The optimizer that teacher.fit names, with the learning rate and the weight decay that are said beside it.

    Raises:
        ConfigError: there is none of that name, or its file holds a value that it cannot have.
    """
    node, problems = optimizer_node(fit.optimizer), list[str]()
    node |= {} if fit.lr is None else {"lr": fit.lr}
    node |= {} if fit.weight_decay is None else {"weight_decay": fit.weight_decay}
    optimizer = read(Optimizer, node, "optimizer.", problems)
    if problems:
        file = group_files("optimizer")[fit.optimizer]
        raise ConfigError("\n".join([f"teacher.fit.optimizer={fit.optimizer}, {file}:", *problems]))
    return optimizer


def unknown_choice(key: str, value: str, choices: Sequence[str]) -> str:
    """The message for a group's choice that does not exist."""
    guess = did_you_mean(value, choices, f"{key}=")
    return f"{key}: nothing is called {value!r}\n{guess}choices: {', '.join(sorted(choices))}"
