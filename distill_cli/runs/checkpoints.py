"""A training's checkpoints: the newest, the one before it and the best, each verified byte by byte before it is used.

`manifest.json`, written last, lists size and SHA-256 of every file; what it does not list was not finished. Killed
anywhere in a save, the checkpoint before it is still there and listed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from distill_cli.base import files, ui
from distill_cli.base.errors import CheckpointError
from distill_cli.base.tensors import read_tensors

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
MANIFEST = "manifest.json"

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
        """Write the snapshot as the newest checkpoint, and as the best one too where it is.

        Raises:
            StorageError: there is no room; the checkpoints written before are as they were.
        """

        def content(sink: files.Sink) -> None:
            torch.save(dict(snapshot), sink)  # type: ignore[arg-type]

        self.folder.mkdir(parents=True, exist_ok=True)
        whole = LAST in self._listed  # one that is damaged must not take the place of the one before it
        written = files.write(self.folder / LAST, content, keep=self.folder / PREVIOUS if whole else None)
        facts = {**written, "step": snapshot["step"], "epoch": snapshot["epoch"]}
        if whole:
            self._listed[PREVIOUS] = self._listed[LAST]
        self._listed[LAST] = facts
        if best:
            self._listed[BEST] = {**facts, **files.write(self.folder / BEST, content)}
        files.write_json(self.folder / MANIFEST, {"files": self._listed})
        self._saved_at = time.monotonic()

    def latest(self) -> Snapshot | None:
        """The newest checkpoint that is as it was written; None when none was ever written.

        Raises:
            CheckpointError: there are some, but all of them are damaged.
        """
        files.sweep(self.folder)
        faults, found = [], None
        listed, self._listed = _listed(self.folder), {}
        for name in (LAST, PREVIOUS, BEST):
            path = self.folder / name
            if not path.is_file():
                continue
            try:
                facts = _facts(path, listed)
                # One that the manifest vouches for need not be loaded to be kept as another to fall back on.
                snapshot = _loaded(path) if found is None or listed is None else found
            except (CheckpointError, OSError) as error:
                faults.append(error.message if isinstance(error, CheckpointError) else str(error))
                continue
            self._listed[name] = {"step": snapshot["step"], "epoch": snapshot["epoch"], **facts}
            if found is None:
                found = snapshot
                for fault in faults:
                    ui.warn(f"{fault}; going on from {name}, step {snapshot['step']}")
        if faults and found is None:
            raise CheckpointError(
                "no checkpoint can be used:\n" + "\n".join(faults), f"delete {self.folder} to start again"
            )
        return found

    def remove(self) -> None:
        """Forget them all: what was trained is finished and kept elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)


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
            f"{PREVIOUS} and {BEST} lie beside it",
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
