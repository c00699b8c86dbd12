"""The folder of one run: used by one process at a time, resumed with the same settings only; its status says how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from distill_cli import __version__
from distill_cli.base import files, locks, stopping, ui, world
from distill_cli.base.errors import CheckpointError, StorageError, exit_code_of
from distill_cli.base.names import fingerprint
from distill_cli.config.schema import Train
from distill_cli.runs import growth, identity
from distill_cli.runs.identity import LOCK, STATUS, SUMMARY

FOLDERS = (".hydra", "checkpoints", "eval", "teacher", "teachers", "chain", "export", "fp32", "tensorboard", "wandb")


class Run:
    """A run's folder, used as a context: its lock is held inside, and status.json says how it went after.

    A run of the same configuration is resumed from its folder; nothing in the folder is written before `begin`, so that
    a run that is refused stays as it was.

    Args:
        settings: what it is to do. folder: where; another name is taken when `named` is false and it is taken.
        named: whether the user chose the folder.

    Raises:
        BusyError: another process works in it. CheckpointError: it holds another run, or one that says nothing of itself.
    """

    def __init__(self, settings: Train, folder: Path, named: bool) -> None:
        self.settings, self.folder, self.named = settings, folder, named
        self.known: dict[str, Any] = {}
        self._longer: dict[str, Any] = {}  # what it is to be, where it is to train longer than it was told
        self.since = time.time()
        self._log: Any = None
        self._lock: Any = None

    def __enter__(self) -> Run:
        self.folder, self.known, self._longer = world.decided(self._taken)
        return self

    def _taken(self) -> tuple[Path, dict[str, Any], dict[str, Any]]:
        """Lock the folder, which is this one or another, and find out what its run is."""
        self.folder, self._lock = locks.own(
            self.folder, LOCK, self.named, lambda place: (place / identity.FILE).exists()
        )
        try:
            self._meet()
        except BaseException:
            self._lock.release()
            raise
        return self.folder, self.known, self._longer

    @property
    def ours(self) -> bool:
        """Whether this process holds the folder: of several ranks one does."""
        return self._lock is not None

    def _meet(self) -> None:
        """Read what the folder's run is and hold the configuration against it; a new one is begun."""
        for name in FOLDERS:
            if (self.folder / name).is_symlink():
                raise CheckpointError(f"{self.folder / name} is a link: a run writes in its own folder only")
        files.sweep(self.folder)
        typed = [text for text in self.settings.typed if not text.startswith("run_dir=")]
        config = identity.config_of(self.settings)
        about = {"config": config, "overrides": typed}
        if not (self.folder / identity.FILE).exists():
            if (self.folder / STATUS).exists():
                message = f"{self.folder} holds a run without {identity.FILE}: it cannot be resumed"
                raise CheckpointError(message, "choose another run_dir, or drop it for a fresh one")
            self._introduce(about)
            return
        self.known = identity.read(self.folder)
        if not self.started:
            self._introduce(about)  # stopped before anything of it was saved: there is nothing to contradict
            return
        why = ""
        if growth.asked(self.known["config"], config):
            if not (why := growth.obstacle(self.settings)):
                self._longer = about
                return
            why = f"\nit cannot just train longer: {why}"
        what = f"{self.folder} holds a run of another configuration"
        hint = f"{self.resume_line} goes on with it as it was; {self._new_line(typed)}"
        if faults := identity.changes(self.known["config"], config):
            raise CheckpointError("\n".join([f"{what}:", *faults]) + why, hint)

    def _new_line(self, typed: Sequence[str]) -> str:
        """What to type for a new run of the same recipe, with what is typed now."""
        finished, folder = (self.folder / SUMMARY).exists(), shlex.quote(str(self.folder))
        changed = [shlex.quote(text) for text in typed if text not in self.known["overrides"]]
        line = " ".join([f"distill train --from {folder}", *changed, *([f"student.checkpoint={folder}"] * finished)])
        return f"{line} is a new run" + (" that starts from its student" if finished else "")

    def _introduce(self, about: Mapping[str, Any]) -> None:
        started = {"name": self.settings.config, "directory": str(Path.cwd())}
        self.known = {**about, **started, "prints": {}, "machine": {}}
        files.write_json(self.folder / identity.FILE, self.known)
        self.begin()

    @property
    def started(self) -> bool:
        """Whether anything of the run, or of a link of its chain, was saved: a checkpoint, or its end."""
        places = [self.folder, *(self.folder / "chain").glob("*")]
        return any((p / SUMMARY).exists() or any((p / "checkpoints").glob("*.pt")) for p in places)

    @property
    def fingerprint(self) -> str:
        """Of all that the run is and works on: what its checkpoints belong to."""
        return fingerprint([self.known["config"], self.known["prints"]])

    def owns(self, fingerprint: Any) -> bool:
        """Whether a checkpoint of this fingerprint is the run's, or its own from before it was to train longer."""
        return fingerprint in (self.fingerprint, *self.known.get("earlier", []))

    @property
    def resume_line(self) -> str:
        """What to type to resume it."""
        return f"distill resume {shlex.quote(str(self.folder))}"

    def begin(self) -> None:
        """Write what a running run has: its log, status and configuration."""
        if self._log is not None:
            return
        self._log = ui.log_to(self.folder / "train.log")
        self.status("running")
        (self.folder / ".hydra").mkdir(exist_ok=True)
        for name, text in self.settings.source.files(self.known["overrides"]).items():
            files.write(self.folder / ".hydra" / name, text)

    def agree(self, prints: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
        """Hold the fingerprints of what the run works on against those it was started with, then `begin`.

        Args:
            machine: what may change, but not without a word: other bits may come out.

        Raises:
            CheckpointError: something has changed since.
        """
        identity.require_alike({"config": identity.config_of(self.settings), **prints})
        self.known = world.decided(lambda: self._agreed(prints, machine))

    def _agreed(self, prints: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, Any]:
        if self.started and self.known["prints"]:
            hint = f"put it back as it was; {self._new_line([])}"
            identity.require_same(self.known["prints"], prints, f"{self.folder} was started on something else", hint)
            for key, old, new in identity.differences({"ranks": 1, **self.known["machine"]}, machine):
                ui.warn(f"the run was started with {key} {old}, it goes on with {new}: its last bits may differ")
            if self._longer:  # a kill in between leaves a run that is not finished, with checkpoints of its own
                (self.folder / SUMMARY).unlink(missing_ok=True)
                self.known |= {**self._longer, "earlier": [*self.known.get("earlier", []), self.fingerprint]}
                files.write_json(self.folder / identity.FILE, self.known)
        else:
            self.known |= {"prints": dict(prints), "machine": dict(machine)}
            files.write_json(self.folder / identity.FILE, self.known)
        self.begin()
        return self.known

    def summary(self) -> dict[str, Any] | None:
        """The final numbers of a finished run; None while it is not finished. CheckpointError: they are damaged for good."""
        return world.decided(self._summary)

    def _summary(self) -> dict[str, Any] | None:
        if self._longer or not (self.folder / SUMMARY).exists():
            return None
        try:
            summary = files.read_json(self.folder / SUMMARY)
            for name in ("model.json", "student.safetensors"):
                if not (self.folder / name).is_file():
                    raise CheckpointError(f"{self.folder / name} is missing")
            return summary
        except CheckpointError as error:
            if not any((self.folder / "checkpoints").glob("*.pt")):
                raise
            ui.warn(f"{error.message}; it is made again from the last checkpoint")
            return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.ours:
            return
        try:
            # Not begun again: what the folder says stays as it was, unless it says that a run which was killed is running,
            # or that one which has all its results has not finished.
            says = self._says()
            stale = (
                says != "finished" if error is None else says == "running" and not isinstance(error, CheckpointError)
            )
            if self._log is not None or stale:
                with stopping.ignored():
                    self._end(error)
        finally:
            if self._log is not None:
                ui.stop_log(self._log)
            self._lock.release()

    def _says(self) -> str | None:
        """What status.json says of the run."""
        try:
            return str(files.read_json(self.folder / STATUS)["status"])
        except (CheckpointError, OSError, KeyError):
            return None

    def _end(self, error: BaseException | None) -> None:
        """The outcome into status.json and the log, as far as the disk takes them."""
        code = 0 if error is None else exit_code_of(error)
        stopped = {130: "interrupted", 143: "terminated"}.get(code)
        outcome = "finished" if error is None else "interrupted" if stopped else "failed"
        reason = None if error is None else stopped or str(error) or type(error).__name__
        try:
            self.status(outcome, reason, code)
            if error is not None:
                ui.log.error("%s", "".join(traceback.format_exception(error)).rstrip())
        except (OSError, StorageError):
            if error is None:
                raise
            with contextlib.suppress(OSError):  # a full disk may still take the few bytes where the old ones are
                (self.folder / STATUS).write_text(json.dumps(self._facts(outcome, reason, code)))
        if stopped:
            ui.say(f"to go on: {self.resume_line}")

    def status(self, status: str, reason: str | None = None, exit_code: int | None = None) -> None:
        """Write status.json."""
        files.write_json(self.folder / STATUS, self._facts(status, reason, exit_code))

    def _facts(self, status: str, reason: str | None, exit_code: int | None) -> dict[str, Any]:
        facts = {"status": status, "reason": reason, "exit_code": exit_code, "pid": os.getpid(), "distill": __version__}
        return {**facts, "started": self.since, "updated": time.time()}

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Make metrics.jsonl hold these rows, one for each epoch."""
        shown = ({key: value for key, value in row.items() if key != "best"} for row in rows)
        text = "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in shown)
        world.decided(lambda: files.write(self.folder / "metrics.jsonl", text))
