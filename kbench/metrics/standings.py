"""Several rows over several tasks: the mean rank of each, its interval, and who can be told apart.

Ranks weigh all tasks alike, whatever the size of a gain is on them (Demšar, 2006: Statistical
Comparisons of Classifiers over Multiple Data Sets). The variance of a mean rank is that of a
bootstrap which draws tasks, and apart from it seeds and examples, and adds the deviations of both.
Drawing ``T - 1`` of ``T`` tasks gives the variance ``s²/T`` of their mean, so that nothing need be
drawn for it; what seeds and examples give is that of the mean ranks of all resamples. The noise of
a task is in its ranks already and so counts twice: drawing all three in each other would count it
three times (Owen, 2007: The pigeonhole bootstrap), and drawing tasks alone would miss what they
share, as the seeds of a plug that serves all of them. The quantile is that of Student's t for
``T - 1`` degrees of freedom (Hesterberg, 2015: What Teachers Should Know About the Bootstrap, "t
with bootstrap standard error"), for percentiles of three tasks would be too near each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kbench.metrics.base import Array
from kbench.metrics.statistics import LEVEL

__all__ = ["Standing", "standings"]

_WHOLE = 1 / 12
"""Sheppard's variance of what is rounded to whole numbers, as ranks are."""
_EQUAL = 1e-12
"""A difference that is larger than a critical one by rounding alone is none."""


@dataclass(frozen=True)
class Standing:
    """How a row stands among others over all tasks.

    Attributes:
        mean_rank: over the tasks; 1 is the best, and equal rows share the mean of their ranks.
        low: lower end of its 95% interval.
        high: the upper end.
        rank: one more than the number of rows that are better beyond chance; rows that cannot be
            told apart from the first share its rank.
        behind: by how much the mean rank of the first is better.
        critical: by how much it would have to be better to be told apart from it; None of one
            task, where figures tell rows apart, and not their ranks.
    """

    mean_rank: float
    low: float
    high: float
    rank: int
    behind: float
    critical: float | None


def standings(scores: Array, replicates: Array) -> list[Standing]:
    """Returns how each row stands over tasks like these.

    One task says nothing of others: rows are told apart on it where the 95% interval of the
    difference of their figures leaves out 0.

    Args:
        scores: the figure of each row on each task, of which more is better. ``[rows, tasks]``.
        replicates: the same in every resample of examples and seeds, by the same draws for all rows
            of a task, and of seeds for all tasks. ``[rows, tasks, resamples]``.

    Raises:
        ValueError: the two are not over as many rows and tasks, or there is no task.
    """
    rows, tasks = scores.shape
    if replicates.shape[:2] != (rows, tasks) or not tasks:
        raise ValueError(f"not of the same: {scores.shape} and {replicates.shape}")
    if not rows:
        return []
    return _over(scores, replicates) if tasks > 1 else _alone(scores[:, 0], replicates[:, 0])


def _over(scores: Array, replicates: Array) -> list[Standing]:
    from scipy.special import stdtrit  # scipy.stats takes long to import

    rows, tasks = scores.shape
    seen = _ranks(scores)
    means = seen.mean(axis=1)
    of_tasks = np.cov(seen).reshape(rows, rows) + np.eye(rows) * _WHOLE
    spread = of_tasks / tasks + np.cov(_ranks(replicates).mean(axis=1)).reshape(rows, rows)
    factor = float(stdtrit(tasks - 1, 1 - LEVEL / 2))
    own = np.diag(spread)
    critical = factor * np.sqrt(np.maximum(own[:, None] + own - 2 * spread, 0.0))
    behind = means - means[:, None]  # [the better, the other]
    beaten = (behind > critical + _EQUAL).sum(axis=0)
    half = factor * np.sqrt(own)
    first = int(means.argmin())
    return [
        Standing(
            float(means[at]),
            float(max(1.0, means[at] - half[at])),
            float(min(rows, means[at] + half[at])),
            1 + int(beaten[at]),
            float(behind[first, at]),
            float(critical[first, at]),
        )
        for at in range(rows)
    ]


def _alone(scores: Array, replicates: Array) -> list[Standing]:
    """The same of one figure each: ``[rows]`` and ``[rows, resamples]``."""
    means = _ranks(scores)
    ends = np.quantile(_ranks(replicates), [LEVEL / 2, 1 - LEVEL / 2], axis=1)
    lows = [np.quantile(replicates - own, LEVEL / 2, axis=1) for own in replicates]
    return [
        Standing(
            float(means[at]),
            float(min(ends[0, at], means[at])),
            float(max(ends[1, at], means[at])),
            1 + int((lows[at] > _EQUAL).sum()),
            float(means[at] - means.min()),
            None,
        )
        for at in range(len(scores))
    ]


def _ranks(values: Array) -> Array:
    """Ranks among the rows, from 1 for the largest; of equal ones the mean. As ``values``."""
    better = [(values > own).sum(axis=0) for own in values]
    equal = [(values == own).sum(axis=0) - 1 for own in values]
    return 1 + np.array(better) + np.array(equal) / 2
