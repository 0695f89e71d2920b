"""Scores of a part of the test examples: by what the knowledge base has of their entity.

A gain should come from examples whose entity is known, and a method may help with rare entities
or only with those that the model knew anyway. So every result with knowledge has the main metric
by coverage (is the entity known?) and by popularity (in how many facts is it?), each with its
number of examples and its interval. A bucket is no stratum, which is part of a metric's definition
(:mod:`kbench.metrics.stratified`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kbench.data import Example, Role
from kbench.errors import KbenchError
from kbench.knowledge import KnowledgeBase, Links
from kbench.metrics import Array, Metric
from kbench.metrics.statistics import interval
from kbench.store import Predictions, Score

__all__ = ["Popularity", "by_context", "by_entity", "degrees", "estimate"]

_TAIL, _HEAD = 0.5, 0.9
"""Quantiles of the entities' numbers of facts: the tail ends at the one, the head begins there."""


@dataclass(frozen=True)
class Popularity:
    """From how many facts on an entity is of the torso, and of the head; below it is of the tail.

    Of the entities that are in any fact the tail is the half that are in the fewest, and whatever
    is in as few; the head is the tenth that are in the most.
    """

    torso: int
    head: int

    @classmethod
    def of(cls, knowledge: KnowledgeBase) -> Popularity:
        """Finds the bounds of a knowledge base."""
        known = knowledge.degrees[knowledge.degrees > 0]
        if not len(known):
            return cls(1, 1)
        tail, head = np.quantile(known, [_TAIL, _HEAD], method="higher")
        return cls(int(tail) + 1, max(int(tail) + 1, int(head)))

    def name(self, degree: int) -> str:
        """Returns ``head``, ``torso`` or ``tail``."""
        return "head" if degree >= self.head else "torso" if degree >= self.torso else "tail"


def degrees(
    examples: Sequence[Example], links: Links, knowledge: KnowledgeBase | None
) -> list[int]:
    """Returns in how many facts the entity of each example is; -1 where it has none.

    It is the first linked mention that the task marks, else the first linked one.
    """
    if knowledge is None:
        return [-1] * len(examples)
    counts = []
    for example, rows in zip(examples, links.rows, strict=True):
        roles = [mention.role for mention in example.mentions]
        roles += [Role.CONTEXT] * (len(rows) - len(roles))  # mentions that a linker added
        order = sorted(range(len(rows)), key=lambda at: roles[at] == Role.CONTEXT)
        row = next((rows[at] for at in order if rows[at] >= 0), -1)
        counts.append(int(knowledge.degrees[row]) if row >= 0 else -1)
    return counts


def by_entity(
    metric: Metric, predictions: Predictions, popularity: Popularity
) -> dict[str, dict[str, Score]]:
    """Returns the scores by coverage and by popularity of the examples' entities."""
    known = ["unknown" if degree < 0 else "known" for degree in predictions.degrees]
    popular = ["" if degree < 0 else popularity.name(degree) for degree in predictions.degrees]
    return {
        "coverage": _grouped(metric, predictions, known),
        "popularity": _grouped(metric, predictions, popular),
    }


def by_context(metric: Metric, predictions: Predictions) -> dict[str, dict[str, Score]]:
    """Returns the scores by whether the texts that were brought spell out an answer; or nothing."""
    if not predictions.in_context:
        return {}
    groups = ["answered" if there else "unanswered" for there in predictions.in_context]
    return {"context": _grouped(metric, predictions, groups)}


def _grouped(metric: Metric, given: Predictions, groups: Sequence[str]) -> dict[str, Score]:
    """The score of each group of examples; an empty name leaves an example out."""
    scores = {}
    for name in sorted({*groups} - {""}):
        at = [number for number, group in enumerate(groups) if group == name]
        statistics = metric.measure(given.at(at))
        if len(statistics):
            scores[name] = estimate(metric, statistics)
    return scores


def estimate(metric: Metric, statistics: Array) -> Score:
    """Returns the score of examples with its interval. ``[examples, k]``.

    Raises:
        KbenchError: the metric gives no fraction.
    """
    ends = vars(interval(metric, statistics))
    for name in ("value", "low", "high"):
        if not 0 <= ends[name] <= 1:
            raise KbenchError(
                f"metric {metric.name} gives {ends[name]} as its {name}; expected a fraction "
                "from 0 to 1"
            )
    return Score(**ends, variant=metric.variant)
