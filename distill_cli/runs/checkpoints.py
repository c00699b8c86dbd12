"""A training's checkpoints: the newest and the one before it whole, the best one's weights alone; each file is verified
byte by byte before it is used.

`manifest.json`, written last, lists size and SHA-256 of every file; a file that it does not list was not finished. Killed
anywhere in a save, the checkpoint before it is still there and listed. A checkpoint names the epoch whose weights were the
best when it was saved: `best.pt` holds them, or `best_before.pt` as long as `previous.pt` names an older epoch.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from distill_cli.base import files, ui
from distill_cli.base.errors import CheckpointError
from distill_cli.base.tensors import read_tensors

LAST, PREVIOUS = "last.pt", "previous.pt"
BEST, BEFORE = "best.pt", "best_before.pt"
MANIFEST = "manifest.json"
WEIGHTS = "best_weights"
OF_BEST = ("run", "card", "student", "step", "epoch")  # what best.pt takes of the snapshot: enough to evaluate it alone

Snapshot = dict[str, Any]
Facts = dict[str, Any]


class Checkpoints:
    """The checkpoints in one folder, which one process at a time writes.

    Args:
        steps, seconds: how often `due` says that it is time to save.
    """

    def __init__(self, folder: Path, steps: int | None = None, seconds: float | None = None) -> None:
        self.folder, self.steps, self.seconds = folder, steps, seconds
        self._listed: dict[str, Facts] = {}
        self._saved_at = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether to save after `step` steps, inside an epoch."""
        if self.steps is not None and step % self.steps == 0:
            return True
        return self.seconds is not None and time.monotonic() - self._saved_at >= self.seconds

    def save(self, snapshot: Mapping[str, Any], best: bool = False) -> None:
        """Write the snapshot as the newest checkpoint; where its weights are the best, write those as well.

        Args:
            snapshot: under "best" it may name the best epoch so far; with `best` that is its own.

        Raises:
            StorageError: there is no room; the checkpoints written before are as they were.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = _place(snapshot)
        if best:
            weights = {key: snapshot[key] for key in OF_BEST if key in snapshot}
            in_use = BEST in self._listed and self._listed[BEST]["epoch"] == self._listed.get(LAST, {}).get("best")
            self._write(BEST, weights, facts, keep=BEFORE if in_use else None)
        self._write(LAST, {k: v for k, v in snapshot.items() if k != WEIGHTS}, facts, keep=PREVIOUS)
        named = {self._listed[name].get("best") for name in (LAST, PREVIOUS) if name in self._listed}
        unused = [name for name in (BEST, BEFORE) if name in self._listed and self._listed[name]["epoch"] not in named]
        self._listed = {name: facts for name, facts in self._listed.items() if name not in unused}
        files.write_json(self.folder / MANIFEST, {"files": self._listed})
        for name in unused:
            (self.folder / name).unlink(missing_ok=True)
        self._saved_at = time.monotonic()

    def _write(self, name: str, content: Mapping[str, Any], facts: Facts, keep: str | None) -> None:
        """Write one file and list it; `keep` takes the one before, unless that is damaged."""

        def write(sink: files.Sink) -> None:
            torch.save(dict(content), sink)  # type: ignore[arg-type]

        keep = keep if name in self._listed else None
        written = files.write(self.folder / name, write, self.folder / keep if keep else None)
        if keep:
            self._listed[keep] = self._listed[name]
        self._listed[name] = {**written, **facts}

    def latest(self) -> Snapshot | None:
        """The newest checkpoint that is as it was written, with the best weights so far under "best_weights"; None when
        none was ever written.

        Raises:
            CheckpointError: there are some, but all of them are damaged.
        """
        files.sweep(self.folder)
        listed, self._listed = _listed(self.folder), {}
        faults: list[str] = []
        unusable: list[str] = []  # among the best weights: that matters only where a checkpoint names those
        best = [snapshot for name in (BEST, BEFORE) if (snapshot := self._read(name, listed, unusable))]
        newest: Snapshot | None = None
        for name in (LAST, PREVIOUS):
            snapshot = self._read(name, listed, faults)
            if snapshot is None or newest is not None:
                continue
            if (weights := _best_weights(snapshot, best)) is None:
                faults += [*unusable, f"{self.folder / name} can be used only with the weights of its best epoch"]
                continue
            newest = {**snapshot, WEIGHTS: weights}
            for fault in faults:
                ui.warn(f"{fault}; going on from {name}, step {snapshot['step']}")
        if faults and newest is None:
            raise CheckpointError(
                "no checkpoint can be used:\n" + "\n".join(faults), f"delete {self.folder} to start again"
            )
        return newest

    def _read(self, name: str, listed: list[Facts] | None, faults: list[str]) -> Snapshot | None:
        """A file's content, listed from now on; None where it is missing, or damaged, which is added to `faults`."""
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            facts = _facts(path, listed)
            snapshot = _loaded(path)
        except (CheckpointError, OSError) as error:
            faults.append(error.message if isinstance(error, CheckpointError) else str(error))
            return None
        self._listed[name] = {**facts, **_place(snapshot)}
        return snapshot

    def remove(self) -> None:
        """Forget them all: what was trained is finished and kept elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _place(snapshot: Mapping[str, Any]) -> Facts:
    """Where a snapshot was taken, and the epoch that was the best until then, if any."""
    return {**{key: snapshot[key] for key in ("step", "epoch")}, "best": (snapshot.get("best") or {}).get("epoch")}


def _best_weights(snapshot: Snapshot, best: Iterable[Snapshot]) -> dict[str, Any] | None:
    """The weights of the epoch that a snapshot names as the best so far; none are needed where it names none.

    A snapshot of an earlier version of distill holds them itself.
    """
    if WEIGHTS in snapshot:
        return dict(snapshot[WEIGHTS])
    if not snapshot.get("best"):
        return {}
    epoch = snapshot["best"]["epoch"]
    return next((dict(one["student"]) for one in best if one["epoch"] == epoch), None)


def read(path: Path) -> Snapshot:
    """A checkpoint's content, its bytes verified: by the manifest beside it, or for a lone copy by its own CRC-32s.

    Raises:
        CheckpointError: it is missing, damaged, or its save did not finish.
    """
    if path.is_file():
        _facts(path, _listed(path.parent))
    return _loaded(path)


def _facts(path: Path, listed: list[Facts] | None) -> Facts:
    """What the manifest lists of the file's content, under whichever name: a save that is cut short has moved names.
    Without a manifest, what it should list.
    """
    own = {"sha256": files.sha256(path), "bytes": path.stat().st_size}
    if listed is None:
        return own
    known = next((facts for facts in listed if own.items() <= facts.items()), None)
    if known is None:
        raise CheckpointError(
            f"{path} is damaged, or its save was cut short (its SHA-256 is not in {MANIFEST})",
            f"{PREVIOUS} lies beside it",
        )
    return known


def _loaded(path: Path) -> Snapshot:
    loaded = read_tensors(path)
    if not isinstance(loaded, dict) or not {"student", "step", "epoch"} <= loaded.keys():
        raise CheckpointError(
            f"{path} is not a checkpoint of a run", "for a teacher's weights use teacher.checkpoint=PATH"
        )
    return loaded


def _listed(folder: Path) -> list[Facts] | None:
    """What a folder's manifest lists; None where there is none to go by."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        return [dict(facts) for facts in files.read_json(folder / MANIFEST)["files"].values()]
    except CheckpointError as error:
        ui.warn(f"{error.message}; the checkpoints are held against their own checksums")
    except (AttributeError, KeyError, TypeError, ValueError):
        ui.warn(f"{folder / MANIFEST} is not one of ours; the checkpoints are held against their own checksums")
    return None


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Putting back a snapshot inside: one that is not of what is trained here is an error of the checkpoint.

    Raises:
        CheckpointError: it does not fit.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} does not fit what is trained here: {error!s:.300}", f"delete {path} to start again"
        ) from error
