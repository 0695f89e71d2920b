"""Results as rows of a table: scores, and what they are to be read against.

A row is a run over its seeds. ``delta`` is against the downstream model without knowledge,
``gain`` (the knowledge gain) against the same method with ``foreign`` knowledge, both equal to it
in all else (:mod:`kbench.results.identity`) and paired by example and seed. Where there is a run
with knowledge of the ``same-type`` the gain is split: ``kind`` is what any entity of that kind
would have told, ``individual`` what only this one tells.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from statistics import mean, stdev
from typing import Any, TypeAlias

from kbench.data.files import canonical_digest
from kbench.errors import KbenchError
from kbench.metrics import Array, Interval, Metric
from kbench.metrics.statistics import (
    LEVEL,
    RESAMPLES,
    Pair,
    contrasts,
    differences,
    holm,
    intervals,
    mcnemar,
)
from kbench.results.choice import Choice, with_choices
from kbench.results.comparison import PredictionCache, differing, metric_of
from kbench.results.identity import Names, content, key, on_one_model, options, table_key
from kbench.results.memo import memoised
from kbench.results.notes import kept, notes
from kbench.results.ranking import net_gain
from kbench.results.selection import Group, Selection, grouped, partners
from kbench.spec import Control
from kbench.store import Result, Results, Score, Status

__all__ = ["MOVED", "Estimate", "Locality", "Row", "Turned", "leaders", "rows"]

MOVED = {
    **dict.fromkeys(("kl", "kl_unlinked", "perplexity_without", "perplexity_ratio"), math.inf),
    **dict.fromkeys(("same_first", "same_first_unlinked"), 1.0),
    **dict.fromkeys(("examples", "examples_unlinked"), math.inf),
}
"""What a run with locality measures of how far its plug moves the model, and the most it can be."""


@dataclass(frozen=True)
class Estimate:
    """A score or difference.

    Attributes:
        value: of the run, or the mean over seeds.
        low: lower end of the 95% bootstrap interval, over examples, and over seeds where there
            are several; None where predictions are not there to be drawn from.
        high: its upper end.
        deviation: standard deviation over seeds; None for one.
    """

    value: float
    low: float | None = None
    high: float | None = None
    deviation: float | None = None


@dataclass(frozen=True)
class Locality:
    """What became of the examples that knowledge should not touch.

    Attributes:
        value: share that became wrong, of those without a linked entity that the model without
            knowledge has right.
        n: how many those are, over all seeds.
    """

    value: float
    n: int


@dataclass(frozen=True)
class Turned:
    """What became of examples that the model without knowledge has right, and of the others.

    Attributes:
        right: how many it has right, over all seeds.
        lost: how many of these became wrong.
        wrong: how many it has wrong.
        gained: how many of these became right.
        p: of McNemar's exact test; None for several seeds, whose examples are the same.
    """

    right: int
    lost: int
    wrong: int
    gained: int
    p: float | None

    @property
    def retention(self) -> float | None:
        """Share of what was right that stayed so; None where nothing was."""
        return 1 - self.lost / self.right if self.right else None

    @property
    def repair(self) -> float | None:
        """Share of what was wrong that became right; None where nothing was."""
        return self.gained / self.wrong if self.wrong else None

    def as_json(self) -> dict[str, Any]:
        """Returns the counts and shares as a JSON value."""
        return {**vars(self), "retention": self.retention, "repair": self.repair}


@dataclass(frozen=True)
class Row:
    """One row: a run over its seeds.

    Attributes:
        results: in the order of the seeds.
        score: of the main metric.
        delta: difference to the model without knowledge.
        gain: the knowledge gain, the sum of ``kind`` and ``individual``.
        kind: knowledge of the same type over foreign knowledge; None without both.
        individual: true knowledge over that of the same type.
        locality: None without a yardstick, or where no example counts.
        turned: None without a yardstick.
        seconds_without: per example, of evaluating the model without knowledge.
        none: what ``delta`` is against, of the same seeds; None if one is not there.
        foreign: what ``gain`` is against, likewise.
        same_type: what splits it, likewise.
        choice: how it stands among runs that differ in options alone; None if it did not end well.
        names: of data, backbones and knowledge bases, clear among all that were looked at.
    """

    results: Group
    score: Estimate | None
    delta: Estimate | None
    gain: Estimate | None
    kind: Estimate | None = None
    individual: Estimate | None = None
    locality: Locality | None = None
    seconds_without: float | None = None
    none: Group | None = None
    foreign: Group | None = None
    same_type: Group | None = None
    choice: Choice | None = None
    turned: Turned | None = None

    @property
    def chosen(self) -> bool:
        """Whether it may be shown and ranked: alone in its kind, or the best of a sweep on dev."""
        return self.choice is None or self.choice.chosen

    names: Names | None = field(default=None, repr=False, compare=False)

    def name(self, field: str) -> str:
        """Returns the value of a field of the run as people read it."""
        return (self.names or Names(self.results)).of(self.first, field)

    @property
    def first(self) -> Result:
        """The result that stands for what all seeds share."""
        return self.results[0]

    @property
    def seeds(self) -> list[int]:
        """The seeds, ascending."""
        return [result.spec.seed for result in self.results]

    @property
    def cost(self) -> dict[str, float]:
        """The cost, a mean over the seeds."""
        shared = [name for name in self.first.cost if all(name in r.cost for r in self.results)]
        return {name: mean(r.cost[name] for r in self.results) for name in shared}

    @property
    def moved(self) -> dict[str, float]:
        """How far the plug moves what the model says, a mean over the seeds; empty if unknown."""
        every = [r.locality for r in self.results]
        shared = [name for name in every[0] if all(name in each for each in every)]
        return {name: mean(each[name] for each in every) for name in shared}

    @property
    def follow(self) -> Score | None:
        """The follow rate of swapped values, without interval over several seeds."""
        return _over_seeds([r.metrics.get("follow_rate") for r in self.results])

    @property
    def context(self) -> dict[str, Score]:
        """The score by whether the texts that were brought spell out an answer."""
        known = [r.buckets.get("context", {}) for r in self.results]
        scores = {n: _over_seeds([k.get(n) for k in known]) for n in ("answered", "unanswered")}
        return {name: score for name, score in scores.items() if score}

    @property
    def tokens(self) -> float | None:
        """Tokens of a test example, a mean over the seeds."""
        read = [(r.counts.get("test_tokens"), r.counts.get("test_kept")) for r in self.results]
        each = [tokens / kept for tokens, kept in read if tokens and kept]
        return mean(each) if each else None

    @property
    def net(self) -> Estimate | None:
        """The net gain, by which methods are ranked: the lesser of ``gain`` and ``delta``."""
        return net_gain(self.gain, self.delta)

    @property
    def training_seconds(self) -> float | None:
        """Wall clock of the training of the plug, with that of the general plug it started from."""
        cost = self.cost
        if "train_seconds" not in cost:
            return None
        return cost["train_seconds"] + cost.get("start_seconds", 0.0)

    @property
    def training_processor_seconds(self) -> float | None:
        """The same in processor time; None where that is not known, as of a GPU."""
        cost, names = self.cost, ("train_processor_seconds", "start_processor_seconds")
        return sum(cost[name] for name in names) if all(name in cost for name in names) else None

    @property
    def shared(self) -> float | None:
        """Share of the test examples whose swapped entity may tell the answer all the same.

        By a gold label in common, else a type; a mean over the seeds. None without a control that
        swaps entities.
        """
        swapped = [r.counts for r in self.results if r.counts.get("test_swapped")]
        told = [c["test_swapped_label"] + c["test_swapped_type"] for c in swapped]
        shares = [n / c["test_swapped"] for n, c in zip(told, swapped, strict=True)]
        return mean(shares) if shares else None

    @property
    def coverage(self) -> float | None:
        """Share of the test examples that got knowledge, a mean over the seeds."""
        shares = [r.coverage.examples for r in self.results if r.coverage]
        return mean(shares) if shares else None

    def as_json(self) -> dict[str, Any]:
        """Returns the row as a JSON value."""
        spec = self.first.spec
        names = ("task", "backbone", "tuning", "method", "setting", "knowledge", "control", "limit")
        value = {name: getattr(spec, name) for name in names}
        value |= {name: self.name(name) or None for name in ("task", "data", "backbone")}
        value |= {
            "knowledge": self.name("knowledge") if spec.knowledge else None,
            "linker": content(self.first)["linker"] or None,
            "dtype": spec.dtype,
            "weights": spec.weights,
            "chat": spec.chat,
            "options": options(self.first),
            "seeds": self.seeds,
            "status": self.first.status,
            "reason": self.first.reason,
            "metric": self.first.main_metric,
            "ids": [result.id for result in self.results],
        }
        for name in ("score", "delta", "gain", "kind", "individual", "net", "locality"):
            estimate = getattr(self, name)
            value["net_gain" if name == "net" else name] = (
                None if estimate is None else vars(estimate)
            )
        if self.first.coverage:
            value["coverage"] = self.first.coverage.model_dump()
        value["turned"] = self.turned and self.turned.as_json()
        value["moved"] = self.moved
        value["follow"] = self.follow and self.follow.model_dump()
        value["context"] = {name: score.model_dump() for name, score in self.context.items()}
        value["tokens"] = self.tokens
        value["shared"] = self.shared
        value["kept"] = kept(self.first)
        value["notes"] = notes(self.results)
        value["chosen"] = self.chosen
        value["variants"] = self.choice.tried if self.choice else 1
        value["choice"] = self.choice.text if self.choice else ""
        value["cost"] = self.cost
        value["evaluate_seconds_per_example_without"] = self.seconds_without
        return value


def rows(
    results: Sequence[Result],
    store: Results,
    beside: Iterable[Result] = (),
    names: Names | None = None,
) -> list[Row]:
    """Builds the rows of results, in the order of their first appearance.

    Args:
        results: what to show; yardsticks and controls are taken from it too.
        store: gives the predictions.
        beside: what else is stored, for yardsticks and controls alone.
        names: of parts, if they are to be clear among more than these results.
    """
    good = grouped(results)
    everything = [*{result.id: result for result in (*beside, *results)}.values()]
    none = _own(good, Selection("", {"method": "*", "knowledge": "none"}), everything)
    foreign, same = (
        _own(good, Selection("", {"control": str(control)}), everything)
        for control in (Control.FOREIGN, Control.SAME_TYPE)
    )
    names = names or Names(everything)
    made = {}
    for _, several in groupby(sorted(good, key=_test_set), key=_test_set):
        # Predictions are kept in memory for one test set at a time.
        for row in _rows([*several], none, foreign, same, store):
            made[row.first.id] = replace(row, names=names)
    for group in _ended(results):
        made[group[0].id] = Row(group, None, None, None, names=names)
    return with_choices([made[result.id] for result in results if result.id in made], everything)


def _own(groups: Iterable[Group], theirs: Selection, results: Iterable[Result]) -> dict[str, Group]:
    """Returns what belongs beside each run, by the id of its first result.

    It is equal in all that the selection does not name, and of the same downstream model; of
    several methods without knowledge it is the one called ``none``.
    """
    informed = [group for group in groups if group[0].spec.knowledge is not None]
    own: dict[str, Group] = {}
    pairs = partners(informed, theirs, results, strict=True)
    for one, two in sorted(pairs, key=lambda pair: pair[1][0].spec.method != "none"):
        comparable = not any(differing(one[0], two[0], one[0].main_metric or ""))
        of_seed = {result.spec.seed: result for result in two}
        seeds = [(r, of_seed.get(r.spec.seed)) for r in one]
        if comparable and all(other is None or on_one_model(r, other) for r, other in seeds):
            own.setdefault(one[0].id, two)
    return own


def _test_set(group: Group) -> str:
    return f"{group[0].spec.task} {content(group[0])['data']}"


def _ended(results: Iterable[Result]) -> Iterator[Group]:
    """Yields the runs that did not end well; those that ended differently share no row."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        if result.status != Status.OK:
            ended = canonical_digest([key(result), result.status, result.reason])
            groups.setdefault(ended, []).append(result)
    for group in groups.values():
        yield tuple(sorted(group, key=lambda result: result.spec.seed))


def _rows(
    groups: Sequence[Group],
    none: dict[str, Group],
    foreign: dict[str, Group],
    same_type: dict[str, Group],
    store: Results,
) -> list[Row]:
    """Builds the rows of one test set."""
    beside: list[_Beside] = []
    for group in groups:
        key = "" if group[0].spec.control != Control.NONE else group[0].id
        swapped = [_of_seeds(of.get(key), group) for of in (foreign, same_type)]
        beside.append((group, _of_seeds(none.get(group[0].id), group), swapped[0], swapped[1]))
    asked = [
        [several[0][0].main_metric, *([result.id for result in own or ()] for own in several)]
        for several in beside
    ]
    used = {result.id: result for several in beside for own in several for result in own or ()}
    figures = memoised(
        ["rows", asked], [*used.values()], store, lambda: _figures(beside, PredictionCache(store))
    )
    return [
        Row(
            group,
            score and Estimate(**score),
            delta and Estimate(**delta),
            gain and Estimate(**gain),
            kind and Estimate(**kind),
            individual and Estimate(**individual),
            locality and Locality(**locality),
            _seconds(base) if base else None,
            base,
            other,
            same,
            turned=turned and Turned(**turned),
        )
        for (group, base, other, same), (
            score,
            delta,
            gain,
            kind,
            individual,
            locality,
            turned,
        ) in zip(beside, figures, strict=True)
    ]


_Beside: TypeAlias = tuple[Group, Group | None, Group | None, Group | None]
"""A run, and those without knowledge, with foreign and of the same type that belong beside it."""


def _figures(
    beside: Sequence[_Beside], tables: PredictionCache
) -> list[list[dict[str, Any] | None]]:
    """Computes the figures of rows; all their resamples share their draws."""
    book = _Book(tables)
    waiting = [
        (
            book.score(group),
            book.difference(group, base),
            book.difference(group, foreign),
            book.difference(same, foreign),
            book.difference(group, same),
        )
        for group, base, foreign, same in beside
    ]
    book.work()
    figures: list[list[dict[str, Any] | None]] = []
    for (group, base, *_), asked in zip(beside, waiting, strict=True):
        values: list[Estimate | Locality | Turned | None] = [estimate() for estimate in asked]
        values += _changes(group, base, tables) if base else [None, None]
        figures.append([vars(value) if value else None for value in values])
    return figures


def _of_seeds(other: Group | None, group: Group) -> Group | None:
    """Returns the results of the same seeds; None if one is missing, lest a bad run be dropped."""
    by_seed = {result.spec.seed: result for result in other or ()}
    if any(result.spec.seed not in by_seed for result in group):
        return None
    return tuple(by_seed[result.spec.seed] for result in group)


class _Book:
    """Collects what is to be resampled, so that it is done at once.

    Args:
        tables: gives the statistics.
    """

    def __init__(self, tables: PredictionCache) -> None:
        self._tables = tables
        self._scores: list[tuple[Metric, Array]] = []
        self._pairs: list[Pair] = []
        self._found: tuple[list[Interval], list[Interval]] = ([], [])

    def work(self) -> None:
        """Resamples all that was asked for."""
        self._found = intervals(self._scores), differences(self._pairs)

    def score(self, group: Group) -> Callable[[], Estimate | None]:
        """Asks for the score of a run; of one seed it is stored."""
        scores = [result.score for result in group]
        values = [score.value for score in scores if score]
        if not values or len(values) < len(group):
            return lambda: None
        if len(group) == 1 and scores[0]:
            stored = Estimate(values[0], scores[0].low, scores[0].high)
            return lambda: stored
        asked = self._statistics(group, group)
        if asked is None:
            return lambda: Estimate(mean(values), deviation=stdev(values))
        number = len(self._scores)
        self._scores.append(asked[:2])
        return lambda: _estimate(self._found[0][number], values)

    def difference(self, group: Group | None, other: Group | None) -> Callable[[], Estimate | None]:
        """Asks for the paired difference of two runs."""
        asked = self._statistics(group, other) if group and other else None
        if asked is None:
            return lambda: None
        number, pair = len(self._pairs), Pair(*asked)
        self._pairs.append(pair)
        return lambda: _estimate(self._found[1][number], pair.by_seed.tolist())

    def _statistics(self, group: Group, other: Group) -> tuple[Metric, Array, Array] | None:
        return _paired(group, other, self._tables)


def _paired(one: Group, two: Group, tables: PredictionCache) -> tuple[Metric, Array, Array] | None:
    """Returns the metric and statistics of two runs; None if they are not over the same examples.

    A result whose predictions are lost or whose task is not installed is shown all the same.
    """
    try:
        if tables.unlike(one + two):
            return None
        metric = metric_of(one[0], one[0].main_metric or "")
        ids = tables.shared(one)
        return metric, tables.of(one, metric, ids), tables.of(two, metric, ids)
    except KbenchError:
        return None


def _estimate(interval: Interval, by_seed: Sequence[float]) -> Estimate:
    deviation = stdev(by_seed) if len(by_seed) > 1 else None
    return Estimate(interval.value, interval.low, interval.high, deviation)


def _changes(
    group: Group, base: Group, tables: PredictionCache
) -> tuple[Locality | None, Turned | None]:
    """Returns what became of examples: of those that knowledge should not touch, and of all."""
    try:
        if tables.unlike(group + base):
            return None, None
        sides = [[tables.rights(result) for result in side] for side in (base, group)]
        linked = [tables.predictions(result).linked for result in group]
    except KbenchError:
        return None, None
    bare, all_ = Counter[tuple[bool, bool]](), Counter[tuple[bool, bool]]()
    for *seed, known in zip(*sides, linked, strict=True):
        turns = [*zip(*seed, strict=True)]
        all_.update(turns)
        bare.update(turn for turn, one in zip(turns, known, strict=True) if not one)
    counted = bare[True, True] + bare[True, False]
    lost, gained = all_[True, False], all_[False, True]
    return (
        Locality(bare[True, False] / counted, counted) if counted else None,
        Turned(
            all_[True, True] + lost,
            lost,
            all_[False, False] + gained,
            gained,
            mcnemar(gained, lost) if len(group) == 1 else None,
        ),
    )


def _over_seeds(scores: Sequence[Score | None]) -> Score | None:
    """Returns the mean of scores, with the interval of a single one; None if one is missing."""
    there = [score for score in scores if score is not None]
    if len(there) < len(scores) or not there:
        return None
    value = mean(score.value for score in there)
    ends = {"low": there[0].low, "high": there[0].high} if len(there) == 1 else {}
    n = sum(score.n for score in there)
    return there[0].model_copy(update={"low": value, "high": value, **ends, "value": value, "n": n})


def _seconds(base: Group) -> float | None:
    name = "evaluate_seconds_per_example"
    known = [result.cost[name] for result in base if name in result.cost]
    return mean(known) if known else None


def leaders(shown: Sequence[Row], store: Results) -> frozenset[str]:
    """Returns the ids of the rows with the best score of their table, or statistically tied.

    A row is tied where a paired test of it against the best, with Holm's correction over the
    table, has p >= 0.05. Broken knowledge takes no part, nor do variants that dev did not choose.

    Returns:
        the id of the first result of each.
    """
    best: set[str] = set()
    able = [r for r in shown if r.score and r.first.spec.control == Control.NONE and r.chosen]
    for _, several in groupby(sorted(able, key=_table_of), key=_table_of):
        ranked = sorted(several, key=_score, reverse=True)
        runs = [result for row in ranked for result in row.results]
        asked = ["leaders", [[[r.id for r in row.results], _score(row)] for row in ranked]]
        best |= {*memoised(asked, runs, store, partial(_best, ranked, PredictionCache(store)))}
    return frozenset(best)


def _table_of(row: Row) -> tuple[str, ...]:
    return table_key(row.first)


def _score(row: Row) -> float:
    return row.score.value if row.score else 0.0


def _best(ranked: Sequence[Row], tables: PredictionCache) -> list[str]:
    first, *rest = ranked
    level = [row for row in rest if _score(row) == _score(first)]
    rest = rest[len(level) :]
    pairs, rivals = [], []
    for row in rest:
        base = _of_seeds(row.results, first.results)
        asked = _paired(first.results, base, tables) if base else None
        if asked:
            rivals.append(row)
            pairs.append(Pair(*asked))
    adjusted = holm([contrast.p for contrast in contrasts(pairs, RESAMPLES)])
    tied = [row for row, p in zip(rivals, adjusted, strict=True) if p >= LEVEL]
    return [row.first.id for row in (first, *level, *tied)]
