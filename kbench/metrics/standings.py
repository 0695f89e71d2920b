"""Several rows over several tasks: the average of each, its interval, and who can be told apart.

A row's figure is its average over the tasks, for points are points on each: a mean rank would lose
by how much, and would hang on who else takes part. Its variance is that of a bootstrap which draws
tasks, and apart from it seeds and examples, and adds the deviations of both. Drawing ``T - 1`` of
``T`` tasks gives the variance ``s²/T`` of their mean, so that nothing need be drawn for it; what
seeds and examples give is read off the replicates. The noise of a task is in its figure already and
so counts twice: drawing all three in each other would count it three times (Owen, 2007: The
pigeonhole bootstrap), and drawing tasks alone would miss what they share, as the seeds of a plug
that serves all of them. With the quantile of Student's t for ``T - 1`` degrees of freedom
(Hesterberg, 2015: What Teachers Should Know About the Bootstrap, "t with bootstrap standard error")
intervals over three tasks are not too short either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kbench.metrics.base import Array
from kbench.metrics.statistics import LEVEL

__all__ = ["Standing", "standings"]

_EQUAL = 1e-12
"""A difference that is larger than a critical one by rounding alone is none."""


@dataclass(frozen=True)
class Standing:
    """How a row stands among others over all tasks.

    Attributes:
        average: of its figure over the tasks.
        low: lower end of its 95% interval.
        high: the upper end.
        rank: one more than the number of rows that are better beyond chance; rows that cannot be
            told apart from the first share its rank.
        behind: by how much the first is better.
        critical: how much better the first would have to be to be told apart from it.
    """

    average: float
    low: float
    high: float
    rank: int
    behind: float
    critical: float


def standings(scores: Array, replicates: Array, *, others: bool = True) -> list[Standing]:
    """Returns how each row stands.

    Args:
        scores: the figure of each row on each task. ``[rows, tasks]``.
        replicates: the same in every resample of examples and seeds, by the same draws for all rows
            of a task, and of seeds for all tasks. ``[rows, tasks, resamples]``.
        others: whether it is to hold of other tasks like these: then tasks are drawn too. One task
            says nothing of others, and is looked at alone.

    Raises:
        ValueError: the two are not over as many rows and tasks, or there is no task.
    """
    from scipy.special import ndtri, stdtrit  # scipy.stats takes long to import

    rows, tasks = scores.shape
    if replicates.shape[:2] != (rows, tasks) or not tasks:
        raise ValueError(f"not of the same: {scores.shape} and {replicates.shape}")
    if not rows:
        return []
    averages = scores.mean(axis=1)
    spread = np.cov(replicates.mean(axis=1)).reshape(rows, rows)
    level = 1 - LEVEL / 2
    factor = float(ndtri(level))
    if others and tasks > 1:
        spread = spread + np.cov(scores).reshape(rows, rows) / tasks
        factor = float(stdtrit(tasks - 1, level))
    own = np.diag(spread)
    critical = factor * np.sqrt(np.maximum(own[:, None] + own - 2 * spread, 0.0))
    better = averages[:, None] - averages  # [the better, the other]
    beaten = (better > critical + _EQUAL).sum(axis=0)
    half = factor * np.sqrt(own)
    first = int(averages.argmax())
    return [
        Standing(
            float(averages[at]),
            float(averages[at] - half[at]),
            float(averages[at] + half[at]),
            1 + int(beaten[at]),
            float(better[first, at]),
            float(critical[first, at]),
        )
        for at in range(rows)
    ]
