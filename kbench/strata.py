"""Metrics over a part of the examples: those of one stratum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from kbench.data import Label
from kbench.metrics import Array, Metric

__all__ = ["Within", "measured", "scored"]


@final
class Within(Metric):
    """A metric over the examples of one stratum, such as the episodes of one form.

    Args:
        stratum: :attr:`kbench.data.Example.stratum` of those that count.
        metric: what is measured of them.
    """

    def __init__(self, stratum: str, metric: Metric) -> None:
        self.stratum = stratum
        self.name = f"{metric.name}_{stratum}"
        self.variant = f"{metric.variant}@{stratum}"
        self._metric = metric

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        return self._metric.statistics(labels, predictions)

    def value(self, sums: Array) -> Array:
        return self._metric.value(sums)


def measured(
    metric: Metric, labels: Sequence[Label], predictions: Sequence[Label], strata: Sequence[str]
) -> Array:
    """Returns the statistics of the examples that count for a metric. ``[counted, k]``."""
    if not isinstance(metric, Within):
        return metric.statistics(labels, predictions)
    counted = [at for at, stratum in enumerate(strata) if stratum == metric.stratum]
    return metric.statistics([labels[at] for at in counted], [predictions[at] for at in counted])


def scored(
    metric: Metric, labels: Sequence[Label], predictions: Sequence[Label], strata: Sequence[str]
) -> float:
    """Returns the score of the examples that count for a metric; 0 if none does."""
    return float(metric.value(measured(metric, labels, predictions, strata).sum(axis=0)))
