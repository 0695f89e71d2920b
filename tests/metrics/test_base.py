"""Metrics against values worked out by hand, and against those of scikit-learn."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from sklearn.preprocessing import MultiLabelBinarizer

from kbench.data import is_right
from kbench.metrics import (
    Accuracy,
    LooseMacroF1,
    LooseMicroF1,
    MacroF1,
    Metric,
    MicroF1WithoutNull,
    StrictAccuracy,
)

TYPES = ("city", "group", "person", "place", "river")
SETS = (StrictAccuracy(), LooseMicroF1(), LooseMacroF1())
METRICS = (Accuracy(), MicroF1WithoutNull(), MacroF1(), *SETS)
NULL = "no_relation"

label_sets = st.sets(st.sampled_from(TYPES)).map(lambda found: tuple(sorted(found)))
pairs = st.lists(st.tuples(label_sets, label_sets), min_size=1, max_size=12)
classes = st.sampled_from((*TYPES, NULL))
single_pairs = st.lists(st.tuples(classes, classes), min_size=1, max_size=20)
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


def test_two_definitions_never_share_a_variant() -> None:
    others = [MicroF1WithoutNull("NA"), *(type(metric)(fallback=True) for metric in SETS)]
    variants = [metric.variant for metric in (*METRICS, *others)]
    assert len(set(variants)) == len(variants)
    assert variants == [
        "accuracy",
        "micro-f1-without-null:no_relation",
        "macro-f1-over-classes",
        "strict-set-accuracy",
        "loose-micro-f1",
        "loose-macro-f1",
        "micro-f1-without-null:NA",
        "strict-set-accuracy:argmax-fallback",
        "loose-micro-f1:argmax-fallback",
        "loose-macro-f1:argmax-fallback",
    ]


@pytest.mark.parametrize("metric", SETS, ids=lambda m: m.variant)
def test_a_fallback_changes_the_variant_and_no_formula(metric: Metric) -> None:
    gold, guess = [("city", "place"), ("river",)], [("city",), ("river",)]
    assert type(metric)(fallback=True).score(gold, guess) == metric.score(gold, guess)


def test_micro_f1_without_null_worked_by_hand() -> None:
    gold = ["born", "born", "died", NULL, NULL, "died"]
    guess = ["born", "died", NULL, "born", NULL, "died"]
    metric = MicroF1WithoutNull()
    table = metric.statistics(gold, guess)
    assert table.tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]]
    # 2 right of 4 predicted and of 4 gold relations.
    sums = table.sum(axis=0)
    assert (metric.precision(sums), metric.recall(sums), metric.value(sums)) == (0.5, 0.5, 0.5)
    # Files that call the null label otherwise are scored as if it were a relation.
    assert MicroF1WithoutNull("NA").score(gold, guess) == pytest.approx(3 / 6)


@pytest.mark.parametrize(
    ("gold", "guess", "precision", "recall"),
    [
        pytest.param(["a", NULL], [NULL, NULL], 1, 0, id="nothing predicted"),
        pytest.param([NULL, NULL], [NULL, NULL], 1, 0, id="all null"),
        pytest.param([NULL, NULL], ["a", NULL], 0, 0, id="no gold relation"),
        pytest.param(["a", NULL], ["b", "a"], 0, 0, id="all wrong"),
    ],
)
def test_edges_of_the_official_tacred_scorer(
    gold: list[str], guess: list[str], precision: float, recall: float
) -> None:
    metric = MicroF1WithoutNull()
    sums = metric.statistics(gold, guess).sum(axis=0)
    assert (metric.precision(sums), metric.recall(sums)) == (precision, recall)
    assert metric.value(sums) == 0


@given(pairs=single_pairs)
def test_micro_f1_without_null_is_scikit_learns_over_the_other_labels(
    pairs: list[tuple[str, str]],
) -> None:
    gold, guess = [g for g, _ in pairs], [p for _, p in pairs]
    expected = f1_score(gold, guess, labels=TYPES, average="micro", zero_division=0)
    assert MicroF1WithoutNull().score(gold, guess) == pytest.approx(expected)


def test_macro_f1_over_classes_worked_by_hand() -> None:
    gold, guess = ["a", "a", "a", "b", "b"], ["a", "a", "b", "b", "c"]
    metric = MacroF1()
    assert metric.statistics(gold, guess).sum(axis=0).tolist() == [2, 2, 3, 1, 2, 2]
    # F of a is 4/5, of b 1/2; c has no gold example and is no class of the mean.
    assert metric.score(gold, guess) == pytest.approx((4 / 5 + 1 / 2) / 2)
    assert Accuracy().score(gold, guess) == 3 / 5
    # A class that is never predicted counts with 0.
    assert metric.score(["a", "b"], ["a", "a"]) == pytest.approx((2 / 3 + 0) / 2)


@given(pairs=single_pairs)
def test_macro_f1_over_classes_is_scikit_learns_over_the_gold_labels(
    pairs: list[tuple[str, str]],
) -> None:
    gold, guess = [g for g, _ in pairs], [p for _, p in pairs]
    expected = f1_score(gold, guess, labels=sorted(set(gold)), average="macro", zero_division=0)
    assert MacroF1().score(gold, guess) == pytest.approx(expected)


@given(pairs=single_pairs, seed=st.integers(0, 99))
def test_macro_f1_of_a_resample_is_that_of_its_examples(
    pairs: list[tuple[str, str]], seed: int
) -> None:
    drawn = np.random.default_rng(seed).integers(0, len(pairs), len(pairs))
    gold, guess = [g for g, _ in pairs], [p for _, p in pairs]
    metric = MacroF1()
    sums = metric.statistics(gold, guess)[drawn].sum(axis=0)
    direct = metric.score([gold[i] for i in drawn], [guess[i] for i in drawn])
    assert float(metric.value(sums)) == pytest.approx(direct)


def test_two_runs_on_the_same_data_have_the_same_columns() -> None:
    gold = ["a", "b", "c"]
    one, two = (MacroF1().statistics(gold, guess) for guess in (["a", "a", "a"], ["d", "e", "c"]))
    assert one.shape == two.shape == (3, 9)


def test_any_of_the_acceptable_answers_is_right_and_a_set_of_types_as_a_whole() -> None:
    answers = [("Rome", "Roma"), ("Rome", "Roma"), ("Oslo",), ("Oslo",)]
    guesses = ["Roma", "Rome", "oslo", "Oslo"]
    assert Accuracy(any_answer=True).score(answers, guesses) == pytest.approx(3 / 4)
    # Typing has sets on both sides: one right type is not the whole set.
    assert not is_right(("city", "place"), ("city",))
    assert is_right(("city", "place"), ("place", "city"))
    assert is_right("city", "city")
    assert not is_right("city", ("city",))
    assert [Accuracy().variant, Accuracy(any_answer=True).variant] == [
        "accuracy",
        "accuracy:any-answer",
    ]
