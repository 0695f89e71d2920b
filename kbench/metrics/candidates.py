"""Metrics of runs in which a model chose among candidates by their scores.

They are functions of what is stored of the candidates (:class:`kbench.data.Likelihoods`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from kbench.data import Answers, Label
from kbench.metrics.base import Array, Metric

__all__ = ["AveragePrecision", "ByScorer"]


@final
class ByScorer(Metric):
    """Another metric, of what is predicted where a given scorer compares the candidates.

    Args:
        metric: the other one.
        scorer: the scorer.
    """

    by: ClassVar[str] = ":by-"

    def __init__(self, metric: Metric, scorer: str) -> None:
        self.metric = metric
        self.scorer = scorer
        self.name = f"{metric.name}_by_{scorer}"
        self.variant = f"{metric.variant}{self.by}{scorer}"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        return self.metric.statistics(labels, predictions)

    def value(self, sums: Array) -> Array:
        return self.metric.value(sums)

    def measure(self, answers: Answers) -> Array:
        """Returns the other one's, of answers by the scorer.

        Raises:
            UsageError: the answers are of no candidates.
        """
        return self.metric.measure(answers.by(self.scorer))


@final
class AveragePrecision(Metric):
    """Micro average precision: how well the scores of all labels of all examples are ranked.

    At each right label the share of right ones among those scored as high or higher, and of that
    the mean over all right labels (``average_precision_score(average="micro")`` of scikit-learn).
    There is no threshold, so it tells ranking apart from calibration. A label that no candidate
    spells counts as ranked behind all, with precision 0.

    Its interval and its tests take the precision at each label, which hangs on the other examples
    too, as given.
    """

    name = "average_precision"
    variant = "micro-average-precision"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        """There are none without scores.

        Raises:
            TypeError: always.
        """
        raise TypeError("average precision is of scores, not of predictions; call `measure`")

    def value(self, sums: Array) -> Array:
        right: Array = np.maximum(sums[..., 1], 1.0)
        return sums[..., 0] / right

    def measure(self, answers: Answers) -> Array:
        """Returns the sum of precisions and the labels of each example. ``[examples, 2]``.

        Raises:
            TypeError: the answers have no scores.
        """
        found = answers.likelihoods
        if found is None:
            raise TypeError("average precision is of scores of candidates; these answers have none")
        number = {name: at for at, name in enumerate(found.names)}
        right = np.zeros(found.said.shape, dtype=bool)
        for row, label in enumerate(answers.labels):
            right[row, [number[name] for name in label if name in number]] = True
        precisions = np.where(right, _precisions(found.scores, right), 0.0).sum(1)
        return np.stack([precisions, [float(len(label)) for label in answers.labels]], axis=1)


def _precisions(scores: Array, right: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Array:
    """At each score the share of right ones among those as high or higher. Of their shape."""
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")
    ranked = flat[order]
    hits = np.cumsum(right.ravel()[order])
    # Those that are level are ranked together.
    last = np.searchsorted(-ranked, -ranked, side="right") - 1
    found = np.empty(len(flat))
    found[order] = hits[last] / (last + 1)
    return found.reshape(scores.shape)
