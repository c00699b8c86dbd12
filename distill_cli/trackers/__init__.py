"""Trackers that a run is also sent to: the interface of a logger, and `Loggers`, past which no failure of one can get.

metrics.jsonl and summary.json stay the source of truth. Each logger works in a process of its own (worker.py), so that
its imports, threads, signal handlers, chatter, waits and crashes are not the run's.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from distill_cli.base import ui
from distill_cli.config import building
from distill_cli.trackers.process import Process

PATIENCE = 20.0  # seconds that the loggers have, all together, when a run is over
PATIENCE_STOPPED = 5.0  # when it was asked to stop: whoever asked may not wait long either


@dataclasses.dataclass(frozen=True)
class About:
    """The run that a logger tells of.

    `id` is the same for every try of the same run in the same folder; `config` is what it was started with, resolved,
    but for the loggers' own; `group` names the sweep it belongs to.
    """

    folder: Path
    name: str
    id: str
    config: Mapping[str, Any]
    overrides: Sequence[str]
    group: str | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """The configuration by dotted keys, each value as it would be typed."""
        values = flat(self.config, ".").items()
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values}

    def metrics(self, row: Mapping[str, Any]) -> dict[str, float]:
        """A row's numbers, as in `val/accuracy`; `stage` is how many stages came before its own."""
        return {"stage": list(self.config["schedule"]).index(row["stage"]), **numbers(row)}


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Every number in nested mappings, as in `val/accuracy`."""
    found = flat(values, "/").items()
    return {key: value for key, value in found if isinstance(value, int | float) and not isinstance(value, bool)}


def flat(values: Mapping[str, Any], joint: str) -> dict[str, Any]:
    """Nested mappings as one, the keys of the inner ones after their own key and `joint`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = flat(value, joint) if isinstance(value, Mapping) else None
        found |= {key: value} if inner is None else {f"{key}{joint}{name}": item for name, item in inner.items()}
    return found


class Logger:
    """One tracker. It lives in a process of its own: it may take its time, print and fail, and the run goes on.

    Its arguments are the keys of its YAML. What else it needs is imported in `start`: the run imports its module too.

    Class attributes:
        package: what must be installed for it.
    """

    package: ClassVar[str] = ""

    def start(self, run: About, after: int) -> str:
        """Begin, or go on with what an earlier try of the same run began.

        Args:
            after: the optimizer step of the last epoch that an earlier try told it of, else 0.

        Returns:
            Where the run can be looked at.
        """
        raise NotImplementedError(type(self).__name__)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is done; `row` is its row of metrics.jsonl. Each epoch is told of once, whatever the tries."""
        raise NotImplementedError(type(self).__name__)

    def finish(self, summary: Mapping[str, Any], report: Path | None) -> None:
        """The run reached its end; `summary` is what summary.json holds."""
        raise NotImplementedError(type(self).__name__)

    def close(self, status: str) -> None:
        """Nothing more comes; `status` is finished, interrupted or failed."""
        raise NotImplementedError(type(self).__name__)


def check(nodes: Mapping[str, Mapping[str, Any]]) -> None:
    """Check the chosen loggers' classes and arguments.

    Raises:
        ConfigError: an unknown class or argument.
    """
    for name, node in nodes.items():
        building.check(node, Logger, f"logger.{name}")


class Loggers:
    """The chosen loggers at work, used as a context: started on the way in, gone on the way out.

    One that fails is warned about once and told nothing more. Nothing here waits for one but the way out.

    Args:
        nodes: the loggers' configuration by name, as `check` passes it.
    """

    def __init__(self, nodes: Mapping[str, Mapping[str, Any]], run: About) -> None:
        about = {**dataclasses.asdict(run), "folder": str(run.folder)}
        found = {name: building.check(node, Logger, f"logger.{name}") for name, node in nodes.items()}
        packages = {name: getattr(target, "package", "") for name, target in found.items()}
        self._processes = [Process(name, node, about, packages[name]) for name, node in nodes.items()]
        self._report = run.folder / "report.html"
        self._told = 0

    def __enter__(self) -> Loggers:
        self._each(Process.start)
        return self

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Tell of the rows that are new; `rows` are all that the run has so far."""
        for row in rows[self._told :]:
            told = {key: value for key, value in row.items() if key != "best"}
            self._each(functools.partial(Process.send, row=told))
        self._told = len(rows)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Tell of the end that the run reached, and of its report where there is one."""
        report = str(self._report) if self._report.is_file() else None
        self._each(lambda process: process.send(summary=summary, report=report))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = isinstance(error, KeyboardInterrupt)
        status = "finished" if error is None else "interrupted" if stopped else "failed"
        patience = PATIENCE_STOPPED if stopped else PATIENCE
        try:
            self._each(lambda process: process.send(close=status))
            deadline = time.monotonic() + patience
            self._each(lambda process: process.wait(deadline, patience))
        finally:
            for process in self._processes:
                process.end()

    def _each(self, act: Callable[[Process], None]) -> None:
        """Do something with every logger; whatever goes wrong with one costs that logger only."""
        for process in self._processes:
            try:
                act(process)
            except Exception as error:
                if not process.failed:
                    process.failed = True
                    ui.warn(f"logger={process.name}: {str(error) or type(error).__name__}")
