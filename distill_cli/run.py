"""The folder of one run: claimed by one process, written atomically, and honest about how it ended."""

from __future__ import annotations

import io
import json
import os
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from distill_cli import __version__, files, ui
from distill_cli.errors import CheckpointError, exit_code_of


class Run:
    """A run's folder, used as a context: status.json says `running` inside and how it went after.

    Raises:
        BusyError: another process works in it. CheckpointError: it holds a run already.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Run:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = files.claim(self.folder / ".lock")
        if (self.folder / "status.json").exists():
            os.close(self._lock)
            raise CheckpointError(
                f"{self.folder} holds a run already", "choose another run_dir, or drop it for a fresh one"
            )
        self.started = time.time()
        self._log = ui.log_to(self.folder / "train.log")
        self.status("running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.status("finished", exit_code=0)
            else:
                code = exit_code_of(error)
                ui.log.error("%s", "".join(traceback.format_exception(error)).rstrip())
                self.status("interrupted" if code in (130, 143) else "failed", str(error) or kind.__name__, code)  # type: ignore[union-attr]
        finally:
            ui.stop_log(self._log)
            os.close(self._lock)

    def status(self, status: str, reason: str | None = None, exit_code: int | None = None) -> None:
        """Write status.json."""
        facts = {"status": status, "reason": reason, "exit_code": exit_code, "pid": os.getpid(), "distill": __version__}
        files.write_json(self.folder / "status.json", {**facts, "started": self.started, "updated": time.time()})

    def write_config(self, cfg: DictConfig) -> None:
        """The composed configuration and the overrides, as Hydra writes them."""
        hydra = HydraConfig.get()
        place = self.folder / ".hydra"
        place.mkdir(exist_ok=True)
        files.write(place / "config.yaml", OmegaConf.to_yaml(cfg))
        files.write(place / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})))
        files.write(place / "overrides.yaml", OmegaConf.to_yaml(hydra.overrides.task))

    def row(self, row: dict[str, Any]) -> None:
        """Add an epoch to metrics.jsonl."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def checkpoint(self, snapshot: dict[str, Any], names: list[str]) -> None:
        """Write the full training state as checkpoints/<name>.pt for each of `names`."""
        content = io.BytesIO()
        torch.save(snapshot, content)
        (self.folder / "checkpoints").mkdir(exist_ok=True)
        for name in names:
            files.write(self.folder / "checkpoints" / f"{name}.pt", content.getvalue())
