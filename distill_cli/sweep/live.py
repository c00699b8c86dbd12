"""A sweep while it runs: runs done, running and failed, the best so far and the time left, read from the runs' folders."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from distill_cli.base import ui
from distill_cli.base.errors import CheckpointError
from distill_cli.base.metrics import METRICS
from distill_cli.runs import identity
from distill_cli.sweep import jobs
from distill_cli.sweep.jobs import State

MOST = 8  # running runs that are shown
NOTHING: Mapping[str, Any] = {"val": {"student": {}}}  # what a damaged summary says


class View:
    """What is known of a sweep's runs.

    Args:
        folders: gives each run's folder by its label, more of them as a search goes on. total: how many there will be.
        optimize: what they are judged by, as in val.accuracy; None: each by what its task is. since: when the sweep was started.
    """

    def __init__(
        self, folders: Callable[[], Mapping[str, Path]], total: int, optimize: str | None, since: float
    ) -> None:
        self.folders, self.total, self.optimize, self.since = folders, total, optimize, since
        self.states: dict[str, State] = {}
        self.places: Mapping[str, Path] = {}  # the folders at the last look
        self.scores: dict[
            str, tuple[str, float | None]
        ] = {}  # of finished runs: by what they are judged, and what they reach
        self.look()
        self.before = self.of("finished")  # when the sweep was started
        self.ended = len(self.before)  # of those that were told

    def of(self, *names: str) -> set[str]:
        """Labels of the runs that stand so."""
        return {label for label, state in self.states.items() if state.name in names}

    def look(self) -> list[str]:
        """Read the folders; returns the labels of runs that have ended since the last look."""
        news = []
        self.places = self.folders()
        for label, folder in self.places.items():
            old = self.states.get(label)
            if old is not None and old.name == "finished":
                continue
            state = self.states[label] = jobs.state(folder, self.since)
            if state.name == "finished":
                self.scores[label] = jobs.reached(jobs.summary_of(folder) or NOTHING, self.optimize)
            if state != old and state.name in ("finished", "failed", "stopped"):
                news.append(label)
        return news

    @property
    def best(self) -> tuple[str, float, str] | None:
        """Of those that are judged as the first is, the best so far: by what, what it reaches and whose it is, the first of equal
        ones.
        """
        scores = [(key, value, label) for label, (key, value) in self.scores.items() if value is not None]
        alike = [one for one in scores if one[0] == scores[0][0]]
        return max(alike, key=lambda one: METRICS[one[0].removeprefix("val.")].gain(one[1]), default=None)

    def line(self) -> str:
        """How the sweep stands, in one line."""
        done, failed = len(self.of("finished")), len(self.of("failed"))
        parts = [f"{done}/{self.total} done", f"{len(self.of('running'))} running"]
        parts += [f"{failed} failed"] if failed else []
        parts += ["best {} {:.4f} ({})".format(*best)] if (best := self.best) else []
        ended = len(self.of("finished", "failed") - self.before)  # of this call
        missing = self.total - done - failed
        if ended and missing:
            parts.append(f"about {words((time.time() - self.since) / ended * missing)} left")
        return ", ".join(parts)

    def told(self, label: str) -> str:
        """One line about a run that has ended."""
        state = self.states[label]
        self.ended += 1
        if state.name != "finished":
            return f"[{self.ended}/{self.total}] {label}: {state.name}: {state.why}"
        key, value = self.scores[label]
        told = f"has no {key}: without labels optimize=val.kl judges; or its summary is damaged"
        reached = told if value is None else f"{key} {value:.4f}"
        return f"[{self.ended}/{self.total}] {label}: {reached}, {words(state.seconds)}"

    def picture(self) -> RenderableType:
        """The line, and a bar for each running run."""
        bars = Table.grid(padding=(0, 2))
        for label in sorted(self.of("running"))[:MOST]:
            done, epochs = epochs_of(self.places[label])
            told = f"epoch {done}/{epochs}" if epochs else ""
            bars.add_row(f"  {label}", ProgressBar(epochs or 1, done, width=24), told)
        return Group(bars, Text(self.line()))


@contextmanager
def shown(view: View) -> Iterator[None]:
    """Inside, a line on stderr for each run that ends; on a terminal, a picture of the sweep under them too."""
    console = ui.stderr()
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def tell() -> None:
        for label in view.look():
            with contextlib.suppress(OSError, CheckpointError):
                console.print(view.told(label), markup=False)
        with contextlib.suppress(OSError):  # the terminal may be gone
            if live is not None:
                live.update(view.picture(), refresh=True)

    with live or contextlib.nullcontext(), ui.looking(tell):
        yield


def epochs_of(folder: Path) -> tuple[int, int]:
    """A run's epochs: how many are done, and how many there will be (0 while that is not known, or where steps are counted)."""
    done = total = 0
    with contextlib.suppress(CheckpointError, OSError, KeyError):
        stages = identity.read(folder)["config"]["schedule"].values()
        total = 0 if any(stage.get("steps") for stage in stages) else sum(stage["epochs"] for stage in stages)
        done = (folder / "metrics.jsonl").read_bytes().count(b"\n")
    return done, total


def words(seconds: float) -> str:
    """A duration in a person's words: 12 s, 3 min, 2 h 5 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
