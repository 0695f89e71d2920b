"""What a figure shows: a line a point, with names that are safe to draw.

All figures are about runs with the true knowledge, in per cent or percentage points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from kbench.data.plain_text import drawable
from kbench.errors import KbenchError, UsageError
from kbench.metrics.statistics import Pair, differences
from kbench.results.comparison import PredictionCache, metric_of
from kbench.results.identity import Names, told_apart
from kbench.results.ranking import front
from kbench.results.rescoring import popularity_told
from kbench.results.shown import Shown
from kbench.results.tables import Estimate, Row
from kbench.spec import Control
from kbench.store import Results

__all__ = ["BUCKETS", "FIGURES", "VALUES", "Point", "points"]

Point: TypeAlias = dict[str, Any]
VALUES = {
    "gain": "knowledge gain",
    "delta": "Δ none",
    "net": "net gain",
    "score": "score",
}
"""What can be shown of a run, and how it is called."""
BUCKETS = ("known", "unknown", "tail", "torso", "head")
"""Parts of the test examples, in the order in which they are drawn."""
_LONGEST = 44
"""Characters of a name that are drawn: a stranger's may be as long as he likes."""


@dataclass(frozen=True)
class _Named:
    """A row, and what it is called in a figure."""

    row: Row
    task: str
    method: str


def points(kind: str, shown: Shown, store: Results, value: str | None = None) -> list[Point]:
    """Returns what a figure shows.

    Args:
        kind: one of :data:`FIGURES`.
        shown: the rows of the table that it is drawn from.
        store: gives predictions.
        value: what is shown of a run, one of :data:`VALUES`, where the figure leaves it open.

    Raises:
        UsageError: there is nothing to show, or the figure shows something else.
    """
    if value is not None and kind not in _OPEN:
        raise UsageError(f"--value {value}: {kind} has no choice of it; {', '.join(_OPEN)} have")
    named = [*_named(shown.rows)]
    found = FIGURES[kind](named, store, value)
    if not found:
        raise UsageError(f"nothing to draw: {_WANTED[kind]}; `kbench table` shows what there is")
    return found


def _named(rows: Sequence[Row]) -> Iterator[_Named]:
    """Yields the rows with true knowledge, each with its names: two never share both."""
    true = [row for row in rows if row.first.spec.knowledge and row.score and row.chosen]
    true = [row for row in true if row.first.spec.control == Control.NONE]
    true.sort(key=lambda row: (row.name("task"), row.first.spec.method))
    varied = {
        name: len({row.name(name) for row in true}) > 1
        for name in ("backbone", "tuning", "setting", "knowledge")
    }
    names = (true[0].names if true else None) or Names(row.first for row in true)
    _, own = told_apart([row.first for row in true], names) if true else ([], [])
    tasks, methods = [], []
    for row, options in zip(true, own, strict=True):
        words = [row.name(n) for n in ("backbone", "tuning") if varied[n]]
        tasks.append(" · ".join([row.name("task"), *words]))
        words = [row.first.spec.method]
        words += [row.name(name) for name in ("setting", "knowledge") if varied[name]]
        methods.append(", ".join(filter(None, [*words, options])))
    of_task, of_method = _safe(tasks), _safe(methods)
    seen = Counter[tuple[str, str]]()
    for row, task, method in zip(true, tasks, methods, strict=True):
        seen[task, method] += 1
        again = f" #{seen[task, method]}" if seen[task, method] > 1 else ""
        yield _Named(row, of_task[task], of_method[method] + again)


def _safe(names: Sequence[str]) -> dict[str, str]:
    """Returns each name as it can be drawn; two that would look the same are numbered."""
    drawn: dict[str, str] = {}
    for name in dict.fromkeys(names):
        text, number = drawable(name, _LONGEST), 2
        while text in drawn.values():
            text, number = f"{drawable(name, _LONGEST)} ({number})", number + 1
        drawn[name] = text
    return drawn


def _point(named: _Named, estimate: Estimate | None, **more: Any) -> Iterator[Point]:
    """Yields a point of an estimate, in per cent; nothing where there is none."""
    if estimate is not None:
        ends = (estimate.value, estimate.low, estimate.high)
        value, low, high = (None if end is None else 100 * end for end in ends)
        yield {
            "task": named.task,
            "method": named.method,
            **more,
            "value": value,
            "low": value if low is None else low,
            "high": value if high is None else high,
        }


def _forest(named: Sequence[_Named], store: Results, value: str | None) -> list[Point]:
    return [
        point
        for each in named
        for name in ([value] if value else ["gain", "delta"])
        for point in _point(each, getattr(each.row, name), figure=VALUES[name])
    ]


def _matrix(named: Sequence[_Named], store: Results, value: str | None) -> list[Point]:
    name = value or "gain"
    return [
        point
        for each in named
        for point in _point(each, getattr(each.row, name), figure=VALUES[name])
    ]


def _cost(named: Sequence[_Named], store: Results, value: str | None) -> list[Point]:
    """Points with the seconds of training, and whether none is better for less."""
    name = value or "gain"
    rows = [each.row for each in named]
    spent = [(row.training_processor_seconds, row.training_seconds) for row in rows]
    # One clock for all: seconds of two kinds cannot stand on one axis.
    processor = all(known is not None for known, wall in spent if wall is not None)
    clock = "processor time" if processor else "wall clock"
    found = [
        {**point, "seconds": seconds, "clock": clock}
        for each, (known, wall) in zip(named, spent, strict=True)
        if (seconds := known if processor else wall) is not None
        for point in _point(each, getattr(each.row, name), figure=VALUES[name])
    ]
    for task in {point["task"] for point in found}:
        own = [point for point in found if point["task"] == task]
        best = front([(point["seconds"], point["value"]) for point in own])
        for point, on in zip(own, best, strict=True):
            point["front"] = on
    return found


def _seeds(named: Sequence[_Named], store: Results, value: str | None) -> list[Point]:
    """Scores of each seed with the true knowledge, with foreign, and without any."""
    return [
        {
            "task": each.task,
            "method": each.method,
            "knowledge": what,
            "seed": result.spec.seed,
            "value": 100 * result.score.value,
        }
        for each in named
        for what, group in (
            ("true", each.row.results),
            ("foreign", each.row.foreign or ()),
            ("none", each.row.none or ()),
        )
        for result in group
        if result.score is not None
    ]


def _buckets(named: Sequence[_Named], store: Results, value: str | None) -> list[Point]:
    """Knowledge gains on parts of the examples: by coverage and by popularity of their entity."""
    cache = PredictionCache(store)
    found: list[Point] = []
    pairs: list[Pair] = []
    for each in named:
        for bucket, pair in _parted(each.row, cache):
            found.append({"task": each.task, "method": each.method, "bucket": bucket})
            pairs.append(pair)
    for point, told in zip(found, differences(pairs), strict=True):
        point["by"] = "coverage" if point["bucket"] in BUCKETS[:2] else "popularity"
        point |= {"value": 100 * told.value, "low": 100 * told.low, "high": 100 * told.high}
        point["n"] = told.n
    return found


def _parted(row: Row, cache: PredictionCache) -> Iterator[tuple[str, Pair]]:
    """Yields the run against its foreign control on each part of the examples that is not empty."""
    first = row.first
    try:
        if row.foreign is None or cache.unlike((*row.results, *row.foreign)):
            return
        metric = metric_of(first, first.main_metric or "")
        told = cache.predictions(first)
    except KbenchError:  # predictions are lost, or the task is not installed
        return
    popularity = popularity_told(first, told, metric)
    parts: dict[str, list[str]] = {name: [] for name in BUCKETS}
    for id, degree in zip(told.ids, told.degrees, strict=True):
        parts["unknown" if degree < 0 else "known"].append(id)
        if degree >= 0 and popularity is not None:
            parts[popularity.name(degree)].append(id)
    for name, ids in parts.items():
        if ids:
            sides = (cache.of(group, metric, tuple(ids)) for group in (row.results, row.foreign))
            ours, theirs = sides
            if ours.shape == theirs.shape and ours.shape[1]:
                yield name, Pair(metric, ours, theirs)


_Made: TypeAlias = Callable[[Sequence[_Named], Results, str | None], list[Point]]
FIGURES: Mapping[str, _Made] = {
    "forest": _forest,
    "matrix": _matrix,
    "buckets": _buckets,
    "cost": _cost,
    "seeds": _seeds,
}
"""The figures by name, and what makes their points."""
_OPEN = ("forest", "matrix", "cost")
_WANTED = {
    "forest": "no run has a knowledge gain (runs with control=foreign) or a none beside it",
    "matrix": "no run has this figure; a gain needs runs with control=foreign",
    "buckets": "no run with its control=foreign has predictions that can be parted",
    "cost": "no run has both this figure and seconds of training",
    "seeds": "no run has a score",
}
