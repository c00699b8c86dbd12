"""MLflow: a run on a tracking server, or in a local store beside the runs that `mlflow ui` shows."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from distill_cli.base import locks
from distill_cli.trackers import About, Logger, numbers

TAG = "distill.run"  # by which a run that is gone on with is found again
ENDS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MLflow(Logger):
    """Metrics by optimizer step, the configuration as parameters, the final numbers as metrics, the report as an artifact."""

    package: ClassVar[str] = "mlflow"

    def __init__(self, store: str, experiment: str = "distill", tracking_uri: str | None = None) -> None:
        self.store, self.experiment = Path(store).absolute(), experiment
        self.uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.target = f"{self.uri or self.store} {experiment}"

    def start(self, run: About, after: int) -> str:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # to its makers; also writes in the user's home

        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.about, self.step = run, after
        local = f"sqlite:///{quote(str(self.store / 'mlflow.db'))}"  # MLflow 3 refuses a store of plain files
        if not self.uri:
            self.store.mkdir(parents=True, exist_ok=True)
        # Two runs must not both lay out a new data base.
        with nullcontext() if self.uri else locks.exclusive(self.store / ".lock"):
            self.client = MlflowClient(tracking_uri=self.uri or local)
            experiment = self._experiment(None if self.uri else (self.store / "artifacts").as_uri())
        earlier = self.client.search_runs([experiment], f"tags.`{TAG}` = '{run.id}'", max_results=1)
        if earlier:
            self.id = earlier[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
        else:
            tags = {TAG: run.id, "distill.folder": str(run.folder), "distill.sweep": run.group or ""}
            self.id = self.client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
            self.client.log_batch(self.id, params=[Param(key, value) for key, value in run.parameters.items()])
        return f"run {self.id}" + ("" if self.uri else f"; mlflow ui --backend-store-uri {local}")

    def epoch(self, row: Mapping[str, Any]) -> None:
        self.step = row["step"]
        self._metrics(self.about.metrics(row))

    def finish(self, summary: Mapping[str, Any], report: Path | None) -> None:
        self._metrics(numbers({"summary": summary}))
        if report:
            self.client.log_artifact(self.id, str(report))

    def close(self, status: str) -> None:
        self.client.set_terminated(self.id, ENDS[status])

    def _experiment(self, artifacts: str | None) -> str:
        """The experiment's id; it is made where there is none."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.create_experiment(self.experiment, artifact_location=artifacts))
        except MlflowException:  # it may be there, perhaps since a moment ago
            if (experiment := self.client.get_experiment_by_name(self.experiment)) is None:
                raise
            return str(experiment.experiment_id)

    def _metrics(self, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(key, value, now, self.step) for key, value in values.items()])
