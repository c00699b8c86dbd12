"""A command and its line -> checked settings, composed once. What Hydra reads, and from where, is in compose.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from distill_cli.base.errors import ConfigError
from distill_cli.config import compose, yamls
from distill_cli.config.checking import checked
from distill_cli.config.places import group_files
from distill_cli.config.records import read
from distill_cli.config.schema import COMMANDS, Objective, Settings, Source
from distill_cli.config.yamls import plain


@dataclass(frozen=True)
class Composed(Source):
    """A job's configuration as composed, its interpolations as they are written, and Hydra's own node beside it."""

    job: DictConfig
    hydra: DictConfig

    def files(self, typed: Sequence[str]) -> dict[str, str]:
        kept = {"config": self.job, "hydra": OmegaConf.create({"hydra": self.hydra}), "overrides": list(typed)}
        return {f"{name}.yaml": OmegaConf.to_yaml(content) for name, content in kept.items()}

    def having(self, values: Mapping[str, Any]) -> Composed:
        job = self.job.copy()
        with open_dict(job):
            job.update(values)
        return Composed(job, self.hydra)

    def written(self, key: str) -> str:
        return str(OmegaConf.to_container(self.job[key], resolve=False))

    def objective(self, name: str) -> dict[str, Objective]:
        chosen = self.job.objective
        node = {name: chosen[name]} if name in chosen else yamls.load(group_files("objective")[name])
        nodes = plain(OmegaConf.create({**self.job, "objective": node}))["objective"]
        return {key: read(Objective, one) for key, one in nodes.items()}


def load(command: str, words: Sequence[str], config: str | None = None, config_dir: str | None = None) -> Any:
    """The settings of a command's line: those of its record in `schema.COMMANDS`.

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
    cfg = compose.compose(engine, config, command, [*words, "hydra.mode=RUN"])
    hydra, job = cfg.hydra, cfg.copy()
    with open_dict(job):
        del job["hydra"]
    try:
        missing = sorted(OmegaConf.missing_keys(job))
        values = plain(job)
    except (OmegaConfBaseException, OverflowError) as error:
        key = getattr(error, "full_key", None) or "the configuration"
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    if missing:
        raise ConfigError("\n".join(f"{key}: has no default, give it as {key}=VALUE" for key in missing))
    return _named(
        checked(
            COMMANDS[command].shape,
            values,
            choices={str(group): str(name) for group, name in hydra.runtime.choices.items() if name is not None},
            typed=tuple(hydra.overrides.task),
            config=config,
            folder=Path(hydra.run.dir).absolute(),
            source=Composed(job, hydra),
        )
    )


def _named(settings: Settings) -> Settings:
    """The settings with the data set and the models of groups called by what was chosen; a model's own `name` says more."""
    named: dict[str, Any] = {}
    for group in ("dataset", "teacher", "student"):
        if node := getattr(settings, group, None):
            more = node.plain.get("name") if group != "dataset" else None
            named[group] = replace(node, name=str(more or settings.choices.get(group) or group))
    if made_of := getattr(named.get("student"), "made_of", None):
        made = ", ".join(f"{key} {value:g}" for key, value in made_of.items())
        named["student"] = replace(named["student"], name=f"the teacher's network, {made}")
    return replace(settings, **named)
