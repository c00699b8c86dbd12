"""List, check and prune what is kept under outputs/cache/: teachers' answers, and pictures read from folders.

usage: distill cache [list|check|prune] [days=N|all] [output_dir=PATH]

  distill cache                       the caches: of what, how large, when last used
  distill cache check                 read every byte and compare it with what was written
  distill cache prune                 remove what is damaged, unfinished, or of a teacher or folder that is gone
  distill cache prune days=30         also what no run has read for 30 days
  distill cache prune all             everything

A run that needs a removed cache makes it again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from distill_cli.base import files, locks, ui
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.base.names import size
from distill_cli.cli.words import refused
from distill_cli.runs import store
from distill_cli.runs.store import Entry

ACTIONS = ("list", "check", "prune")
COLUMNS = ("name", "teacher", "data", "split", "samples", "each", "precision", "size", "last used")
DAY = 24 * 60 * 60


def run(words: Sequence[str]) -> None:
    """List, check or prune the caches, as the words say.

    Raises:
        ConfigError: a word is none that is taken. CheckpointError: `check` found damage.
    """
    action, *others = words if words and words[0] in ACTIONS else ("list", *words)
    outputs, days = Path("outputs"), None
    for word in others:
        key, _, value = word.partition("=")
        if key == "output_dir" and value:
            outputs = files.place(value, key)
        elif action == "prune" and (word == "all" or key == "days"):
            days = 0.0 if word == "all" else _days(value)
        else:
            raise refused("cache", word, [*ACTIONS, "all", "days", "output_dir"])
    entries = store.entries(outputs / "cache")
    if action == "prune":
        _prune(outputs, entries, days)
    elif not entries:
        ui.show(f"nothing is cached in {outputs / 'cache'}")
    elif action == "check":
        _check(entries)
    else:
        ui.show(ui.table(f"kept in {outputs / 'cache'}", COLUMNS, map(_row, reversed(entries))))
        ui.show(f"{len(entries)} kept, {size(sum(_bytes(entry.folder) for entry in entries))}")


def _days(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (days := float(text)) < float("inf"):
            return days
    raise ConfigError(f"days: should be a number of days, at least 0, got {text!r}")


def _row(entry: Entry) -> list[str]:
    """An entry's row in the table of `list`."""
    age = max(0.0, time.time() - entry.used)
    minutes, hours, days = age / 60, age / 3600, age / DAY
    when = f"{days:.0f} days ago" if days >= 2 else f"{hours:.0f} h ago" if hours >= 2 else f"{minutes:.0f} min ago"
    facts = ["damaged", "", "", "", "", ""]
    if entry.card:
        about, (samples, *each) = entry.card["about"], next(iter(entry.card["arrays"].values()))["shape"]
        teacher, data, split, precision = (
            str(about.get(key, "?")) for key in ("teacher", "dataset", "split", "precision")
        )
        facts = [teacher, data, split, f"{samples:,}", "x".join(f"{side:,}" for side in each), precision]
    return [entry.folder.name, *facts, size(_bytes(entry.folder)), when]


def _check(entries: Sequence[Entry]) -> None:
    """Print for each entry what is wrong with it.

    Raises:
        CheckpointError: some are damaged.
    """
    damages = {entry.folder.name: entry.damage() for entry in ui.progress(entries, "checking")}
    for name, damage in damages.items():
        ui.show(f"{name}  {damage or 'intact'}")
    if damaged := [name for name, damage in damages.items() if damage]:
        raise CheckpointError(
            f"{len(damaged)} of {len(damages)} damaged: {', '.join(damaged)}",
            "distill cache prune removes them; the next run that needs them makes them again",
        )


def _prune(outputs: Path, entries: Iterable[Entry], days: float | None) -> None:
    """Remove what no run can use, and what none has used for so many days, if a number is given.

    Each entry is looked at under the lock of the run that makes it, so that one just made stays.
    """
    weights = set()  # the SHA-256 of every teacher's
    for card in outputs.glob("teachers/*/model.json"):
        with suppress(CheckpointError, OSError):
            weights.add(files.read_json(card).get("sha256"))

    def useless(entry: Entry) -> str | None:
        """Why it is removed; None where it stays."""
        if days is not None and time.time() - entry.used >= days * DAY:
            return f"not used for {days:g} days" if days else "as asked"
        if damage := entry.damage():
            return damage
        if entry.card["ingredients"].get("weights") not in {*weights, None}:
            return f"its teacher is no longer in {outputs / 'teachers'}"
        source = entry.card["about"].get("folder", "/")
        return None if Path(source).exists() else f"there is no {source} any more"

    freed = [_remove(folder, "unfinished") for folder in store.unfinished(outputs / "cache")]
    for entry in entries:
        with locks.exclusive(locks.lock_of(entry.folder)):
            # Another prune may have removed it.
            if entry.folder.is_dir() and (why := useless(store.entry(entry.folder))):
                freed.append(_remove(entry.folder, why))
    ui.show(f"{len(freed)} removed, {size(sum(freed))} freed; {len(store.entries(outputs / 'cache'))} kept")


def _remove(folder: Path, why: str) -> int:
    """Remove a folder and say why; returns how many bytes that freed."""
    freed = _bytes(folder)
    shutil.rmtree(folder)
    ui.show(f"removed {folder.name.strip('.').removesuffix('.making')}  {why}")
    return freed


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
