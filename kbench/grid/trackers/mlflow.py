"""MLflow: a run for each run, in the experiment ``kbench`` of wherever MLflow keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kbench.grid.plan import Cell
from kbench.grid.tracker import Tracker, record_of
from kbench.store import Result, Status

__all__ = ["MLflow"]

_EXPERIMENT = "kbench"
_LONGEST = 6000  # characters of a parameter that MLflow takes


class MLflow(Tracker):
    """Parameters, metrics, curves and ``result.json``; where, MLFLOW_TRACKING_URI says."""

    def __init__(self) -> None:
        import mlflow
        from mlflow.entities import Metric, Param

        self._client = mlflow.MlflowClient()
        self._metric, self._parameter = Metric, Param
        self._experiment = ""

    def grid(self, cells: Sequence[Cell], out: Path) -> None:
        self._out = out
        known = self._client.get_experiment_by_name(_EXPERIMENT)
        made = known.experiment_id if known else self._client.create_experiment(_EXPERIMENT)
        self._experiment = made

    def result(self, result: Result) -> None:
        record = record_of(result)
        run = self._client.create_run(self._experiment, run_name=record.name).info
        now = run.start_time
        figures = [self._metric(name, value, now, 0) for name, value in record.metrics.items()]
        figures += [
            self._metric(name, value, now, epoch)
            for name, values in record.curves.items()
            for epoch, value in enumerate(values, 1)
        ]
        chosen = [self._parameter(name, v[:_LONGEST]) for name, v in record.parameters.items()]
        self._client.log_batch(run.run_id, metrics=figures, params=chosen)
        path = self._out / result.id / "result.json"
        if path.is_file():
            self._client.log_artifact(run.run_id, str(path))
        failed = result.status == Status.FAILED
        self._client.set_terminated(run.run_id, "FAILED" if failed else "FINISHED")
