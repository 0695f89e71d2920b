"""Scores made again from the predictions of a run: without its data, model or knowledge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kbench.knowledge import KnowledgeBase
from kbench.metrics import ByScorer, Metric
from kbench.pipeline.buckets import Popularity, by_context, by_entity, estimate
from kbench.results.comparison import metric_of, metrics_of
from kbench.store import Predictions, Result, Score

__all__ = [
    "Again",
    "Popularity",
    "again",
    "by_scorer",
    "popularity_of",
    "popularity_told",
    "rescored",
    "rescored_parts",
]

_EXACT = 1e-9
_DRAWN = 0.01
"""Ends of a bootstrap interval may differ by so much where another NumPy draws otherwise."""


@dataclass(frozen=True)
class Again:
    """A stored score and the same made again.

    Attributes:
        name: of the metric, or of the bucket: ``micro_f1``, ``coverage known``.
        stored: what the result says.
        made: what its predictions give; None if the task has no such metric any more, or no
            example is in the bucket.
    """

    name: str
    stored: Score
    made: Score | None

    @property
    def moved(self) -> str:
        """The first figure that the predictions do not give; empty if they give all, or none."""
        if self.made is not None:
            for name, bound in (("n", 0), ("value", _EXACT), ("low", _DRAWN), ("high", _DRAWN)):
                if abs(getattr(self.stored, name) - getattr(self.made, name)) > bound:
                    return name
        return ""

    @property
    def differs(self) -> str:
        """What differs, with both values; empty if nothing does."""
        if self.made is None:
            return f"{self.stored.variant} cannot be made again"
        if not (name := self.moved):
            return ""
        one, two = getattr(self.stored, name), getattr(self.made, name)
        return f"{name} is stored as {one:.6g}, the predictions give {two:.6g}"

    def as_json(self) -> dict[str, Any]:
        """Returns both as a JSON value."""
        made = self.made and self.made.model_dump()
        stored = self.stored.model_dump()
        return {"name": self.name, "stored": stored, "made": made, "differs": self.differs}


def rescored(result: Result, predictions: Predictions) -> dict[str, Score]:
    """Returns the metrics of a result, from what it predicted; those that its task still has.

    Raises:
        UsageError: the task is not installed.
    """
    return {
        metric.name: estimate(metric, metric.measure(predictions)) for metric in metrics_of(result)
    }


def by_scorer(result: Result, predictions: Predictions, scorer: str) -> dict[str, Score]:
    """Returns the metrics of a result as another scorer of candidates would have given them.

    Args:
        result: of a run that compared candidates.
        predictions: its own.
        scorer: how candidates are compared, one of :data:`kbench.data.SCORERS`.

    Raises:
        UsageError: they cannot be compared so, or the task is not installed.
    """
    other = predictions.by(scorer)
    own = [metric for metric in metrics_of(result) if not isinstance(metric, ByScorer)]
    return {metric.name: estimate(metric, metric.measure(other)) for metric in own}


def again(result: Result, predictions: Predictions) -> list[Again]:
    """Returns every stored score beside the same made again: all metrics, by coverage and context.

    Scores by popularity are left out: where head and tail begin is for the knowledge base to say.

    Raises:
        UsageError: the task is not installed.
    """
    made = rescored(result, predictions)
    scores = [Again(name, score, made.get(name)) for name, score in result.metrics.items()]
    main = next((m for m in metrics_of(result) if m.name == result.main_metric), None)
    if main is None:
        return scores
    parts = by_entity(main, predictions, Popularity(1, 1)) | by_context(main, predictions)
    for kind in ("coverage", "context"):
        for name, score in result.buckets.get(kind, {}).items():
            scores.append(Again(f"{kind} {name}", score, parts.get(kind, {}).get(name)))
    return scores


def popularity_of(knowledge: KnowledgeBase) -> Popularity:
    """Returns from how many facts on an entity of a knowledge base is of the torso, and the head.

    Args:
        knowledge: the base.
    """
    return Popularity.of(knowledge)


def rescored_parts(
    result: Result, predictions: Predictions, popularity: Popularity | None = None
) -> dict[str, dict[str, Score]]:
    """Returns the main metric by coverage, popularity and context, from what was predicted.

    Args:
        result: of a run with knowledge.
        predictions: its own.
        popularity: where torso and head begin; if not given, what the stored numbers of examples
            tell of it, and without scores by popularity where they tell nothing.

    Raises:
        UsageError: the task is not installed, or no longer has the metric.
    """
    metric = metric_of(result, result.main_metric or "")
    known = popularity or popularity_told(result, predictions, metric)
    made = by_entity(metric, predictions, known or Popularity(1, 1))
    if known is None:
        del made["popularity"]
    return made | by_context(metric, predictions)


def popularity_told(result: Result, predictions: Predictions, metric: Metric) -> Popularity | None:
    """Returns where torso and head begin, as the stored number of examples in each tells.

    Args:
        result: of a run with knowledge.
        predictions: its own.
        metric: its main one.

    Returns:
        None where no bounds give these numbers, or not every example counts for the metric.
    """
    stored = result.buckets.get("popularity", {})
    degrees = sorted(degree for degree in predictions.degrees if degree >= 0)
    tail, torso, head = (stored[n].n if n in stored else 0 for n in ("tail", "torso", "head"))
    if tail + torso + head != len(degrees) or len(metric.measure(predictions)) != len(predictions):
        return None
    ends = [*degrees, degrees[-1] + 1] if degrees else [1]
    for at in (tail, tail + torso):
        if at and degrees[at - 1] >= ends[at]:
            return None
    return Popularity(ends[tail], ends[tail + torso])
