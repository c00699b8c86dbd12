"""Trackers that a run is also sent to: what each learns of a run, and the methods that it must have.

metrics.jsonl and summary.json stay the source of truth. following.py has the run's side; follower.py is the process that a
tracker works in.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from distill_cli.base.names import fingerprint, flat
from distill_cli.config import building
from distill_cli.runs import identity

PATIENCE = 20.0  # seconds that the trackers have, all together, when a run is over


@dataclass(frozen=True)
class About:
    """The run that a tracker is told of.

    Attributes:
        id: the same for every try of the same run in the same folder.
        config: resolved. overrides: as typed. Both without what belongs to trackers, which may be secret.
        group: the name of the sweep that the run belongs to.
        patience: seconds that a tracker has once the run is over.
    """

    folder: Path
    name: str
    id: str
    config: Mapping[str, Any]
    overrides: Sequence[str]
    group: str | None
    patience: float

    @property
    def parameters(self) -> dict[str, str]:
        """The configuration by dotted keys, each value as it would be typed."""
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in flat(self.config)}

    def metrics(self, row: Mapping[str, Any]) -> dict[str, float]:
        """A row's numbers, as in `val/accuracy`; `stage` is the number of its stage, from 0."""
        return {"stage": list(self.config["schedule"]).index(row["stage"]), **numbers(row)}


def about(folder: Path, patience: float = PATIENCE) -> About:
    """What the run in `folder` says of itself.

    Raises:
        CheckpointError: it says nothing, or is damaged.
    """
    run = identity.read(folder)
    return About(
        folder,
        folder.name,
        id=fingerprint([fingerprint([run["config"], run["prints"]]), str(folder.resolve())]),
        config={key: value for key, value in run["config"].items() if key != "logger"},
        overrides=[text for text in run["overrides"] if not text.lstrip("+~").startswith("logger")],
        group=folder.parent.name if (folder.parent / identity.SWEEP).is_file() else None,
        patience=patience,
    )


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Every number in nested mappings, as in `val/accuracy`."""
    return {key: value for key, value in flat(values, "/") if type(value) in (int, float)}


class Logger(abc.ABC):
    """One tracker. It lives in a process of its own: it may take its time, print and fail, and the run goes on.

    Its arguments are the keys of its YAML. It imports its package in `start`: the run imports its module too.

    Attributes:
        package: what must be installed for it.
        target: the place it sends to; one that an earlier try did not send to is told of every epoch.
    """

    package: ClassVar[str] = ""
    target: str = ""

    @abc.abstractmethod
    def start(self, run: About, after: int) -> str:
        """Begin, or go on with what an earlier try of the same run began; returns where the run can be looked at.

        Args:
            after: the optimizer step of the last epoch that an earlier try sent, else 0.
        """

    @abc.abstractmethod
    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is done; `row` is its row of metrics.jsonl. Each epoch comes once, however many tries the run takes."""

    @abc.abstractmethod
    def finish(self, summary: Mapping[str, Any], report: Path | None) -> None:
        """The run reached its end; `summary` is what summary.json holds."""

    @abc.abstractmethod
    def close(self, status: str) -> None:
        """Nothing more comes; `status` is finished, interrupted or failed."""


def check(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Callable[..., Logger]]:
    """The classes of the chosen trackers by name, with their arguments checked.

    Raises:
        ConfigError: an unknown class or argument.
    """
    return {name: building.check(node, Logger, f"logger.{name}") for name, node in nodes.items()}  # type: ignore[type-abstract]
