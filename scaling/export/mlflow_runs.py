"""MLflow: a run for the sweep, with a run below it for each cell. It needs mlflow.

Where the runs go is MLflow's own choice (MLFLOW_TRACKING_URI), or a folder. The experiment is `call-scaling`, unless
MLFLOW_EXPERIMENT_NAME names another. A cell that is there already is left as it is.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from scaling.export.tracked import TrackedCell

EXPERIMENT = "call-scaling"
SWEEP, CELL_ID = "call_scaling.sweep", "call_scaling.cell_id"
MOST_METRICS, MOST_PARAMS = 1000, 100  # that MLflow takes at a time


class MlflowTracker:
    """The runs of one sweep. folder: where a new store of runs lies; None for MLflow's own choice."""

    def __init__(self, sweep: str, folder: Path | None):
        uri = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment = _experiment_id(self._client, folder)
        self._parent = self._found(f"tags.`{SWEEP}` = '{_quoted(sweep)}'") or self._client.create_run(
            self._experiment, tags={SWEEP: sweep, MLFLOW_RUN_NAME: sweep}
        )

    def log(self, cell: TrackedCell) -> None:
        """One run below that of the sweep, whose metrics have the optimizer's rollouts as their step."""
        own = f"tags.`{CELL_ID}` = '{cell.tags['cell_id']}' and tags.`{MLFLOW_PARENT_RUN_ID}` = '{self._parent_id}'"
        if (earlier := self._found(own)) is not None and earlier.info.status == _status(cell):
            return
        tags = {MLFLOW_PARENT_RUN_ID: self._parent_id, MLFLOW_RUN_NAME: cell.name, CELL_ID: cell.tags["cell_id"]}
        run_id = self._client.create_run(self._experiment, tags=tags).info.run_id
        params = [Param(name, value) for name, value in cell.params.items()]
        self._client.log_batch(run_id, params=params[:MOST_PARAMS], tags=[RunTag(*tag) for tag in cell.tags.items()])
        metrics = _metrics(cell)
        for start in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(run_id, metrics=metrics[start : start + MOST_METRICS])
        for name, text in cell.files.items():
            self._client.log_text(run_id, text, name)
        self._client.set_terminated(run_id, _status(cell))

    def close(self) -> None:
        """End the run of the sweep."""
        self._client.set_terminated(self._parent_id)

    @property
    def _parent_id(self) -> str:
        run_id: str = self._parent.info.run_id
        return run_id

    def _found(self, condition: str) -> Run | None:
        runs = self._client.search_runs([self._experiment], condition, max_results=1)
        return runs[0] if runs else None


def open_tracker(sweep: str, folder: Path | None) -> MlflowTracker:
    """The tracker of a sweep by its name."""
    return MlflowTracker(sweep, folder)


def _experiment_id(client: MlflowClient, folder: Path | None) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    if (experiment := client.get_experiment_by_name(name)) is None:
        artifacts = None if folder is None else (folder.resolve() / "artifacts").as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:  # another sweep has made it since
            experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id)


def _metrics(cell: TrackedCell) -> list[Metric]:
    now = int(time.time() * 1000)
    last = cell.curve[-1].rollouts if cell.curve else 0
    curve = [Metric(name, value, now, step.rollouts) for step in cell.curve for name, value in step.metrics.items()]
    return curve + [Metric(name, value, now, last) for name, value in cell.metrics.items()]


def _status(cell: TrackedCell) -> str:
    return "FINISHED" if cell.is_ok else "FAILED"


def _quoted(text: str) -> str:
    return text.replace("'", "\\'")
