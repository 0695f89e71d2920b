"""LAMA's P@1, counted by hand, and metrics of one stratum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kbench.data import Answers
from kbench.metrics import Accuracy, LamaPrecision, Within
from kbench.metrics.statistics import difference, interval

GOLD = ["red", "red", "red", "blue", "green", "white", "blue"]
GUESS = ["red", "red", "red", "red", "red", "red", "red"]
RELATIONS = ["P1", "P1", "P2", "P2", "P2", "P2", "P3"]
ANSWERS = Answers(labels=GOLD, predictions=GUESS, strata=RELATIONS)


def test_p1_counts_every_relation_once() -> None:
    # P1: 2 of 2, P2: 1 of 4, P3: 0 of 1.
    assert LamaPrecision().score_of(ANSWERS) == pytest.approx((1 + 0.25 + 0) / 3)
    assert Accuracy().score_of(ANSWERS) == pytest.approx(3 / 7)
    # Of one relation it is the share of right queries; of nothing it is 0.
    assert LamaPrecision().score(GOLD, GUESS) == pytest.approx(3 / 7)
    assert LamaPrecision().score_of(ANSWERS.at([])) == 0


def test_a_relation_without_a_query_in_the_sums_is_no_relation() -> None:
    statistics = LamaPrecision().measure(ANSWERS)
    assert statistics.shape == (7, 6)
    sums = np.stack([statistics[:6].sum(0), statistics[2:].sum(0), np.zeros(6)])
    assert LamaPrecision().value(sums) == pytest.approx([(1 + 0.25) / 2, (0.25 + 0) / 2, 0])


def test_runs_on_the_same_queries_are_paired() -> None:
    right = LamaPrecision().measure(replace(ANSWERS, predictions=GOLD))
    ours = LamaPrecision().measure(ANSWERS)
    found = difference(LamaPrecision(), right, ours)
    assert found.value == pytest.approx(1 - (1 + 0.25) / 3)
    own = interval(LamaPrecision(), ours)
    assert 0 <= own.low < own.value < own.high <= 1


def test_the_variant_says_where_the_vocabulary_comes_from() -> None:
    assert LamaPrecision().variant == "lama-p1"
    assert LamaPrecision(of_objects=True).variant == "lama-p1:objects"


def test_within_a_stratum_no_other_counts() -> None:
    metric = Within("P2", Accuracy())
    assert (metric.name, metric.variant) == ("accuracy_P2", "accuracy@P2")
    assert metric.score_of(ANSWERS) == 0.25
    assert len(metric.measure(ANSWERS)) == 4


def test_p1_has_the_object_of_the_query_alone_and_accuracy_takes_any() -> None:
    objects, said = [("Oslo", "Rome"), ("Rome", "Oslo")], ["Rome", "Rome"]
    given = Answers(labels=objects, predictions=said, strata=["P1", "P1"])
    assert LamaPrecision().score_of(given) == 0.5
    assert Accuracy(any_answer=True).score_of(given) == 1
