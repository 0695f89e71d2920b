"""Metrics against values worked out by hand, and against those of scikit-learn."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from sklearn.preprocessing import MultiLabelBinarizer

from kbench.metrics import Accuracy, LooseMacroF1, LooseMicroF1, Metric, StrictAccuracy

TYPES = ("city", "group", "person", "place", "river")
METRICS = (Accuracy(), StrictAccuracy(), LooseMicroF1(), LooseMacroF1())
SETS = (StrictAccuracy(), LooseMicroF1(), LooseMacroF1())

label_sets = st.sets(st.sampled_from(TYPES)).map(lambda found: tuple(sorted(found)))
pairs = st.lists(st.tuples(label_sets, label_sets), min_size=1, max_size=12)
every = pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.variant)


def test_worked_by_hand() -> None:
    gold = [("city", "place"), ("person",), ("river",)]
    guess = [("city",), ("group", "person"), ()]
    # Precisions 1, 1/2, 0; recalls 1/2, 1, 0; overlaps 1, 1, 0 of 3 predicted and 4 gold.
    assert LooseMicroF1().score(gold, guess) == pytest.approx(float(Fraction(2 * 2, 3 + 4)))
    assert LooseMacroF1().score(gold, guess) == pytest.approx(0.5)
    assert StrictAccuracy().score(gold, guess) == 0
    assert StrictAccuracy().score(gold, [("place", "city"), ("group",), ("river",)]) == (
        pytest.approx(2 / 3)
    )
    assert Accuracy().score(["a", "b", "c", "a"], ["a", "c", "c", "b"]) == 0.5


def test_macro_is_the_f_of_the_means_and_not_the_mean_of_the_fs() -> None:
    gold = [("city",), ("city", "place")]
    guess = [("city", "group", "river"), ("city",)]
    precision, recall = (1 / 3 + 1) / 2, (1 + 1 / 2) / 2
    f_of_means = 2 * precision * recall / (precision + recall)
    mean_of_fs = (2 * (1 / 3) / (4 / 3) + 2 * (1 / 2) / (3 / 2)) / 2
    assert LooseMacroF1().score(gold, guess) == pytest.approx(f_of_means)
    assert abs(f_of_means - mean_of_fs) > 0.05


@settings(deadline=None)
@given(pairs=pairs)
def test_set_metrics_are_those_of_scikit_learn(
    pairs: list[tuple[tuple[str, ...], tuple[str, ...]]],
) -> None:
    gold, guess = [g for g, _ in pairs], [p for _, p in pairs]
    binarizer = MultiLabelBinarizer(classes=TYPES).fit([TYPES])
    truth, predicted = binarizer.transform(gold), binarizer.transform(guess)
    micro = f1_score(truth, predicted, average="micro", zero_division=0)
    assert LooseMicroF1().score(gold, guess) == pytest.approx(micro)
    assert StrictAccuracy().score(gold, guess) == pytest.approx(accuracy_score(truth, predicted))
    precision = precision_score(truth, predicted, average="samples", zero_division=0)
    recall = recall_score(truth, predicted, average="samples", zero_division=0)
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert LooseMacroF1().score(gold, guess) == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from(TYPES)), min_size=1))
def test_accuracy_is_scikit_learns_accuracy_and_micro_f1(pairs: list[tuple[str, str]]) -> None:
    gold, guess = [g for g, _ in pairs], [p for _, p in pairs]
    score = Accuracy().score(gold, guess)
    assert score == pytest.approx(accuracy_score(gold, guess))
    assert score == pytest.approx(f1_score(gold, guess, average="micro"))


@every
@settings(deadline=None)
@given(pairs=pairs, seed=st.integers(0, 99))
def test_a_score_depends_on_sums_alone_and_lies_between_nothing_and_all(
    metric: Metric, pairs: list[tuple[tuple[str, ...], tuple[str, ...]]], seed: int
) -> None:
    gold, guess = [g for g, _ in pairs], [p for _, p in pairs]
    score = metric.score(gold, guess)
    assert 0 <= score <= 1
    order = np.random.default_rng(seed).permutation(len(pairs))
    shuffled = metric.score([gold[i] for i in order], [guess[i] for i in order])
    assert shuffled == pytest.approx(score)
    assert metric.score(gold * 3, guess * 3) == pytest.approx(score)
    statistics = metric.statistics(gold, guess)
    assert statistics.shape[0] == len(pairs)
    stacked = np.stack([statistics.sum(0), statistics[0], np.zeros_like(statistics[0])])
    alone = metric.score(gold[:1], guess[:1])
    assert metric.value(stacked).tolist() == pytest.approx([score, alone, 0])
    assert metric.value(stacked[:, None]).shape == (3, 1)


@every
def test_all_right_is_one_and_all_wrong_or_nothing_is_zero(metric: Metric) -> None:
    gold = [("city",), ("person", "place")]
    assert metric.score(gold, gold) == 1
    assert metric.score(gold, [("river",), ("group",)]) == 0
    assert metric.score(gold, [(), ()]) == 0
    assert metric.score([], []) == 0


@every
def test_as_many_predictions_as_labels_are_expected(metric: Metric) -> None:
    with pytest.raises(ValueError):
        metric.score([("city",)], [])


@pytest.mark.parametrize("metric", SETS, ids=lambda m: m.variant)
def test_neither_order_nor_repetition_counts_in_a_set(metric: Metric) -> None:
    gold = [("city", "place"), ("river",)]
    once, again = [("place", "city"), ("group",)], [("city", "place", "city"), ("group", "group")]
    assert metric.score(gold, once) == metric.score(gold, again) > 0


def test_names_and_variants_are_unique() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert len({metric.variant for metric in METRICS}) == len(METRICS)
