"""Does a model answer with the false value that was put into its knowledge?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from kbench.data import Answers, Label, Predictions
from kbench.metrics.base import Array, Metric, ratio

__all__ = ["FollowRate"]


@final
class FollowRate(Metric):
    """Share of examples answered with the injected false value, of those where one is known.

    Of runs with the control ``value-swapped`` alone. An answer follows a value where it would be
    right if the value were: by any of its names, as the task's main metric has it.

    Args:
        main: that metric.
    """

    name = "follow_rate"
    prefix: ClassVar[str] = "follow-rate:"

    def __init__(self, main: Metric) -> None:
        self._main = main
        self.variant = f"{self.prefix}{main.variant}"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        """Returns followed, and one, of each example. ``[examples, 2]``.

        Args:
            labels: the false values, by all their names.
            predictions: of a model.
        """
        rows = [
            (self._main.right(false, guess), 1)
            for false, guess in zip(labels, predictions, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 2)

    def value(self, sums: Array) -> Array:
        return ratio(sums[..., 0], sums[..., 1])

    def measure(self, answers: Answers) -> Array:
        """Returns the statistics of the examples with a known false value. ``[counted, 2]``."""
        injected = answers.injected if isinstance(answers, Predictions) else ()
        known = [at for at, false in enumerate(injected) if false]
        return self.statistics(
            [injected[at] for at in known], [answers.predictions[at] for at in known]
        )
