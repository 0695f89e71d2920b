"""The metrics that a run has beside those of its task, by what is stored of its predictions.

They are no part of a task, and so of no address.
"""

from __future__ import annotations

from collections.abc import Sequence

from kbench.data import Answers, Predictions
from kbench.metrics.base import Metric
from kbench.metrics.candidates import AveragePrecision, ByScorer
from kbench.metrics.follow import FollowRate

__all__ = ["beside", "beside_named", "is_beside"]

_PLAIN = "sum"
"""The scorer that normalises nothing: what any other one did is seen beside it."""


def beside(metrics: Sequence[Metric], answers: Answers) -> list[Metric]:
    """Returns the metrics that answers have beside those of their task.

    Where a model chose among candidates, the main one by ``sum``, if another scorer chose; and
    average precision, if an example has several labels. With swapped values, the follow rate.

    Args:
        metrics: of the task, the main one first.
        answers: what was predicted.
    """
    found: list[Metric] = []
    if answers.likelihoods is not None:
        if answers.likelihoods.scorer != _PLAIN:
            found.append(ByScorer(metrics[0], _PLAIN))
        if answers.likelihoods.thresholds:
            found.append(AveragePrecision())
    if isinstance(answers, Predictions) and any(answers.injected):
        found.append(FollowRate(metrics[0]))
    return found


def beside_named(variant: str, metrics: Sequence[Metric]) -> Metric | None:
    """Returns one of :func:`beside` by its variant; None if it is none.

    Args:
        variant: of the metric.
        metrics: of the task.
    """
    if variant == AveragePrecision.variant:
        return AveragePrecision()
    own = {metric.variant: metric for metric in metrics}
    if variant.startswith(FollowRate.prefix):
        main = own.get(variant.removeprefix(FollowRate.prefix))
        return main and FollowRate(main)
    base, _, scorer = variant.rpartition(ByScorer.by)
    return ByScorer(own[base], scorer) if base in own else None


def is_beside(variant: str) -> bool:
    """Returns whether a variant is one of :func:`beside`, and so of no task."""
    return (
        variant == AveragePrecision.variant
        or variant.startswith(FollowRate.prefix)
        or ByScorer.by in variant
    )
