"""The bootstrap: against every resample there is, and against what an interval promises."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from kbench import statistics
from kbench.metrics import Accuracy, LooseMacroF1, LooseMicroF1
from kbench.statistics import difference, interval

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


def test_nineteen_of_twenty_intervals_cover_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    rng = np.random.default_rng(5)
    covered = []
    for trial in range(300):
        hits = rng.random(100) < 0.4
        found = interval(Accuracy(), np.stack([hits, np.ones(100)], axis=1), seed=trial)
        covered.append(found.low <= 0.4 <= found.high)
    assert 0.90 <= np.mean(covered) <= 0.985


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


def test_unpaired_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="not paired"):
        difference(Accuracy(), right(0.5, 4), right(0.5, 6))
