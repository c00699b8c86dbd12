"""A training's checkpoints: the newest two whole, the best one's weights alone; a file is verified before it is used.

`manifest.json`, written last, lists size and SHA-256 of every file; a file that it does not list was not finished. Whenever
a save is killed, the checkpoint before it is there and listed. A checkpoint names the epoch whose weights were the best when
it was saved: `best.pt` holds them, or `best_before.pt` as long as `previous.pt` names an older epoch.

Tensors of which each rank has a shard lie in a folder of their own, written first, whose files a checkpoint lists with size and
SHA-256: see base/shard_files.py. It is as good as the checkpoint's own file, and stays as long as one names it.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from distill_cli.base import files, shard_files, ui, world
from distill_cli.base.errors import CheckpointError, StorageError
from distill_cli.base.tensors import read_tensors

LAST, PREVIOUS = "last.pt", "previous.pt"
BEST, BEFORE = "best.pt", "best_before.pt"
MANIFEST = "manifest.json"
WEIGHTS = "best_weights"
SHARDS = "shards"  # in a checkpoint: the files of its folder; and how the folder's name begins
OF_BEST = ("run", "card", "student", "step", "epoch", SHARDS)  # of the snapshot: enough to evaluate it alone

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
        """Return whether to save after `step` steps, inside an epoch, as far as this process's clock says."""
        by_time = self.seconds is not None and time.monotonic() - self._saved_at >= self.seconds
        return by_time or (self.steps is not None and step % self.steps == 0)

    def save(self, snapshot: Mapping[str, Any], best: bool = False) -> None:
        """Have the first rank write the snapshot as the newest checkpoint, and with `best` its weights as the best ones; each rank
        writes its shards, if it has any.

        Args:
            snapshot: under "best" it may name the best epoch so far; with `best` that is its own.

        Raises:
            StorageError: there is no room; the earlier checkpoints are intact.
        """
        snapshot = {key: value for key, value in snapshot.items() if key != WEIGHTS}
        if shard_files.has_shards(snapshot):
            snapshot = self._with_shards_aside(snapshot)
        world.decided(lambda: self._save(snapshot, best))
        self._saved_at = time.monotonic()

    def _with_shards_aside(self, snapshot: Mapping[str, Any]) -> Snapshot:
        """The snapshot without its shards, which are on the disk, and with what lists their files."""

        def begin() -> Path:
            folder = self.folder / f"{SHARDS}-{snapshot['step']:06}-{uuid.uuid4().hex[:8]}"
            folder.mkdir(parents=True)
            return folder

        folder = world.decided(begin)
        try:
            snapshot, listed = shard_files.write(folder, snapshot)
        except (StorageError, OSError):
            world.decided(lambda: shutil.rmtree(folder, ignore_errors=True))
            raise
        return {**snapshot, SHARDS: {folder.name: listed}}

    def _save(self, snapshot: Mapping[str, Any], best: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = _place(snapshot)
        if best:
            weights = {key: snapshot[key] for key in OF_BEST if key in snapshot}
            in_use = BEST in self._listed and self._listed[BEST]["epoch"] == self._listed.get(LAST, {}).get("best")
            self._write(BEST, weights, facts, keep=BEFORE if in_use else None)
        self._write(LAST, snapshot, facts, keep=PREVIOUS)
        named = {self._listed[name].get("best") for name in (LAST, PREVIOUS) if name in self._listed}
        unused = [name for name in (BEST, BEFORE) if name in self._listed and self._listed[name]["epoch"] not in named]
        self._listed = {name: facts for name, facts in self._listed.items() if name not in unused}
        files.write_json(self.folder / MANIFEST, {"files": self._listed})
        for name in unused:
            (self.folder / name).unlink(missing_ok=True)
        named = {folder for facts in self._listed.values() for folder in facts.get(SHARDS, ())}
        for folder in self.folder.glob(f"{SHARDS}-*"):
            if folder.name not in named:
                shutil.rmtree(folder, ignore_errors=True)

    def _write(self, name: str, content: Mapping[str, Any], facts: Facts, keep: str | None) -> None:
        """Write one file and list it; `keep` takes the one before, unless that is damaged."""
        before = self._listed.get(name)
        aside = self.folder / keep if keep and before else None
        written = files.write(self.folder / name, lambda sink: torch.save(dict(content), sink), aside)  # type: ignore[arg-type]
        if aside and before:
            self._listed[aside.name] = before
        self._listed[name] = {**written, **facts}

    def latest(self, device: torch.device | None = None) -> Snapshot | None:
        """Return the newest intact checkpoint, as the first rank finds it, with the best weights so far under "best_weights"; None
        when none was written.

        Args:
            device: where each rank gets its shards of what was saved so; None: it gets whole tensors.

        Raises:
            CheckpointError: there are some, but all of them are damaged.
        """
        newest = world.decided(self._latest)
        return None if newest is None else shard_files.read(self.folder, newest, device)

    def _latest(self) -> Snapshot | None:
        files.sweep(self.folder)
        listed, self._listed = _listed(self.folder), {}
        faults: list[str] = []
        unusable: list[str] = []  # among the best weights: that matters only where a checkpoint names those
        best = [snapshot for name in (BEST, BEFORE) if (snapshot := self._read(name, listed, unusable))]
        weights = {snapshot["epoch"]: snapshot["student"] for snapshot in reversed(best)}  # best.pt counts first
        newest: Snapshot | None = None
        for name in (LAST, PREVIOUS):
            snapshot = self._read(name, listed, faults)
            if snapshot is None or newest is not None:
                continue
            epoch = _place(snapshot)["best"]
            if WEIGHTS not in snapshot:  # an earlier version of distill saved them in it
                if epoch is not None and epoch not in weights:
                    faults += [*unusable, f"{self.folder / name} can be used only with the weights of its best epoch"]
                    continue
                snapshot[WEIGHTS] = weights.get(epoch, {})
            newest = snapshot
            for fault in faults:
                ui.warn(f"{fault}; going on from {name}, step {snapshot['step']}")
        if faults and newest is None:
            message = "no checkpoint can be used:\n" + "\n".join(faults)
            raise CheckpointError(message, f"delete {self.folder} to start again")
        return newest

    def _read(self, name: str, listed: list[Facts] | None, faults: list[str]) -> Snapshot | None:
        """Return a file's content and list it; None where it is missing, or damaged, which is added to `faults`."""
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            facts = _facts(path, listed)
            snapshot = _loaded(path)
        except CheckpointError as error:
            faults.append(error.message)
        except OSError as error:
            faults.append(str(error))
        else:
            self._listed[name] = {**facts, **_place(snapshot)}
            return snapshot
        return None

    def remove(self) -> None:
        """Remove them all: what was trained is finished and kept elsewhere."""
        world.decided(lambda: shutil.rmtree(self.folder, ignore_errors=True))


def _place(snapshot: Mapping[str, Any]) -> Facts:
    """Return a snapshot's step, epoch and files of shards, and the epoch that was the best until then, if any."""
    own = {key: snapshot[key] for key in ("step", "epoch", SHARDS) if key in snapshot}
    return {**own, "best": (snapshot.get("best") or {}).get("epoch")}


def read(path: Path) -> Snapshot:
    """Return a checkpoint's content, its bytes verified by the manifest beside it, or a lone copy's by its own CRC-32s.

    Raises:
        CheckpointError: it is missing, damaged, or its save did not finish.
    """
    if path.is_file():
        _facts(path, _listed(path.parent))
    return dict(shard_files.read(path.parent, _loaded(path)))


def _facts(path: Path, listed: list[Facts] | None) -> Facts:
    """Return the file's SHA-256 and size, which a manifest must list, under whichever name: a save that is cut short has
    moved names.
    """
    facts = {"sha256": files.sha256(path), "bytes": path.stat().st_size}
    if listed is not None and not any(facts.items() <= one.items() for one in listed):
        message = f"{path} is damaged, or its save was cut short (its SHA-256 is not in {MANIFEST})"
        raise CheckpointError(message, f"{PREVIOUS} lies beside it")
    return facts


def _loaded(path: Path) -> Snapshot:
    loaded = read_tensors(path)
    if not isinstance(loaded, dict) or not {"student", "step", "epoch"} <= loaded.keys():
        hint = "for a teacher's weights use teacher.checkpoint=PATH"
        raise CheckpointError(f"{path} is not a checkpoint of a run", hint)
    for folder, listed in loaded.get(SHARDS, {}).items():
        for name, facts in listed.items():
            shard = path.parent / folder / name
            if not shard.is_file() or files.sha256(shard) != facts["sha256"]:
                raise CheckpointError(f"{path} cannot be used: {shard} is missing or damaged (its SHA-256 differs)")
    return loaded


def _listed(folder: Path) -> list[Facts] | None:
    """Return what a folder's manifest lists; None where there is no usable one."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        return [dict(facts) for facts in files.read_json(folder / MANIFEST)["files"].values()]
    except CheckpointError as error:
        fault = error.message
    except (AttributeError, KeyError, TypeError, ValueError):
        fault = f"{folder / MANIFEST} is not one of ours"
    ui.warn(f"{fault}; the checkpoints are checked by their own checksums")
    return None
