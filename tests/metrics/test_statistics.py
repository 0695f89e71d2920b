"""Resampling: against every resample and permutation there is, and against what it promises."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbench.metrics import (
    Accuracy,
    LooseMacroF1,
    LooseMicroF1,
    Metric,
    MicroF1WithoutNull,
    statistics,
)
from kbench.metrics.statistics import Pair, contrasts, difference, holm, interval, intervals

GOLD = [("a",), ("a", "b"), ("c",), ("b",), ("a", "c")]
GUESS = [("a", "b"), ("a",), (), ("b",), ("b", "c")]
OTHER = [("a",), ("b",), ("c",), ("a",), ()]


def all_resamples(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def test_an_interval_is_that_of_all_possible_resamples() -> None:
    metric = LooseMicroF1()
    table = metric.statistics(GOLD, GUESS)
    exact = [
        float(metric.value(table[list(drawn)].sum(axis=0))) for drawn in product(range(5), repeat=5)
    ]
    found = interval(metric, table)
    assert found.value == metric.score(GOLD, GUESS)
    assert found.n == 5
    assert (found.low, found.high) == pytest.approx(all_resamples(exact), abs=0.03)
    assert found.low < found.value < found.high


def test_a_difference_is_that_of_all_possible_paired_resamples() -> None:
    metric = LooseMacroF1()
    ours, theirs = metric.statistics(GOLD, GUESS), metric.statistics(GOLD, OTHER)
    exact = [
        float(metric.value(ours[list(d)].sum(0)) - metric.value(theirs[list(d)].sum(0)))
        for d in product(range(5), repeat=5)
    ]
    found = difference(metric, ours, theirs)
    assert found.value == metric.score(GOLD, GUESS) - metric.score(GOLD, OTHER)
    assert (found.low, found.high) == pytest.approx(all_resamples(exact), abs=0.05)


def right(share: float, n: int) -> statistics.Array:
    hits = np.arange(n) < share * n
    return np.stack([hits.astype(float), np.ones(n)], axis=1)


def test_the_width_is_that_of_a_proportion() -> None:
    found = interval(Accuracy(), right(0.3, 1000))
    error = (0.3 * 0.7 / 1000) ** 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert found.value == 0.3


Draw = Callable[[np.random.Generator], statistics.Array]


def of_sets(rng: np.random.Generator) -> statistics.Array:
    """Shared, predicted and gold types of 400 examples: half of two types found, 0.6 wrong ones."""
    gold = rng.integers(1, 4, 400)
    shared = rng.binomial(gold, 0.5)
    return np.stack([shared, shared + rng.poisson(0.6, 400), gold], axis=1).astype(float)


def of_hits(rng: np.random.Generator) -> statistics.Array:
    return np.stack([rng.random(400) < 0.3, np.ones(400)], axis=1).astype(float)


def of_relations(rng: np.random.Generator) -> statistics.Array:
    """Right, predicted and gold ones: 0.4 are a relation, of these 0.75 told, 0.6 rightly."""
    gold = rng.random(400) < 0.4
    told = np.where(gold, rng.random(400) < 0.75, rng.random(400) < 0.2)
    right = gold & told & (rng.random(400) < 0.8)
    return np.stack([right, told, gold], axis=1).astype(float)


@pytest.mark.parametrize(
    ("metric", "draw", "truth"),
    [
        (Accuracy(), of_hits, 0.3),
        (LooseMicroF1(), of_sets, 2 * 1.0 / (1.6 + 2.0)),
        (MicroF1WithoutNull(), of_relations, 2 * 0.24 / (0.3 + 0.12 + 0.4)),
    ],
)
def test_nineteen_of_twenty_intervals_cover_the_truth(
    metric: Metric, draw: Draw, truth: float
) -> None:
    rng = np.random.default_rng(5)
    tables = [(metric, draw(rng)) for _ in range(3000)]
    found = intervals(tables, resamples=1000)
    assert np.mean([i.low <= truth <= i.high for i in found]) == pytest.approx(0.95, abs=0.015)


def planted(rng: np.random.Generator) -> Pair:
    """Two runs over 400 examples that agree on most; the one is right on 5% more."""
    theirs = rng.random(400) < 0.5
    ours = theirs | (rng.random(400) < 0.1)
    return Pair(Accuracy(), *(np.stack([h, np.ones(400)], 1).astype(float) for h in (ours, theirs)))


def test_a_planted_difference_is_found_by_pairs_and_missed_without() -> None:
    rng = np.random.default_rng(3)
    paired = [planted(rng) for _ in range(200)]
    apart = [Pair(p.metric, p.ours, p.theirs[rng.permutation(400)]) for p in paired]
    for pairs, least, most in ((paired, 0.95, 1), (apart, 0, 0.4)):
        found = contrasts(pairs, resamples=500)
        assert least <= np.mean([c.p < 0.05 for c in found]) <= most
        assert least <= np.mean([c.difference.low > 0 for c in found]) <= most


@pytest.mark.parametrize("exact", [True, False])
def test_where_nothing_is_planted_little_is_found(exact: bool) -> None:
    rng = np.random.default_rng(4)
    draw, metric = (of_hits, Accuracy()) if exact else (of_sets, LooseMicroF1())
    pairs = [Pair(metric, draw(rng), draw(rng)) for _ in range(1000)]
    shares = [c.p < 0.05 for c in contrasts(pairs, resamples=400)]
    assert 0.02 <= np.mean(shares) <= 0.065


def test_four_of_five_tests_show_a_difference_of_the_size_that_can_be_detected() -> None:
    rng = np.random.default_rng(9)
    told = contrasts([planted(rng) for _ in range(100)], resamples=400)
    size = float(np.median([c.detectable for c in told]))
    assert 0.01 < size < 0.05
    # Such a difference, with the variance of the planted one: some examples are lost as well.
    spread = 0.05 * 0.95 + size**2

    def pair() -> Pair:
        change = rng.choice(
            [1, -1, 0], 400, p=[(spread + size) / 2, (spread - size) / 2, 1 - spread]
        )
        as_before = rng.random(400) < 0.5
        hits = [np.where(change, change == sign, as_before) for sign in (1, -1)]
        return Pair(Accuracy(), *(np.stack([h, np.ones(400)], 1).astype(float) for h in hits))

    found = contrasts([pair() for _ in range(1000)], resamples=400)
    assert np.mean([c.difference.low > 0 for c in found]) == pytest.approx(0.8, abs=0.05)


def test_the_exact_test_is_that_of_mcnemar() -> None:
    # 9 gained, 2 lost, 20 as before: 2 * P(at most 2 of 11 coins) = 2 * (1 + 11 + 55) / 2**11.
    ours, theirs = [1] * 9 + [0] * 2 + [1] * 20, [0] * 9 + [1] * 2 + [1] * 20
    pair = Pair(Accuracy(), *(np.stack([h, np.ones(31)], 1).astype(float) for h in (ours, theirs)))
    (found,) = contrasts([pair], resamples=10)
    assert found.test == "McNemar's exact test"
    assert found.p == pytest.approx(134 / 2048)
    assert found.difference.value == pytest.approx(7 / 31)
    (same,) = contrasts([Pair(Accuracy(), pair.ours, pair.ours.copy())], resamples=10)
    assert (same.p, same.detectable) == (1, None)


def test_the_permutation_test_is_that_of_all_swaps() -> None:
    metric = LooseMacroF1()
    ours, theirs = metric.statistics(GOLD, GUESS), metric.statistics(GOLD, OTHER)
    observed = abs(metric.score(GOLD, GUESS) - metric.score(GOLD, OTHER))
    as_large = []
    for swaps in product((False, True), repeat=5):
        swap = np.array(swaps)[:, None]
        one, two = np.where(swap, theirs, ours), np.where(swap, ours, theirs)
        size = abs(float(metric.value(one.sum(0)) - metric.value(two.sum(0))))
        as_large.append(size >= observed - 1e-12)
    (found,) = contrasts([Pair(metric, ours, theirs)])
    assert found.test == "permutation test"
    assert found.p == pytest.approx(np.mean(as_large), abs=0.02)


def test_a_permutation_test_of_an_accuracy_is_near_the_exact_one() -> None:
    pair = planted(np.random.default_rng(0))
    few = Pair(Accuracy(), pair.ours[:60], pair.theirs[:60])
    (exact,) = contrasts([few])
    thrice = (np.pad(t, ((0, 0), (0, 1)), constant_values=1) for t in (few.ours, few.theirs))
    (permuted,) = contrasts([Pair(LooseShare(), *thrice)])
    assert permuted.test == "permutation test"
    assert permuted.p == pytest.approx(exact.p, abs=0.02)


class LooseShare(Metric):
    """The share of the first column, told in three columns so that it is no accuracy."""

    name = variant = "share"

    def statistics(self, labels: object, predictions: object) -> statistics.Array:
        raise NotImplementedError

    def value(self, sums: statistics.Array) -> statistics.Array:
        return sums[..., 0] / np.maximum(sums[..., 1], 1)


def test_holm_by_hand() -> None:
    # Holm (1979): times 4, 3, 2, 1 in rising order, never falling, at most 1.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_never_helps_keeps_the_order_and_stays_below_bonferroni(values: list[float]) -> None:
    found = holm(values)
    for value, raised in zip(values, found, strict=True):
        assert value <= raised <= min(1, value * len(values)) + 1e-12
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()


@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_a_contrast_agrees_with_its_mirror(hits: list[tuple[bool, bool]]) -> None:
    tables = [np.stack([[h[side] for h in hits], np.ones(len(hits))], 1) for side in (0, 1)]
    ours, theirs = (table.astype(float) for table in tables)
    for metric in (Accuracy(), LooseMicroF1()):
        k = 2 if isinstance(metric, Accuracy) else 3
        one, two = (np.pad(t, ((0, 0), (0, k - 2)), constant_values=1) for t in (ours, theirs))
        (there,) = contrasts([Pair(metric, one, two)], resamples=60)
        (back,) = contrasts([Pair(metric, two, one)], resamples=60)
        assert there.p == back.p
        assert there.difference.low == pytest.approx(-back.difference.high)
        assert 0 < there.p <= 1
        assert there.difference.low <= there.difference.high


def noisy(rng: np.random.Generator, seeds: int, deviation: float, n: int = 400) -> statistics.Array:
    """Runs that are right on half of the examples, give or take the luck of a seed."""
    easy = rng.random(n)
    rights = [easy < 0.5 + deviation * rng.standard_normal() for _ in range(seeds)]
    return np.stack([np.stack([r, np.ones(n)], 1).astype(float) for r in rights])


def test_an_interval_over_seeds_knows_of_seeds_and_examples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    rng = np.random.default_rng(2)
    covered, wide = [], []
    for _ in range(200):
        table = noisy(rng, 5, 0.03)
        found = interval(Accuracy(), table)
        assert found.value == pytest.approx(table[..., 0].mean())
        covered.append(found.low <= 0.5 <= found.high)
        one = interval(Accuracy(), table[0])
        wide.append((found.high - found.low) / (one.high - one.low))
    assert np.mean(covered) >= 0.92
    assert np.median(wide) > 1.02  # though it is of five runs, it is no narrower


def test_equal_seeds_are_as_one() -> None:
    table = right(0.3, 200)
    assert vars(interval(Accuracy(), np.stack([table] * 3))) == pytest.approx(
        vars(interval(Accuracy(), table))
    )


def test_the_spread_of_seeds_is_not_made_too_small() -> None:
    # Every example alike: all that varies is the seed, by 0.1 between three.
    rates = np.array([0.4, 0.5, 0.6])
    tables = np.stack([np.tile([rate, 1.0, 1.0], (50, 1)) for rate in rates])
    (found,) = contrasts([Pair(LooseShare(), tables, np.zeros_like(tables))])
    assert found.by_seed == pytest.approx((0.4, 0.5, 0.6))
    error = found.detectable / (1.959964 + 0.841621) if found.detectable else 0
    assert error == pytest.approx(0.1 / 3**0.5, rel=0.03)  # the standard error of the mean
    assert found.test == "permutation test"


def test_company_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    pairs = [Pair(LooseMicroF1(), of_sets(rng), of_sets(rng)) for _ in range(3)]
    short = Pair(LooseMicroF1(), pairs[0].ours[:50], pairs[0].theirs[:50])
    alone = [contrasts([pair], resamples=300)[0] for pair in (*pairs, short)]
    together = contrasts([*pairs, short], resamples=300)
    assert together == alone
    monkeypatch.setattr(statistics, "_CHUNK", 401)
    assert contrasts([*pairs, short], resamples=300) == alone


def test_a_model_differs_from_itself_by_exactly_nothing() -> None:
    table = LooseMicroF1().statistics(GOLD, GUESS)
    found = difference(LooseMicroF1(), table, table.copy())
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_pairing_makes_the_difference_sharper() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(500) < 0.5
    better = hits | (rng.random(500) < 0.1)
    ours, theirs = (np.stack([h.astype(float), np.ones(500)], 1) for h in (better, hits))
    paired = difference(Accuracy(), ours, theirs)
    unpaired = difference(Accuracy(), ours, theirs[rng.permutation(500)])
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)
    assert paired.low > 0 > unpaired.low


def test_a_difference_changes_its_sign_with_its_sides() -> None:
    ours, theirs = right(0.6, 200), right(0.5, 200)[::-1]
    there, back = difference(Accuracy(), ours, theirs), difference(Accuracy(), theirs, ours)
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )


def test_the_seed_decides_and_the_memory_bound_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    table = right(0.4, 60)
    one = interval(Accuracy(), table, seed=1)
    assert interval(Accuracy(), table, seed=1) == one
    assert any(
        interval(Accuracy(), right(0.4, 57), s) != interval(Accuracy(), right(0.4, 57), 1)
        for s in (2, 3)
    )
    monkeypatch.setattr(statistics, "_CHUNK", 61)
    assert interval(Accuracy(), table, seed=1) == one


def test_the_seed_of_a_comparison_reaches_its_permutations() -> None:
    rng = np.random.default_rng(2)
    pair = Pair(LooseShare(), rng.random((40, 2)), rng.random((40, 2)))
    first, again, other = (contrasts([pair], 200, seed)[0] for seed in (0, 0, 1))
    assert first == again
    assert first.difference.value == other.difference.value
    assert first.p != other.p


def test_more_examples_than_the_memory_bound_still_get_an_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "_CHUNK", 10)
    monkeypatch.setattr(statistics, "RESAMPLES", 50)
    found = interval(Accuracy(), right(0.5, 40))
    assert found.low < 0.5 < found.high


def test_nothing_to_resample_is_a_point() -> None:
    empty = Accuracy().statistics([], [])
    assert interval(Accuracy(), empty) == statistics.Interval(0, 0, 0, 0)
    assert difference(Accuracy(), empty, empty) == statistics.Interval(0, 0, 0, 0)
    (found,) = contrasts([Pair(LooseMicroF1(), np.zeros((0, 3)), np.zeros((0, 3)))])
    assert (found.difference.value, found.p, found.detectable) == (0, 1, None)


def test_unpaired_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="not paired"):
        difference(Accuracy(), right(0.5, 4), right(0.5, 6))
