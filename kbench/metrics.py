"""Metrics, each as statistics per example and one function of their sums.

Written so, the score, its bootstrap (weights times statistics), paired tests, buckets and
re-scoring are all the same two calls. Scores are exact fractions in [0, 1]; nothing is rounded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast, final

import numpy as np
from numpy.typing import NDArray

from kbench.data import Label

__all__ = ["Accuracy", "LooseMacroF1", "LooseMicroF1", "Metric", "StrictAccuracy"]

Array = NDArray[np.float64]


class Metric(ABC):
    """A score of predictions against labels.

    Attributes:
        name: key in a result, such as ``micro_f1``.
        variant: names the exact definition; results of two variants are never compared.
    """

    name: str
    variant: str

    @abstractmethod
    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        """Returns the sufficient statistics of each example. ``[examples, k]``."""

    @abstractmethod
    def value(self, sums: Array) -> Array:
        """Returns the score for sums of statistics. ``[..., k] -> [...]``."""

    def score(self, labels: Sequence[Label], predictions: Sequence[Label]) -> float:
        """Returns the score of a list of predictions; 0 for an empty list."""
        return float(self.value(self.statistics(labels, predictions).sum(axis=0)))


@final
class Accuracy(Metric):
    """Share of examples with the right class: ``correct / total``.

    For single-label tasks the "micro-F1" of the map-tuning release is this very number, since
    every error is one false positive and one false negative.
    """

    name = "accuracy"
    variant = "accuracy"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        return _hits(labels, predictions)

    def value(self, sums: Array) -> Array:
        return _ratio(sums[..., 0], sums[..., 1])


@final
class StrictAccuracy(Metric):
    """Share of examples whose predicted set of types equals the gold set (Ling and Weld, 2012)."""

    name = "strict"
    variant = "strict-set-accuracy"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        return _hits([set(g) for g in labels], [set(p) for p in predictions])

    def value(self, sums: Array) -> Array:
        return _ratio(sums[..., 0], sums[..., 1])


@final
class LooseMicroF1(Metric):
    """Micro-F1 over label sets, as ERNIE and K-Adapter score OpenEntity.

    ``P = sum |P_i & G_i| / sum |P_i|``, ``R = sum |P_i & G_i| / sum |G_i|``, ``F = 2PR / (P + R)``;
    0 where nothing is right.
    """

    name = "micro_f1"
    variant = "loose-micro-f1"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        shared, predicted, gold = _overlaps(labels, predictions)
        return np.stack([shared, predicted, gold], axis=1)

    def value(self, sums: Array) -> Array:
        # 2PR / (P + R) with P = s/p and R = s/g is 2s / (p + g).
        return _ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


@final
class LooseMacroF1(Metric):
    """F1 of the mean precision and mean recall over examples (Ling and Weld, 2012).

    The mean precision counts an empty prediction as 0, and it is the F of the means, not the
    mean of the Fs.
    """

    name = "macro_f1"
    variant = "loose-macro-f1"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        shared, predicted, gold = _overlaps(labels, predictions)
        return np.stack([_ratio(shared, predicted), _ratio(shared, gold), np.ones_like(gold)], 1)

    def value(self, sums: Array) -> Array:
        precision = _ratio(sums[..., 0], sums[..., 2])
        recall = _ratio(sums[..., 1], sums[..., 2])
        return _ratio(2 * precision * recall, precision + recall)


def _hits(labels: Sequence[Any], predictions: Sequence[Any]) -> Array:
    hits = [float(gold == guess) for gold, guess in zip(labels, predictions, strict=True)]
    return np.stack([np.array(hits), np.ones(len(hits))], axis=1)


def _overlaps(labels: Sequence[Label], predictions: Sequence[Label]) -> tuple[Array, Array, Array]:
    pairs = [(set(g), set(p)) for g, p in zip(labels, predictions, strict=True)]
    shared = np.array([len(g & p) for g, p in pairs], dtype=np.float64)
    predicted = np.array([len(p) for _, p in pairs], dtype=np.float64)
    gold = np.array([len(g) for g, _ in pairs], dtype=np.float64)
    return shared, predicted, gold


def _ratio(part: Array, whole: Array) -> Array:
    safe = np.where(whole > 0, whole, 1.0)
    return cast("Array", np.where(whole > 0, part / safe, 0.0))
