"""A file of rows as JSON lines, made group by group: whoever was stopped goes on, and under its name it is whole."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_cli.base import files, locks, ui
from distill_cli.base.errors import ConfigError

Row = dict[str, Any]


@dataclass(frozen=True)
class RowsFile:
    """A file that is to hold so many rows; until it does it is called FILE.part, and FILE.json says what it is made with.

    Args:
        made_with: all that its rows depend on, as JSON gives it back. total: how many rows it is to have.
    """

    path: Path
    made_with: Mapping[str, Any]
    total: int

    @property
    def part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def card(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def fill(self, rows: Callable[[int, int], list[Row]], group: int) -> None:
        """Write the rows that are missing.

        A group that was stopped inside is asked for again as a whole, so that its rows are the same to the bit.

        Args:
            rows: gives those from one number to another, that one not; each says its `tokens`. group: how many at a time.

        Raises:
            ConfigError: the file is there and was made otherwise, or by somebody else.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locks.exclusive(
            locks.lock_of(self.path), lambda: ui.say(f"{self.path}: another process writes it; waiting")
        ):
            self._agree()
            if self.path.exists():
                ui.say(f"{self.path} holds these {self.total:,} texts already")
                return
            with self.part.open("ab") as file:
                done = _whole_rows(self.part)
                file.truncate(done[1])
                self._write(file, rows, done[0], group)
            self.part.replace(self.path)
            files.sync_folder(self.path.parent)

    def _write(self, file: Any, rows: Callable[[int, int], list[Row]], done: int, group: int) -> None:
        if done:
            ui.say(f"{self.path}: {done:,} of {self.total:,} texts are there; going on")
        started, tokens = time.perf_counter(), 0
        with ui.bar(self.total, "writing", done, unit=" texts") as bar:
            for first in range(done // group * group, self.total, group):
                made = rows(first, min(first + group, self.total))
                tokens += sum(row["tokens"] for row in made)
                new = made[max(0, done - first) :]
                file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in new).encode())
                file.flush()
                os.fsync(file.fileno())
                bar.update(len(new))
        seconds = time.perf_counter() - started
        ui.say(f"{tokens:,} tokens in {seconds:,.1f} s, {tokens / seconds:,.0f} tokens/s")

    def _agree(self) -> None:
        """Keep what the file is made with, or refuse one that is made otherwise."""
        if not self.card.exists():
            if there := [path for path in (self.path, self.part) if path.exists()]:
                raise ConfigError(f"output: {there[0]} is there, and nothing tells how it was made", "another output=")
            files.write_json(self.card, self.made_with)
            return
        before = files.read_json(self.card)
        if changed := [key for key in {**before, **self.made_with} if before.get(key) != self.made_with.get(key)]:
            told = ", ".join(
                f"{key} was {_short(before.get(key))}, is {_short(self.made_with.get(key))}" for key in changed
            )
            raise ConfigError(
                f"output: {self.path} was begun otherwise: {told}",
                f"another output=, or remove {self.card} and the file",
            )


def _whole_rows(path: Path) -> tuple[int, int]:
    """How many whole lines a file has, and how many bytes those are."""
    rows = size = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                rows, size = rows + 1, size + len(line)
    return rows, size


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value)
