"""What the modules of this package share. Importing it imports ``evaluate``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import evaluate

from kbench.data import Answers
from kbench.metrics import Metric

__all__ = ["MultiLabel", "Ranking", "SingleLabel", "Stratified"]


class _Face(evaluate.Metric):  # type: ignore[misc]
    """A metric of kbench as one of ``evaluate``.

    Attributes:
        metric: the class that scores; ``compute`` passes on its options.
        label: what one prediction or reference is.
        any_answer: whether a reference may be a list, of which any is right.
    """

    metric: ClassVar[type[Metric]]
    label: ClassVar[Any]
    any_answer: ClassVar[bool] = False

    def _info(self) -> evaluate.MetricInfo:
        text = inspect.getdoc(self.metric) or ""
        return evaluate.MetricInfo(
            description=text,
            citation="",
            inputs_description=f"\n{text}\n",
            features=[datasets.Features(columns) for columns in self._layouts()],
        )

    def _layouts(self) -> list[dict[str, Any]]:
        """The columns that ``compute`` takes, in each form that they may have."""
        columns = self._columns()
        several = {**columns, "references": datasets.Sequence(self.label)}
        return [columns, several] if self.any_answer else [columns]

    def _columns(self) -> dict[str, Any]:
        return {"predictions": self.label, "references": self.label}

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, float]:
        metric = self.metric(**options)
        return {metric.name: metric.score(references, predictions)}


class SingleLabel(_Face):
    """Predictions and references are one class name each.

    Where ``any_answer`` is set a reference may be a list of acceptable answers.
    """

    label = datasets.Value("string")


class Ranking(SingleLabel):
    """A prediction is a list of answers, the best first; a reference is as of one label."""

    def _columns(self) -> dict[str, Any]:
        return {**super()._columns(), "predictions": datasets.Sequence(self.label)}


class MultiLabel(_Face):
    """Predictions and references are a list of class names each, which may be empty."""

    label = datasets.Sequence(datasets.Value("string"))


class Stratified(SingleLabel):
    """Beside a prediction and a reference, each example has a stratum.

    Attributes:
        column: what the strata are called; ``compute`` takes one for each prediction.
    """

    column: ClassVar[str]

    def measures(self, strata: Sequence[str]) -> Sequence[Metric]:
        """Returns what is measured, given the strata of all examples."""
        return [self.metric()]

    def _columns(self) -> dict[str, Any]:
        return {**super()._columns(), self.column: datasets.Value("string")}

    def _compute(self, predictions: Any, references: Any, **strata: Any) -> dict[str, float]:
        own = strata[self.column]
        answers = Answers(labels=references, predictions=predictions, strata=own)
        return {metric.name: metric.score_of(answers) for metric in self.measures(own)}
