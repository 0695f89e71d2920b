"""Results as rows of a table: scores, and what they are to be read against.

A row is a run, or the same run over several seeds. ``delta`` is against the downstream model
without knowledge, ``gain`` (the knowledge gain) against the same method with the ``shuffled``
knowledge; both are paired by example.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, cast

from kbench import registry
from kbench.catalogue import Kind
from kbench.errors import KbenchError
from kbench.result import Predictions, Result, Status
from kbench.spec import Control
from kbench.statistics import Interval, difference
from kbench.store import Results
from kbench.strata import measured

if TYPE_CHECKING:
    from kbench.metrics import Metric
    from kbench.task import Task

__all__ = ["Estimate", "Row", "rows"]


@dataclass(frozen=True)
class Estimate:
    """A score or difference.

    Attributes:
        value: of the run, or the mean over seeds.
        low: lower end of the 95% bootstrap interval over examples; None for several seeds.
        high: its upper end.
        deviation: standard deviation over seeds; None for one.
    """

    value: float
    low: float | None = None
    high: float | None = None
    deviation: float | None = None


@dataclass(frozen=True)
class Row:
    """One row: a run over its seeds. ``results`` are in the order of the seeds."""

    results: tuple[Result, ...]
    score: Estimate | None
    delta: Estimate | None
    gain: Estimate | None

    @property
    def first(self) -> Result:
        """The result that stands for what all seeds share."""
        return self.results[0]

    @property
    def seeds(self) -> list[int]:
        """The seeds, ascending."""
        return [result.spec.seed for result in self.results]

    def as_json(self) -> dict[str, Any]:
        """Returns the row as a JSON value."""
        spec = self.first.spec
        names = ("task", "backbone", "tuning", "method", "setting", "knowledge", "control", "limit")
        value = {name: getattr(spec, name) for name in names}
        value |= {
            "seeds": self.seeds,
            "status": self.first.status,
            "reason": self.first.reason,
            "metric": self.first.main_metric,
            "ids": [result.id for result in self.results],
        }
        for name in ("score", "delta", "gain"):
            estimate = getattr(self, name)
            value[name] = None if estimate is None else vars(estimate)
        if self.first.coverage:
            value["coverage"] = self.first.coverage.model_dump()
        value["cost"] = self.first.cost
        return value


def rows(found: Sequence[Result], store: Results) -> list[Row]:
    """Builds the rows of results, in the order of their first appearance.

    Args:
        found: what to show; yardsticks and controls are taken from it too.
        store: gives the predictions.
    """
    compare = _Comparisons(found, store)
    groups: dict[str, list[Result]] = {}
    for result in found:
        # Runs that ended differently cannot share a row.
        key = _key(result, leave=("seed",)) + result.status + result.reason
        groups.setdefault(key, []).append(result)
    return [_row(sorted(group, key=lambda r: r.spec.seed), compare) for group in groups.values()]


def _row(group: list[Result], compare: _Comparisons) -> Row:
    scores = [
        Interval(score.value, score.low, score.high, score.n)
        for result in group
        if (score := result.score)
    ]
    return Row(
        tuple(group),
        _estimate(scores, len(group)),
        _estimate([d for r in group if (d := compare.with_none(r))], len(group)),
        _estimate([g for r in group if (g := compare.with_shuffled(r))], len(group)),
    )


def _estimate(intervals: list[Interval], wanted: int) -> Estimate | None:
    """Summarises seeds; nothing if one of them lacks the figure, lest a bad run be dropped."""
    if not intervals or len(intervals) < wanted:
        return None
    if len(intervals) == 1:
        return Estimate(intervals[0].value, intervals[0].low, intervals[0].high)
    values = [interval.value for interval in intervals]
    return Estimate(mean(values), deviation=stdev(values))


class _Comparisons:
    """Finds what a result is compared with, and the paired differences."""

    def __init__(self, found: Iterable[Result], store: Results) -> None:
        self._store = store
        self._read: dict[str, Predictions | None] = {}
        good = [result for result in found if result.status == Status.OK]
        self._yardsticks = {
            _yardstick_key(result): result for result in good if result.spec.knowledge is None
        }
        self._shuffled = {
            _key(result, leave=("control",)): result
            for result in good
            if result.spec.control == Control.SHUFFLED
        }

    def with_none(self, result: Result) -> Interval | None:
        """Difference to the model without knowledge."""
        if result.spec.knowledge is None:
            return None
        return self._difference(result, self._yardsticks.get(_yardstick_key(result)))

    def with_shuffled(self, result: Result) -> Interval | None:
        """The knowledge gain; only the true knowledge base has one."""
        if result.spec.knowledge is None or result.spec.control != Control.NONE:
            return None
        return self._difference(result, self._shuffled.get(_key(result, leave=("control",))))

    def _difference(self, ours: Result, theirs: Result | None) -> Interval | None:
        if theirs is None or ours.status != Status.OK or not comparable(ours, theirs):
            return None
        one, two = self._predictions(ours), self._predictions(theirs)
        metric = _metric(ours)
        if one is None or two is None or metric is None or one.ids != two.ids:
            return None
        return difference(
            metric,
            measured(metric, one.labels, one.predictions, one.strata),
            measured(metric, two.labels, two.predictions, two.strata),
        )

    def _predictions(self, result: Result) -> Predictions | None:
        if result.id not in self._read:
            try:
                self._read[result.id] = self._store.predictions(result)
            except KbenchError:
                self._read[result.id] = None
        return self._read[result.id]


def comparable(one: Result, two: Result) -> bool:
    """Whether two results are of the same test data and metric, to the letter."""
    if one.provenance is None or two.provenance is None or not one.score or not two.score:
        return False
    return (
        one.provenance.digests.get("data") == two.provenance.digests.get("data")
        and one.spec.limit == two.spec.limit
        and one.score.variant == two.score.variant
    )


def _metric(result: Result) -> Metric | None:
    try:
        task = cast("type[Task]", registry.get(Kind.TASKS, result.spec.task))
    except KbenchError:
        return None
    return next((m for m in task.metrics if m.name == result.main_metric), None)


def _key(result: Result, leave: tuple[str, ...]) -> str:
    return json.dumps(result.spec.model_dump(mode="json", exclude=set(leave)), sort_keys=True)


def _yardstick_key(result: Result) -> str:
    spec = result.spec
    shared = spec.model_dump(
        mode="json", include={"task", "backbone", "tuning", "seed", "limit", "data", "dtype"}
    )
    options = {kind: spec.options.get(kind) for kind in ("task", "tuning")}
    return json.dumps([shared, options], sort_keys=True)
