"""Weights & Biases: a run of its own there, or kept offline in the run's folder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from distill_cli.trackers import About, Logger, numbers

Mode = Literal["online", "offline", "disabled"]


class WandB(Logger):
    """Metrics by optimizer step, the configuration, the final numbers as the summary, the report as an artifact."""

    package: ClassVar[str] = "wandb"

    def __init__(self, project: str = "distill", entity: str | None = None, mode: Mode | None = None) -> None:
        self.project, self.entity, self.mode = project, entity, mode
        self.target = f"{entity}/{project} {mode or os.environ.get('WANDB_MODE', 'online')}"

    def start(self, run: About, after: int) -> str:
        home = run.folder / "wandb"
        for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):  # else in the user's home
            os.environ.setdefault(name, str(home))
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to its makers

        import wandb

        self.about = run
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            id=run.id,
            resume="allow",
            name=run.name,
            group=run.group,
            config=dict(run.config),
            dir=str(run.folder),
            settings=wandb.Settings(
                console="off",  # this process prints nothing of the run's
                quiet=True,
                symlink=False,
                x_stats_pid=os.getppid(),  # the run's own use of the machine
                finish_timeout=0.75 * run.patience,  # what is left then is for `wandb sync`
                finish_timeout_raises=True,
            ),
        )
        if self.run.offline:
            return f"kept offline; wandb sync {shlex.quote(str(home))}/offline-run-* sends it"
        return str(self.run.url)

    def epoch(self, row: Mapping[str, Any]) -> None:
        self.run.log({**self.about.metrics(row), "stage_name": row["stage"]}, step=row["step"], commit=True)

    def finish(self, summary: Mapping[str, Any], report: Path | None) -> None:
        self.run.summary.update(numbers({"summary": summary}))
        if report:
            import wandb

            artifact = wandb.Artifact(f"report-{self.about.id}", type="report")
            artifact.add_file(str(report))
            self.run.log_artifact(artifact)

    def close(self, status: str) -> None:
        self.run.finish(exit_code=0 if status == "finished" else 1)
