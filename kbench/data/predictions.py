"""What was predicted of examples, beside what is right: all that a metric reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from kbench.data.examples import Label
from kbench.data.likelihoods import Likelihoods
from kbench.errors import UsageError

__all__ = ["Answers", "Predictions", "as_stored", "is_right"]

_SHOWN = 10
"""Answers that are kept of a ranking in which none is right."""


def is_right(label: Label, prediction: Label) -> bool:
    """Returns whether a prediction is right.

    Args:
        label: the gold one: a class, a set of classes, or the acceptable answers of a question.
        prediction: a class, which must be the label or one of the acceptable answers; or a set
            of classes, which must be the whole set.
    """
    if isinstance(prediction, str):
        return prediction == label if isinstance(label, str) else prediction in label
    return not isinstance(label, str) and {*label} == {*prediction}


def as_stored(label: Label, ranking: Label) -> Label:
    """Returns a ranking up to its first right answer; its first ten where none is right.

    Args:
        label: the acceptable answers.
        ranking: answers, the best first.
    """
    right = next((at for at, answer in enumerate(ranking) if is_right(label, answer)), _SHOWN - 1)
    return ranking[: right + 1]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Examples with their gold labels and what was predicted, one entry each, in their order.

    Attributes:
        labels: gold ones; of a question all acceptable answers, as the data spell them.
        predictions: of a model; a right answer to a question is spelled as the data spell it.
        strata: what each counts under, see :attr:`kbench.data.Example.stratum`.
        relations: what each asks for, see :attr:`kbench.data.Example.relation`; empty where no
            metric asks for it.
        likelihoods: what the model said of the candidates, where it was asked to choose among
            such; else None.
    """

    labels: Sequence[Label]
    predictions: Sequence[Label]
    strata: Sequence[str]
    relations: Sequence[str] = ()
    likelihoods: Likelihoods | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, chosen: Sequence[int]) -> Self:
        """Returns some of the examples, by their numbers, in the order given."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: _at(column, chosen) for name, column in columns.items()})

    def by(self, scorer: str) -> Self:
        """Returns what the model predicts where another scorer compares the candidates.

        Raises:
            UsageError: it chose among no candidates, or they cannot be compared so.
        """
        if self.likelihoods is None:
            raise UsageError("no candidates were scored here: what was predicted is not by scores")
        likelihoods = self.likelihoods.by(scorer)
        predictions: Sequence[Label] = likelihoods.predicted()
        if likelihoods.answers:
            predictions = [as_stored(*both) for both in zip(self.labels, predictions, strict=True)]
        return replace(self, predictions=predictions, likelihoods=likelihoods)


def _at(column: Any, chosen: Sequence[int]) -> Any:
    """Some of what a column says of the examples; nothing of one that not all runs have."""
    if isinstance(column, Likelihoods):
        return column.at(chosen)
    return [column[at] for at in chosen] if column else column


@dataclass(frozen=True, kw_only=True)
class Predictions(Answers):
    """The test examples of a run, as they are stored.

    Attributes:
        ids: of the examples.
        scores: the probability that the model gives to each prediction.
        linked: whether a mention of the example is an entity that the method knows.
        degrees: in how many facts the entity of each is, -1 where it has none.
        injected: of runs with swapped values, the names of the false value that knowledge told of
            each question; an entry is empty where none is known. Empty of other runs.
        in_context: of runs that bring texts, whether these spell out a gold label of each. Empty
            of other runs.
    """

    ids: Sequence[str]
    scores: Sequence[float]
    linked: Sequence[bool]
    degrees: Sequence[int]
    injected: Sequence[tuple[str, ...]] = ()
    in_context: Sequence[bool] = ()

    @property
    def spread(self) -> dict[str, int]:
        """How many things are said of the test examples: a model may say one, or nothing."""
        said = self.predictions
        counts = {
            "test_distinct_labels": len({*self.labels}),
            "test_distinct_predictions": len({*said}),
        }
        if any(not isinstance(one, str) for one in said):
            counts["test_without_prediction"] = sum(not one for one in said)
        return counts
