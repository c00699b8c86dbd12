"""TensorBoard: event files written by its own writer, which needs neither TensorFlow nor torch."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from distill_cli.trackers import About, Logger, numbers


class TensorBoard(Logger):
    """Scalars by optimizer step, the final numbers among them; the configuration and the report's path as text."""

    package: ClassVar[str] = "tensorboard"

    def __init__(self, dir: str | None = None) -> None:
        self.dir = Path(dir).absolute() if dir else None
        self.target = str(self.dir or "")

    def start(self, run: About, after: int) -> str:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.run, self.step, self.event = run, after, Event
        folder = self.dir / f"{run.name}-{run.id}" if self.dir else run.folder / "tensorboard"
        self.writer = EventFileWriter(str(folder))
        if after:  # readers then drop what an earlier file holds beyond this step
            self.writer.add_event(Event(step=after + 1, session_log=SessionLog(status=SessionLog.START)))
        else:
            table = [("key", "value"), ("---", "---"), *run.parameters.items()]
            self._text("config", "".join(f"| {key} | {value} |\n" for key, value in table))
            self._text("overrides", " ".join(run.overrides) or "none")
        self.writer.flush()
        return f"tensorboard --logdir {shlex.quote(str(folder))}"

    def epoch(self, row: Mapping[str, Any]) -> None:
        self.step = row["step"]
        self._scalars(self.run.metrics(row))

    def finish(self, summary: Mapping[str, Any], report: Path | None) -> None:
        self._scalars(numbers({"summary": summary}))
        if report:
            self._text("report", str(report))

    def close(self, status: str) -> None:
        self._text("status", status)
        self.writer.close()

    def _scalars(self, values: Mapping[str, float]) -> None:
        event = self.event(step=self.step, wall_time=time.time())
        for tag, value in values.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self.writer.add_event(event)
        self.writer.flush()

    def _text(self, tag: str, text: str) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        self.writer.add_event(self.event(step=self.step, wall_time=time.time(), summary=text_pb(tag, text)))
