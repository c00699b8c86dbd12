"""What Hydra has composed, its interpolations as they are written: kept for a run's folder, and for what is worked out later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from distill_cli.config import yamls
from distill_cli.config.places import group_files
from distill_cli.config.records import read
from distill_cli.config.schema import Objective
from distill_cli.config.yamls import plain


@dataclass(frozen=True)
class Composed:
    """A job's configuration, and Hydra's own node beside it."""

    job: DictConfig
    hydra: DictConfig

    def files(self, typed: Sequence[str]) -> dict[str, str]:
        """What Hydra would leave in the .hydra/ of a run with these overrides: texts by file."""
        kept = {"config": self.job, "hydra": OmegaConf.create({"hydra": self.hydra}), "overrides": list(typed)}
        return {f"{name}.yaml": OmegaConf.to_yaml(content) for name, content in kept.items()}

    def having(self, values: Mapping[str, Any]) -> Composed:
        """The same with other values at its top."""
        job = self.job.copy()
        with open_dict(job):
            job.update(values)
        return Composed(job, self.hydra)

    def written(self, key: str) -> str:
        """What stands at a key at the top, before it is resolved."""
        return str(OmegaConf.to_container(self.job[key], resolve=False))

    def objective(self, name: str) -> dict[str, Objective]:
        """What the file of an objective would choose, whether it is chosen or not.

        Raises:
            ConfigError, OmegaConfBaseException: its file cannot be read or resolved.
        """
        chosen = self.job.objective
        node = {name: chosen[name]} if name in chosen else yamls.load(group_files("objective")[name])
        nodes = plain(OmegaConf.create({**self.job, "objective": node}))["objective"]
        return {key: read(Objective, one) for key, one in nodes.items()}
