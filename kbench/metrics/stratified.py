"""Metrics that tell examples apart by their stratum: over one of them, or the mean of all.

A stratum is part of a metric's definition (a relation of LAMA, a form of episodes). Buckets are
another thing: they part any metric's score by what the knowledge base has of an example's entity
(:mod:`kbench.pipeline.buckets`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import final

import numpy as np

from kbench.data import Answers, Label
from kbench.metrics.base import Accuracy, Array, Metric, check_dense

__all__ = ["LamaPrecision", "Stratified", "Within"]


class Stratified(Metric):
    """A metric that reads the stratum of each example."""

    @abstractmethod
    def among(
        self, labels: Sequence[Label], predictions: Sequence[Label], strata: Sequence[str]
    ) -> Array:
        """Returns the sufficient statistics of each example that counts. ``[counted, k]``."""

    def measure(self, answers: Answers) -> Array:
        return self.among(answers.labels, answers.predictions, answers.strata)

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        """Returns those of examples that are all of one stratum. ``[examples, k]``."""
        return self.among(labels, predictions, [""] * len(labels))


@final
class LamaPrecision(Stratified):
    """P@1 of each relation, then the mean over relations, each counted once: LAMA's P@1.

    Petroni et al. 2019: a query is right where its object is the best of the vocabulary, which is
    the head's affair (:class:`~kbench.model.heads.VocabularyHead`). An example's stratum is its
    relation. Relations of few queries weigh as much as those of many; :class:`Accuracy` beside it
    is over queries. As in the release a query is right by its own object alone, the first of its
    label, though the data may know other objects of the same fact; :class:`Accuracy` takes any.

    Args:
        of_objects: whether the vocabulary is made of the data's own objects, which makes the
            task easier; the variant says so.
    """

    name = "p1"

    def __init__(self, of_objects: bool = False) -> None:
        self.variant = "lama-p1:objects" if of_objects else "lama-p1"

    def among(
        self, labels: Sequence[Label], predictions: Sequence[Label], strata: Sequence[str]
    ) -> Array:
        """Returns right and all of each relation. ``[examples, relations * 2]``."""
        column = {name: number for number, name in enumerate(dict.fromkeys(strata))}
        check_dense(len(labels), len(column), 2)
        counts = np.zeros((len(labels), len(column), 2))
        chosen = [column[stratum] for stratum in strata]
        own = [label if isinstance(label, str) else label[0] for label in labels]
        counts[np.arange(len(labels)), chosen] = Accuracy().statistics(own, predictions)
        return counts.reshape(len(labels), 2 * len(column))

    def value(self, sums: Array) -> Array:
        relations = sums.reshape(*sums.shape[:-1], sums.shape[-1] // 2, 2)
        # A resample may have no query of a relation: its mean is over the others.
        asked = (relations[..., 1] > 0).sum(-1)
        mean: Array = Accuracy().value(relations).sum(-1) / np.maximum(asked, 1)
        return mean


@final
class Within(Stratified):
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

    def among(
        self, labels: Sequence[Label], predictions: Sequence[Label], strata: Sequence[str]
    ) -> Array:
        counted = [at for at, stratum in enumerate(strata) if stratum == self.stratum]
        return self.statistics([labels[at] for at in counted], [predictions[at] for at in counted])

    def value(self, sums: Array) -> Array:
        return self._metric.value(sums)
