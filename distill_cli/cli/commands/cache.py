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
from collections.abc import Sequence
from pathlib import Path

from distill_cli.base import files, locks, ui
from distill_cli.base.errors import CheckpointError, ConfigError, did_you_mean
from distill_cli.base.names import size
from distill_cli.runs.store import Entry, entries, unfinished
from distill_cli.runs.store import entry as reread

ACTIONS = ("list", "check", "prune")
DAY = 24 * 60 * 60


def run(words: Sequence[str]) -> None:
    """List, check or prune the caches, as the words say.

    Raises:
        ConfigError: a word means nothing here. CheckpointError: `check` found damage.
    """
    action, outputs, days = _read(words)
    caches = entries(outputs / "cache")
    if action == "prune":
        _prune(outputs, caches, days)
    elif not caches:
        ui.show(f"nothing is cached in {outputs / 'cache'}")
    elif action == "check":
        _check(caches)
    else:
        ui.show(ui.table(f"kept in {outputs / 'cache'}",
                         ["name", "teacher", "data", "split", "samples", "each", "precision", "size", "last used"],
                         [_row(entry) for entry in reversed(caches)]))  # fmt: skip
        ui.show(f"{len(caches)} kept, {size(sum(_bytes(entry.folder) for entry in caches))}")


def _read(words: Sequence[str]) -> tuple[str, Path, float | None]:
    """The action, the folder of outputs, and after how many unused days a cache is removed (None: never)."""
    action, outputs, days = "list", Path("outputs"), None
    choices = [*ACTIONS, "all", "days=N", "output_dir=PATH"]
    for number, word in enumerate(words):
        key, _, value = word.partition("=")
        if number == 0 and word in ACTIONS:
            action = word
        elif word == "all" and action == "prune":
            days = 0.0
        elif key == "output_dir" and value:
            outputs = Path(value).expanduser()
        elif key == "days" and action == "prune":
            try:
                days = float(value)
            except ValueError:
                days = -1.0
            if not 0 <= days < float("inf"):
                raise ConfigError(f"days: should be a number of days, at least 0, got {value!r}")
        else:
            raise ConfigError(
                f"distill cache: {word!r} means nothing here",
                f"{did_you_mean(word, choices)}distill cache --help shows what can be said",
            )
    return action, outputs, days


def _row(entry: Entry) -> list[str]:
    """An entry's row in the table of `list`."""
    age = max(0.0, time.time() - entry.used)
    minutes, hours, days = age / 60, age / 3600, age / DAY
    when = f"{days:.0f} days ago" if days >= 2 else f"{hours:.0f} h ago" if hours >= 2 else f"{minutes:.0f} min ago"
    if not entry.card:
        return [entry.folder.name, "damaged", "", "", "", "", "", size(_bytes(entry.folder)), when]
    about, (samples, *each) = entry.card["about"], next(iter(entry.card["arrays"].values()))["shape"]
    facts = [str(about.get(key, "?")) for key in ("teacher", "dataset", "split")]
    numbers = [f"{samples:,}", "x".join(f"{side:,}" for side in each), str(about.get("precision", "?"))]
    return [entry.folder.name, *facts, *numbers, size(_bytes(entry.folder)), when]


def _check(caches: Sequence[Entry]) -> None:
    """Print for each cache what is wrong with it.

    Raises:
        CheckpointError: some are damaged.
    """
    damages = {entry.folder.name: entry.damage() for entry in ui.progress(caches, "checking")}
    for name, damage in damages.items():
        ui.show(f"{name}  {damage or 'as it was written'}")
    damaged = [name for name, damage in damages.items() if damage]
    if damaged:
        raise CheckpointError(
            f"{len(damaged)} of {len(damages)} damaged: {', '.join(damaged)}",
            "distill cache prune removes them; the next run that needs them makes them again",
        )


def _prune(outputs: Path, caches: Sequence[Entry], days: float | None) -> None:
    """Remove what no run can use or has used lately, each under the lock of the run that makes it: one just made stays."""
    teachers = _teachers(outputs / "teachers")
    freed = []

    def remove(folder: Path, why: str) -> None:
        taken = _bytes(folder)
        shutil.rmtree(folder)
        freed.append(taken)
        ui.show(f"removed {folder.name.strip('.').removesuffix('.making')}  {why}")

    for aside in unfinished(outputs / "cache"):
        remove(aside, "unfinished")
    for entry in caches:
        with locks.exclusive(locks.lock_of(entry.folder)):
            now = reread(entry.folder)
            if not now.folder.is_dir():
                continue  # another prune removed it
            if days is not None and time.time() - now.used >= days * DAY:
                remove(now.folder, f"not used for {days:g} days" if days else "as asked")
            elif wrong := now.damage():
                remove(now.folder, wrong)
            elif now.card["ingredients"].get("weights") not in {*teachers, None}:
                remove(now.folder, f"its teacher is no longer in {outputs / 'teachers'}")
            elif not Path(now.card["about"].get("folder", "/")).is_dir():
                remove(now.folder, f"there is no {now.card['about']['folder']} any more")
    ui.show(f"{len(freed)} removed, {size(sum(freed))} freed; {len(entries(outputs / 'cache'))} kept")


def _teachers(folder: Path) -> set[str]:
    """The SHA-256 of every teacher's weights in a folder."""
    digests = set()
    for card in folder.glob("*/model.json"):
        try:
            digests.add(files.read_json(card)["sha256"])
        except (CheckpointError, OSError, KeyError):
            continue
    return digests


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
