"""Intervals, paired differences and their tests, by resampling examples.

A bootstrap replicate draws examples with replacement, which is to weight their statistics by
multinomial counts; so all replicates of any metric are one matrix product and one call of the
metric's function of sums. A permutation swaps the two runs on some examples, which is to add or
subtract half the difference of their statistics: the same two steps. All pairs over as many
examples share the draws, so what a pair gets does not depend on the company it is in.

Where there are several seeds, seeds and examples are drawn together. Of ``S`` seeds ``S - 1`` are
drawn, since drawing all would make the variance too small by ``(S - 1) / S`` (McCarthy and
Snowden, 1985: The Bootstrap and Finite Population Sampling).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from threading import Lock
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kbench.metrics.base import Array, Metric

__all__ = [
    "LEVEL",
    "Contrast",
    "Interval",
    "Pair",
    "bootstrap_replicates",
    "contrasts",
    "difference",
    "differences",
    "holm",
    "interval",
    "intervals",
    "mcnemar",
]

RESAMPLES = 2000
DRAWS = 10_000
"""Resamples and permutations of a comparison."""
_CHUNK = 1 << 22
"""Numbers held at a time, to bound memory."""
_HELD, _LARGE = 1 << 24, 1 << 21
"""Numbers of a set of draws that is kept at most, and from which on in narrow numbers."""
_ROOM = 128 << 20
"""Bytes of all draws that are kept."""
_EQUAL = 1e-12
"""A permuted difference that is smaller by rounding alone is no smaller."""
LEVEL = 0.05
"""Below it a p-value is called significant."""
_POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% percentile bootstrap interval over ``n`` examples."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Pair:
    """Two runs over the same examples in the same order.

    Attributes:
        metric: gives the score of sums.
        ours: statistics, ``[examples, k]``, or of several seeds ``[seeds, examples, k]``.
        theirs: those of the other run, of the same seeds.
    """

    metric: Metric
    ours: Array
    theirs: Array

    def __post_init__(self) -> None:
        if self.ours.shape != self.theirs.shape:
            raise ValueError(f"not paired: {self.ours.shape} against {self.theirs.shape}")

    @property
    def by_seed(self) -> Array:
        """``score(ours) - score(theirs)`` for each seed. ``[seeds]``."""
        ours, theirs = (_seeded(table).sum(axis=1) for table in (self.ours, self.theirs))
        return self.metric.value(ours) - self.metric.value(theirs)


@dataclass(frozen=True)
class Contrast:
    """What can be said of a paired difference.

    Attributes:
        difference: ``score(ours) - score(theirs)``, the mean over seeds, with its interval.
        by_seed: the difference for each seed.
        p: how likely a difference as large is if the two runs were exchangeable on each example,
            both sides counted. Of several seeds it is about these seeds.
        test: ``McNemar's exact test`` or ``permutation test``.
        detectable: the smallest true difference that a test set as this shows with 80% power
            at the 5% level; None where the runs do not differ on any example.
    """

    difference: Interval
    by_seed: tuple[float, ...]
    p: float
    test: str
    detectable: float | None


def interval(metric: Metric, statistics: Array, seed: int = 0) -> Interval:
    """Returns a score, the mean over seeds, with its interval.

    Args:
        metric: gives the score of sums.
        statistics: ``[examples, k]``, or of several seeds ``[seeds, examples, k]``.
        seed: of the resampling.
    """
    return intervals([(metric, statistics)], seed=seed)[0]


def intervals(
    scored: Sequence[tuple[Metric, Array]], resamples: int | None = None, seed: int = 0
) -> list[Interval]:
    """Returns the score of each with its interval; see :func:`interval` for the shapes."""
    estimates = []
    for (metric, given), drawn in zip(
        scored, bootstrap_replicates(scored, resamples, seed), strict=True
    ):
        table = _seeded(given)
        value = float(metric.value(table.sum(axis=1)).mean())
        estimates.append(_percentiles(value, drawn, table.shape[1]))
    return estimates


def bootstrap_replicates(
    scored: Sequence[tuple[Metric, Array]], resamples: int | None = None, seed: int = 0
) -> list[Array]:
    """Returns the score of each, the mean over seeds, in every resample. ``[resamples]`` each.

    All that are over as many examples share the draws of them, and all of as many seeds those of
    seeds: so the difference of two is a replicate of their paired difference. See
    :func:`interval` for the shapes.
    """
    tables = [(metric, _seeded(statistics)) for metric, statistics in scored]
    drawn = _scores(tables, resamples or RESAMPLES, seed)
    return [_over_seeds(scores, seed) for scores in drawn]


def difference(metric: Metric, ours: Array, theirs: Array, seed: int = 0) -> Interval:
    """Returns ``score(ours) - score(theirs)``, paired; see :class:`Pair` for the shapes."""
    return differences([Pair(metric, ours, theirs)], seed=seed)[0]


def differences(
    pairs: Sequence[Pair], resamples: int | None = None, seed: int = 0
) -> list[Interval]:
    """Returns the paired difference of each: both runs are resampled by the same draws."""
    drawn = _resampled(pairs, resamples or RESAMPLES, seed)
    return [
        _percentiles(float(pair.by_seed.mean()), values, pair.ours.shape[-2])
        for pair, values in zip(pairs, drawn, strict=True)
    ]


def contrasts(pairs: Sequence[Pair], resamples: int = DRAWS, seed: int = 0) -> list[Contrast]:
    """Compares the runs of each pair: difference, interval, p-value and what could be shown.

    Runs of one seed that are right or wrong on each example are compared by McNemar's exact test,
    the limit of the permutation test; all others by that test with ``resamples`` permutations.

    Args:
        pairs: the runs.
        resamples: of the bootstrap, and permutations of the test.
        seed: of both.
    """
    drawn = _resampled(pairs, resamples, seed)
    exact = [_hits(pair) for pair in pairs]
    tested = [pair for pair, sharp in zip(pairs, exact, strict=True) if not sharp]
    permuted = iter(_permuted(tested, resamples, seed))
    told = []
    for pair, sharp, values in zip(pairs, exact, drawn, strict=True):
        each = pair.by_seed
        told.append(
            Contrast(
                _percentiles(float(each.mean()), values, pair.ours.shape[-2]),
                tuple(each.tolist()),
                _mcnemar(pair) if sharp else next(permuted),
                "McNemar's exact test" if sharp else "permutation test",
                _detectable(values),
            )
        )
    return told


def holm(values: Sequence[float]) -> list[float]:
    """Returns p-values of a family, corrected for their number (Holm, 1979)."""
    given = np.asarray(values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    raised = given[order] * np.arange(len(given), 0, -1)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return [float(value) for value in adjusted]


def _seeded(statistics: Array) -> Array:
    """``[examples, k]`` or ``[seeds, examples, k]`` -> the latter."""
    return statistics if statistics.ndim == 3 else statistics[np.newaxis]


def _percentiles(value: float, replicates: Array, n: int) -> Interval:
    if not n:
        return Interval(value, value, value, 0)
    low, high = np.quantile(replicates, [0.025, 0.975])
    return Interval(value, float(low), float(high), n)


def _detectable(replicates: Array) -> float | None:
    """The normal approximation: (z of the level + z of the power) standard errors."""
    normal = NormalDist()
    factor = normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(_POWER)
    error = float(np.std(replicates))
    return factor * error if error > _EQUAL else None


def _over_seeds(scores: Array, seed: int) -> Array:
    """Draws seeds too. ``[resamples, seeds] -> [resamples]``."""
    resamples, seeds = scores.shape
    if seeds == 1:
        return scores[:, 0]
    rng = np.random.default_rng([seed, seeds])
    drawn = rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=resamples)
    return cast("Array", (scores * drawn).sum(axis=1) / (seeds - 1))


def _resampled(pairs: Sequence[Pair], resamples: int, seed: int) -> list[Array]:
    """Returns the difference of each pair in every resample. ``[resamples]`` each."""
    # A table that many pairs share, such as the yardstick's, is scored once.
    tables = {id(t): (p.metric, t) for p in pairs for t in (p.ours, p.theirs)}
    drawn = dict(
        zip(tables, bootstrap_replicates([*tables.values()], resamples, seed), strict=True)
    )
    return [drawn[id(p.ours)] - drawn[id(p.theirs)] for p in pairs]


def _scores(tables: Sequence[tuple[Metric, Array]], resamples: int, seed: int) -> list[Array]:
    """Returns the scores of tables ``[seeds, n, k]`` in every resample. ``[resamples, seeds]``."""
    scores: dict[int, Array] = {}
    for size in {table.shape[1] for _, table in tables}:
        at = [number for number, (_, table) in enumerate(tables) if table.shape[1] == size]
        same = _replicates([tables[number] for number in at], resamples, seed)
        scores |= zip(at, same, strict=True)
    return [scores[number] for number in range(len(tables))]


def _replicates(tables: Sequence[tuple[Metric, Array]], resamples: int, seed: int) -> list[Array]:
    """Returns the same for tables over as many examples."""
    replicates = [np.zeros((resamples, len(table))) for _, table in tables]
    n = tables[0][1].shape[1]
    columns = np.concatenate([_columns(table) for _, table in tables], axis=1)
    for rows, counts in _counts(n, columns.shape[1], resamples, seed):
        start, sums = 0, counts @ columns
        for (metric, table), scores in zip(tables, replicates, strict=True):
            seeds, _, k = table.shape
            part = sums[:, start : start + seeds * k].reshape(-1, seeds, k)
            scores[rows] = metric.value(part)
            start += seeds * k
    return replicates


def _columns(table: Array) -> Array:
    """``[seeds, n, k] -> [n, seeds * k]``."""
    seeds, n, k = table.shape
    return table.transpose(1, 0, 2).reshape(n, seeds * k)


def _chunks(n: int, width: int, resamples: int) -> Iterator[slice]:
    rows = max(1, _CHUNK // max(n, width, 1))
    return (slice(at, min(at + rows, resamples)) for at in range(0, resamples, rows))


def _counts(n: int, width: int, resamples: int, seed: int) -> Iterator[tuple[slice, Array]]:
    """Yields how often each resample has drawn each example. ``[rows, n]``."""
    if not n:
        return
    held = _held.of(n, resamples, seed) if n * resamples <= _HELD else None
    rng = np.random.default_rng(seed)
    for rows in _chunks(n, width, resamples):
        counts = _drawn(rng, n, rows.stop - rows.start) if held is None else held[rows]
        yield rows, counts.astype(np.float64, copy=False)


def _drawn(rng: np.random.Generator, n: int, many: int) -> NDArray[np.integer]:
    drawn = rng.integers(0, n, size=(many, n))
    drawn += np.arange(many)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=many * n).reshape(many, n)


class _Held:
    """Draws that are kept: all that is over as many examples shares them, and they cost the most.

    What is asked for often, by the hundred buckets of a board, is kept as it is multiplied; what is
    large, for comparisons, as numbers of one byte, or of two where one example is drawn that often.

    Args:
        room: bytes of all that is kept.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: dict[tuple[int, ...], NDArray[Any]] = {}
        self._lock = Lock()

    def of(self, n: int, many: int, seed: int) -> NDArray[Any]:
        """Returns how often each of ``many`` resamples has drawn each example. ``[many, n]``."""
        with self._lock:
            return self._of(n, many, seed)

    def _of(self, *key: int) -> NDArray[Any]:
        n, many, seed = key
        counts = self._kept.pop(key, None)
        if counts is None:
            rng, pieces = np.random.default_rng(seed), []
            for rows in _chunks(n, 1, many):  # each made narrow before the next is drawn
                piece = _drawn(rng, n, rows.stop - rows.start)
                kind = np.min_scalar_type(piece.max()) if n * many > _LARGE else np.float64
                pieces.append(piece.astype(kind))
            counts = np.concatenate(pieces)
            counts.flags.writeable = False
        self._kept[key] = counts  # the last one asked for is the last to go
        while sum(one.nbytes for one in self._kept.values()) > self._room:
            del self._kept[next(iter(self._kept))]
        return counts


_held = _Held(_ROOM)


def _hits(pair: Pair) -> bool:
    """Whether each example is right or wrong, in one seed: the statistics of an accuracy."""
    tables = [_seeded(table) for table in (pair.ours, pair.theirs)]
    return all(
        len(table) == 1
        and table.shape[2] == 2
        and bool(np.isin(table[..., 0], (0, 1)).all() and (table[..., 1] == 1).all())
        for table in tables
    )


def _mcnemar(pair: Pair) -> float:
    """The two-sided exact test of McNemar (1947): is either run right more often alone?"""
    change = _seeded(pair.ours - pair.theirs)[0, :, 0]
    return mcnemar(int((change > 0).sum()), int((change < 0).sum()))


def mcnemar(gained: int, lost: int) -> float:
    """Returns the p-value of McNemar's two-sided exact test.

    Args:
        gained: examples that the one run alone has right.
        lost: those that the other alone has right.
    """
    from scipy.special import bdtr  # scipy.stats takes as long to import as a table to make

    # Twice the tail of the binomial distribution with a fair coin.
    return float(min(1.0, 2 * bdtr(min(gained, lost), gained + lost, 0.5)))


def _permuted(pairs: Sequence[Pair], resamples: int, seed: int) -> list[float]:
    """Returns the p-value of each pair when the runs are swapped on every example by a coin."""
    as_large = np.ones(len(pairs))  # what was observed is one of the permutations
    for size in {pair.ours.shape[-2] for pair in pairs}:
        numbers = [at for at, pair in enumerate(pairs) if pair.ours.shape[-2] == size]
        as_large[numbers] += _as_large([pairs[at] for at in numbers], resamples, seed)
    return [float(value) for value in as_large / (resamples + 1)]


def _as_large(pairs: Sequence[Pair], resamples: int, seed: int) -> Array:
    """Counts the permutations with a difference as large as the observed one. ``[pairs]``.

    A swapped example takes half the difference from one run and gives it to the other, twice: so
    the sums of both are their mean, plus and minus a signed sum of half differences. That is half
    the difference of the signed sums of each, which are made once for all pairs that it is in.
    """
    tables = {id(table): _seeded(table) for pair in pairs for table in (pair.ours, pair.theirs)}
    columns = np.concatenate([*map(_columns, tables.values())], axis=1)
    ends = np.cumsum([0, *(len(table) * table.shape[2] for table in tables.values())]).tolist()
    places = dict(zip(tables, map(slice, ends, ends[1:]), strict=True))
    means = [_seeded(pair.ours + pair.theirs).sum(axis=1) / 2 for pair in pairs]
    bounds = [abs(pair.by_seed.mean()) - _EQUAL for pair in pairs]
    counts = np.zeros(len(pairs))
    rng = np.random.default_rng(seed)
    n, width = columns.shape
    for rows in _chunks(n, width, resamples):
        coins = rng.random((rows.stop - rows.start, n), dtype=np.float32) < 0.5
        sums = np.where(coins, 0.5, -0.5) @ columns
        for at, (pair, mean) in enumerate(zip(pairs, means, strict=True)):
            moved = sums[:, places[id(pair.ours)]] - sums[:, places[id(pair.theirs)]]
            moved = moved.reshape(-1, *mean.shape)
            each = pair.metric.value(mean + moved) - pair.metric.value(mean - moved)
            counts[at] += (abs(each.mean(axis=1)) >= bounds[at]).sum()
    return counts
