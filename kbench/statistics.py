"""Intervals and paired differences by resampling examples.

A bootstrap replicate draws examples with replacement, which is to weight their statistics by
multinomial counts; so all replicates of any metric are one matrix product and one call of the
metric's function of sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kbench.metrics import Array, Metric

__all__ = ["Interval", "difference", "interval"]

RESAMPLES = 2000
_CHUNK = 1 << 22
"""Counts held at a time, to bound memory."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% percentile bootstrap interval over ``n`` examples."""

    value: float
    low: float
    high: float
    n: int


def interval(metric: Metric, statistics: Array, seed: int = 0) -> Interval:
    """Returns a score with its interval.

    Args:
        metric: gives the score of sums.
        statistics: ``[examples, k]``.
        seed: of the resampling.
    """
    value = float(metric.value(statistics.sum(axis=0)))
    if not len(statistics):
        return Interval(value, value, value, 0)
    replicates = metric.value(_resampled(statistics, seed))
    low, high = np.quantile(replicates, [0.025, 0.975])
    return Interval(value, float(low), float(high), len(statistics))


def difference(metric: Metric, ours: Array, theirs: Array, seed: int = 0) -> Interval:
    """Returns ``score(ours) - score(theirs)``, paired: both are resampled by the same draws.

    Args:
        metric: gives the score of sums.
        ours: ``[examples, k]``.
        theirs: the same examples in the same order.
        seed: of the resampling.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"not paired: {ours.shape} against {theirs.shape}")
    width = ours.shape[1]
    value = float(metric.value(ours.sum(axis=0)) - metric.value(theirs.sum(axis=0)))
    if not len(ours):
        return Interval(value, value, value, 0)
    sums = _resampled(np.concatenate([ours, theirs], axis=1), seed)
    replicates = metric.value(sums[:, :width]) - metric.value(sums[:, width:])
    low, high = np.quantile(replicates, [0.025, 0.975])
    return Interval(value, float(low), float(high), len(ours))


def _resampled(statistics: Array, seed: int) -> Array:
    """Returns the sums of statistics of each replicate. ``[resamples, k]``."""
    rng = np.random.default_rng(seed)
    n = len(statistics)
    rows = max(1, _CHUNK // n)
    sums: list[NDArray[np.float64]] = []
    for start in range(0, RESAMPLES, rows):
        drawn = rng.integers(0, n, size=(min(rows, RESAMPLES - start), n))
        drawn += np.arange(len(drawn))[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=len(drawn) * n).reshape(len(drawn), n)
        sums.append(counts @ statistics)
    return np.concatenate(sums)
