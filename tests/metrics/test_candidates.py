"""Scores of candidates, and average precision, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from kbench.data import Answers, Likelihoods
from kbench.errors import UsageError
from kbench.metrics import Accuracy, AveragePrecision, ByScorer, LooseMicroF1, beside
from kbench.metrics.spoken import Hits

INF = float("inf")
TYPES = Likelihoods(
    names=("a", "b"),
    sizes={"mean": (1, 2), "char": (1, 1), "byte": (1, 1)},
    nothing=np.array([-1.0, -4.0], np.float32),
    said=np.array([[-1.0, -2.0], [-3.0, -2.5], [-2.0, -9.0]], np.float32),
    which=None,
    scorer="sum",
    thresholds={"sum": -2.25, "mean": -1.5, "char": 0.0, "byte": 0.0, "pmi": 0.0},
)


def answers(found: Likelihoods, *labels: tuple[str, ...]) -> Answers:
    return Answers(labels=labels, predictions=found.predicted(), strata=[""] * 3, likelihoods=found)


def test_labels_above_the_threshold_are_given() -> None:
    assert TYPES.predicted() == [("a", "b"), (), ("a",)]
    assert replace(TYPES, fallback=True).predicted() == [("a", "b"), ("b",), ("a",)]
    assert TYPES.by("mean").predicted() == [("a", "b"), ("b",), ()]
    assert TYPES.by("pmi").predicted() == [("b",), ("b",), ()]


def test_average_precision_is_the_mean_precision_at_the_right_labels() -> None:
    # Ranked: a1 -1, b1 and a3 -2 (level), b2 -2.5, a2 -3, b3 -9.
    found = answers(TYPES, ("a",), ("a",), ("a", "unknown"))
    metric = AveragePrecision()
    assert metric.score_of(found) == pytest.approx((1 + 2 / 3 + 3 / 5 + 0) / 4)
    assert metric.measure(found)[:, 1].tolist() == [1, 1, 2]
    with pytest.raises(TypeError, match="these answers have none"):
        metric.measure(replace(found, likelihoods=None))


def test_average_precision_hangs_on_no_threshold() -> None:
    moved = replace(TYPES, thresholds=dict.fromkeys(TYPES.thresholds, 5.0))
    gold = ("a",), ("b",), ("b",)
    assert LooseMicroF1().score_of(answers(moved, *gold)) == 0
    metric = AveragePrecision()
    assert metric.score_of(answers(moved, *gold)) == metric.score_of(answers(TYPES, *gold)) > 0


def test_candidates_of_their_own_and_aliases() -> None:
    found = Likelihoods(
        names=("new york", "nyc", "rome", "lima"),
        sizes={"mean": (2, 1, 1, 1), "char": (8, 3, 4, 4), "byte": (8, 3, 4, 4)},
        nothing=np.zeros(4, np.float32),
        said=np.array([[-1.2, -1.3, -1.0], [-1.0, -1.0, -INF]], np.float32),
        which=np.array([[0, 1, 2], [3, 2, -1]], np.int32),
        scorer="sum",
        thresholds={},
    )
    assert found.predicted() == ["rome", "lima"]  # of those that are level the first
    assert found.at([1]).predicted() == ["lima"]


def test_ranked_answers_are_worth_what_their_spellings_are_together() -> None:
    said = [[-1.2, -1.3, -1.0], [-1.0, -1.0, -INF], [-900.0, -INF, -INF]]
    found = Likelihoods(
        names=("new york", "new york", "rome", "lima"),
        sizes={"mean": (2, 1, 1, 4), "char": (8, 3, 4, 4), "byte": (8, 3, 4, 4)},
        nothing=np.array([-1.0, -1.0, -0.5, -0.1], np.float32),
        said=np.array(said, np.float32),
        which=np.array([[0, 1, 2], [2, 3, -1], [2, -1, -1]], np.int32),
        scorer="sum",
        thresholds={},
        answers=(0, 0, 1, 2),
    )
    rankings, sure = found.ranked()
    assert rankings == found.predicted() == [("new york", "rome"), ("rome", "lima"), ("rome",)]
    together = math.log(math.exp(-1.2) + math.exp(-1.3))
    assert sure == pytest.approx([1 / (1 + math.exp(-1.0 - together)), 0.5, 1.0])
    assert found.by("mean").predicted()[1] == ("lima", "rome")
    assert found.by("pmi").predicted()[1] == ("rome", "lima")
    assert found.at([1]).predicted() == [("rome", "lima")]
    labels = [("rome",), ("oslo",), ("rome",)]
    stored = Answers(labels=labels, predictions=rankings, strata=[""] * 3, likelihoods=found)
    assert stored.by("mean").predictions == [("new york", "rome"), ("lima", "rome"), ("rome",)]
    assert Hits().score_of(stored) == pytest.approx(1 / 3)
    assert Hits().score_of(stored.by("char")) == pytest.approx(1 / 3)
    with pytest.raises(UsageError, match="no scorer is called 'mass'"):
        found.by("mass")


def test_spellings_that_were_never_read_after_nothing_are_not_compared_by_pmi() -> None:
    found = Likelihoods(
        names=("a", "b"),
        sizes=dict.fromkeys(("mean", "char", "byte"), (1, 1)),
        nothing=np.zeros(2, np.float32),
        said=np.zeros((1, 2), np.float32),
        which=None,
        scorer="sum",
        thresholds={},
        answers=(0, 1),
    )
    assert found.scorers == ("sum", "mean", "char", "byte")
    with pytest.raises(UsageError, match="scorer pmi wants what was not stored"):
        found.by("pmi")


def test_beside_a_tasks_own_metrics_stands_what_it_would_be_by_sum() -> None:
    found = answers(TYPES.by("pmi"), ("a", "b"), (), ("a",))
    by_sum, precision = beside([LooseMicroF1()], found)
    assert (by_sum.name, by_sum.score_of(found)) == ("micro_f1_by_sum", 1.0)
    assert isinstance(precision, AveragePrecision)
    assert beside([LooseMicroF1()], replace(found, likelihoods=None)) == []
    assert ByScorer(Accuracy(), "sum").variant == "accuracy:by-sum"
