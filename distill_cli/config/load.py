"""A command and its line -> checked settings, composed once. What Hydra reads, and from where, is in compose.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill_cli.base.errors import ConfigError
from distill_cli.config import compose
from distill_cli.config.checking import checked
from distill_cli.config.composed import Composed
from distill_cli.config.schema import COMMANDS, Eval, Open, Settings, Train
from distill_cli.config.yamls import plain

Named = TypeVar("Named", bound=Open)


def load(command: str, words: Sequence[str], config: str | None = None, config_dir: str | None = None) -> Any:
    """The settings of a command's line: `Train` for all but eval, whose settings are `Eval`.

    Args:
        words: overrides as Hydra takes them, see `overrides.quoted`. config: the root file's name, where it is not the
            command's own. config_dir: a folder to search first.

    Raises:
        ConfigError: for anything wrong in them.
    """
    with compose.session(command, config_dir) as engine:
        return settings(engine, config or command, command, words)


def settings(engine: Any, config: str, command: str, words: Sequence[str]) -> Any:
    """As `load`, in a session that is open."""
    cfg = compose.compose(engine, config, command, [*words, "hydra.mode=RUN"], RunMode.RUN)
    hydra, job = cfg.hydra, compose.without_hydra(cfg)
    try:
        missing = sorted(OmegaConf.missing_keys(job))
        values = plain(job)
    except (OmegaConfBaseException, OverflowError) as error:
        key = getattr(error, "full_key", None) or "the configuration"
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    if missing:
        raise ConfigError("\n".join(f"{key}: has no default, give it as {key}=VALUE" for key in missing))
    found = checked(
        COMMANDS[command].shape,
        values,
        choices={str(group): str(name) for group, name in hydra.runtime.choices.items() if name is not None},
        typed=tuple(hydra.overrides.task),
        config=config,
        folder=Path(hydra.run.dir).absolute(),
        source=Composed(job, hydra),
    )
    return _named(found)


def _named(found: Settings) -> Settings:
    """The settings with every dataset and model called by what was chosen; a node's own `name` says more for a model."""

    def called(node: Named, name: str) -> Named:
        return replace(node, name=str(node.plain.get("name") or name))

    chosen = {group: found.choices.get(group) or group for group in ("dataset", "teacher", "student")}
    if not isinstance(found, Train):
        assert isinstance(found, Eval)
        return replace(found, dataset=found.dataset and replace(found.dataset, name=chosen["dataset"]))
    return replace(
        found,
        dataset=replace(found.dataset, name=chosen["dataset"]),
        teacher=called(found.teacher, chosen["teacher"]),
        student=called(found.student, chosen["student"]),
        teachers={name: called(node, name) for name, node in found.teachers.items()},
        chain={name: replace(node, name=name) for name, node in found.chain.items()},
    )
