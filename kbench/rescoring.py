"""Scores made again from the predictions of a run: without its data, model or knowledge."""

from __future__ import annotations

from typing import cast

from kbench import registry
from kbench.buckets import estimate
from kbench.catalogue import Kind
from kbench.comparison import metrics_of
from kbench.result import Predictions, Result, Score
from kbench.strata import measured
from kbench.task import Task

__all__ = ["rescored", "task_of"]


def task_of(result: Result) -> type[Task]:
    """Returns the task of a result.

    Raises:
        UsageError: no installed distribution offers it.
    """
    return cast("type[Task]", registry.get(Kind.TASKS, result.spec.task))


def rescored(result: Result, predictions: Predictions) -> dict[str, Score]:
    """Returns the metrics of a result, from what it predicted; those that its task still has.

    Raises:
        UsageError: the task is not installed.
    """
    return {
        metric.name: estimate(
            metric,
            measured(metric, predictions.labels, predictions.predictions, predictions.strata),
        )
        for metric in metrics_of(result)
    }
