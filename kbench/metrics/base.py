"""Metrics, each as statistics per example and one function of their sums.

Written so, the score, its bootstrap (weights times statistics), paired tests, buckets and
re-scoring are all the same two calls. Scores are exact fractions in [0, 1]; nothing is rounded.

A ``variant`` names an exact definition. What a metric is told, such as its null label, stands
behind a colon: ``micro-f1-without-null:no_relation``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, cast, final

import numpy as np
from numpy.typing import NDArray

from kbench.data import Answers, Label, is_right
from kbench.errors import KbenchError

__all__ = [
    "Accuracy",
    "LooseMacroF1",
    "LooseMicroF1",
    "MacroF1",
    "Metric",
    "MicroF1WithoutNull",
    "StrictAccuracy",
    "check_dense",
]

_DENSE = 1 << 27
"""Numbers of the statistics of a metric over classes, which has some for each class and example."""
Array = NDArray[np.float64]
"""Statistics of examples, one a row, or scores made of their sums."""


class Metric(ABC):
    """A score of predictions against labels.

    Attributes:
        name: key in a result, such as ``micro_f1``.
        variant: names the exact definition; results of two variants are never compared.
        by_relation: whether it reads the relation of each example, which is then stored.
    """

    name: str
    variant: str
    by_relation: ClassVar[bool] = False

    @abstractmethod
    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        """Returns the sufficient statistics of each example. ``[examples, k]``."""

    def right(self, label: Label, prediction: Label) -> bool:
        """Returns whether a prediction is wholly right, where examples are told apart by that."""
        return is_right(label, prediction)

    @abstractmethod
    def value(self, sums: Array) -> Array:
        """Returns the score for sums of statistics. ``[..., k] -> [...]``."""

    def measure(self, answers: Answers) -> Array:
        """Returns the statistics of the examples that count for the metric. ``[counted, k]``.

        As it stands all count.
        """
        return self.statistics(answers.labels, answers.predictions)

    def score_of(self, answers: Answers) -> float:
        """Returns the score of the examples that count for the metric; 0 if none does."""
        return float(self.value(self.measure(answers).sum(axis=0)))

    def score(self, labels: Sequence[Label], predictions: Sequence[Label]) -> float:
        """Returns the score of a list of predictions, all that count; 0 for an empty list."""
        return float(self.value(self.statistics(labels, predictions).sum(axis=0)))


@final
class Accuracy(Metric):
    """Share of examples with the right class: ``correct / total``.

    For single-label tasks the "micro-F1" of the map-tuning release, and that of ERNIE and E-BERT
    on FewRel, are this very number, since every error is one false positive and one false
    negative.

    Args:
        any_answer: whether the label of an example is a set of acceptable answers, of which any
            is right. The formula is the same; the variant says so.
    """

    name = "accuracy"

    def __init__(self, any_answer: bool = False) -> None:
        self.variant = f"accuracy{':any-answer' if any_answer else ''}"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        """Returns right, and one, of each example. ``[examples, 2]``."""
        return _hits(labels, predictions)

    def value(self, sums: Array) -> Array:
        return ratio(sums[..., 0], sums[..., 1])


@final
class MicroF1WithoutNull(Metric):
    """Micro-F1 over all classes but the null one: the score of TACRED (Zhang et al., 2017).

    ``P = #(right and not null) / #(predicted not null)``, ``R = #(right and not null) /
    #(gold not null)``, ``F = 2PR / (P + R)``. A wrong relation for another one costs both. As in
    the official scorer P is 1 where nothing but null is predicted, and F is 0 all the same;
    ERNIE's scorer has P = 0 there. ERNIE and E-BERT call the null label ``NA``: a metric that is
    told another name than the data use scores it as a relation.

    Args:
        null: the label that says that no relation holds.
    """

    name = "micro_f1"

    def __init__(self, null: str = "no_relation") -> None:
        self.null = null
        self.variant = f"micro-f1-without-null:{null}"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        """Returns whether it is right and not null, predicted so, and gold. ``[examples, 3]``."""
        rows = [
            (gold == guess != self.null, guess != self.null, gold != self.null)
            for gold, guess in zip(labels, predictions, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 3)

    def precision(self, sums: Array) -> Array:
        """Returns P for sums of statistics. ``[..., 3] -> [...]``."""
        return np.where(sums[..., 1] > 0, ratio(sums[..., 0], sums[..., 1]), 1.0)

    def recall(self, sums: Array) -> Array:
        """Returns R for sums of statistics. ``[..., 3] -> [...]``."""
        return ratio(sums[..., 0], sums[..., 2])

    def value(self, sums: Array) -> Array:
        return _harmonic(self.precision(sums), self.recall(sums))


@final
class MacroF1(Metric):
    """Mean over the classes of the F1 of each: the "F1" of ERNIE and E-BERT on FewRel in 80 ways.

    It is the mean over the classes that have a gold example, as in E-BERT's scorer: a class that
    is predicted and never gold has no F1 of its own, it costs the others recall. Where every
    class has a gold example this is ``f1_score(average="macro")`` of scikit-learn. Not to be
    confused with the F of means over examples, :class:`LooseMacroF1`.
    """

    name = "macro_f1"
    variant = "macro-f1-over-classes"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        """Returns right, predicted and gold of each gold class. ``[examples, classes * 3]``.

        The columns hang on the labels alone, so that two runs on the same data can be paired.
        """
        column = {name: number for number, name in enumerate(dict.fromkeys(labels))}
        check_dense(len(labels), len(column), 3)
        counts = np.zeros((len(labels), len(column), 3))
        for row, (gold, guess) in enumerate(zip(labels, predictions, strict=True)):
            counts[row, column[gold], 2] = 1
            if guess in column:
                counts[row, column[guess], :2] = gold == guess, 1
        return counts.reshape(len(labels), 3 * len(column))

    def value(self, sums: Array) -> Array:
        classes = sums.reshape(*sums.shape[:-1], sums.shape[-1] // 3, 3)
        scores = ratio(2 * classes[..., 0], classes[..., 1] + classes[..., 2])
        present = classes[..., 2] > 0
        return ratio((scores * present).sum(-1), present.sum(-1))


class _SetMetric(Metric):
    """A score of sets of labels.

    Args:
        fallback: whether an example got its best label where none was above the threshold, see
            :class:`~kbench.model.heads.TypingHead`. The formula is the same; the variant says so.
    """

    def __init__(self, fallback: bool = False) -> None:
        if fallback:
            self.variant = f"{self.variant}:argmax-fallback"


@final
class StrictAccuracy(_SetMetric):
    """Share of examples whose predicted set of types equals the gold set (Ling and Weld, 2012).

    ERNIE calls it the accuracy of FIGER.
    """

    name = "strict"
    variant = "strict-set-accuracy"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        return _hits([tuple(g) for g in labels], [tuple(p) for p in predictions])

    def value(self, sums: Array) -> Array:
        return ratio(sums[..., 0], sums[..., 1])


@final
class LooseMicroF1(_SetMetric):
    """Micro-F1 over label sets, as ERNIE, K-Adapter and LUKE score OpenEntity.

    ``P = sum |P_i & G_i| / sum |P_i|``, ``R = sum |P_i & G_i| / sum |G_i|``, ``F = 2PR / (P + R)``;
    0 where nothing is right. The multi-label "micro-F1" of the map-tuning release on Wiki-ET is
    the same, of predictions with ``fallback``.
    """

    name = "micro_f1"
    variant = "loose-micro-f1"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        shared, predicted, gold = _overlaps(labels, predictions)
        return np.stack([shared, predicted, gold], axis=1)

    def value(self, sums: Array) -> Array:
        # 2PR / (P + R) with P = s/p and R = s/g is 2s / (p + g).
        return ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


@final
class LooseMacroF1(_SetMetric):
    """F1 of the mean precision and mean recall over examples (Ling and Weld, 2012).

    The mean precision counts an empty prediction as 0, and it is the F of the means, not the
    mean of the Fs.
    """

    name = "macro_f1"
    variant = "loose-macro-f1"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        shared, predicted, gold = _overlaps(labels, predictions)
        return np.stack([ratio(shared, predicted), ratio(shared, gold), np.ones_like(gold)], 1)

    def value(self, sums: Array) -> Array:
        precision = ratio(sums[..., 0], sums[..., 2])
        recall = ratio(sums[..., 1], sums[..., 2])
        return _harmonic(precision, recall)


def _hits(labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
    hits = [float(is_right(gold, guess)) for gold, guess in zip(labels, predictions, strict=True)]
    return np.stack([np.array(hits), np.ones(len(hits))], axis=1)


def _overlaps(labels: Sequence[Label], predictions: Sequence[Label]) -> tuple[Array, Array, Array]:
    sizes = [_overlap(tuple(g), tuple(p)) for g, p in zip(labels, predictions, strict=True)]
    shared, predicted, gold = np.array(sizes, dtype=np.float64).reshape(len(sizes), 3).T
    return shared, predicted, gold


@lru_cache(maxsize=1 << 14)
def _overlap(labels: Label, predictions: Label) -> tuple[int, int, int]:
    """How many labels both have, the prediction, and the example: few pairs are often met."""
    own, guessed = {*labels}, {*predictions}
    return len(own & guessed), len(guessed), len(own)


def check_dense(examples: int, columns: int, each: int) -> None:
    """Refuses a table of statistics that no machine should be asked to hold.

    Args:
        examples: its rows.
        columns: classes or strata, each of which has numbers of its own in every row.
        each: how many.

    Raises:
        KbenchError: it would take more than a gigabyte.
    """
    if examples * columns * each > _DENSE:
        problem = f"{examples:,} examples of {columns:,} classes or strata"
        raise KbenchError(
            f"{problem} would take {8 * examples * columns * each / 1e9:.0f} GB to score; expected "
            f"fewer of either, {_DENSE:,} numbers in all at most"
        )


def _harmonic(precision: Array, recall: Array) -> Array:
    return ratio(2 * precision * recall, precision + recall)


def ratio(part: Array, whole: Array) -> Array:
    safe = np.where(whole > 0, whole, 1.0)
    return cast("Array", np.where(whole > 0, part / safe, 0.0))
