"""Answers in a model's own words, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kbench.data import Answers
from kbench.errors import InputError, UsageError
from kbench.metrics import (
    ChanceMatch,
    Contains,
    ExactMatch,
    HasAnswer,
    Hits,
    PopqaMatch,
    ReciprocalRank,
    SpokenMetric,
    TokenF1,
)
from kbench.metrics.spoken import other_questions

KINDS: tuple[type[SpokenMetric], ...] = (PopqaMatch, ExactMatch, TokenF1, HasAnswer, Contains)

CASES: list[tuple[tuple[str, ...], str, tuple[float, ...]]] = [
    # acceptable, said, (popqa, em, f1, has-answer, contains)
    (("St. Louis",), "St. Louis", (1, 1, 1, 1, 1)),
    (("St. Louis",), "St. Louis, Missouri", (1, 0, 0.8, 1, 1)),
    # Without the stop it is another row of words to DPR, and the same to SQuAD.
    (("St. Louis",), "st louis", (0, 1, 1, 0, 1)),
    (("Washington, D.C.",), "Washington, D.C.", (1, 1, 1, 1, 1)),
    (("Washington, D.C.",), "Washington", (0, 0, 2 / 3, 0, 0)),
    (("Washington, D.C.", "Washington"), "Washington", (1, 1, 1, 1, 1)),
    # Articles are nothing to SQuAD, and words to DPR.
    (("The Beatles",), "a Beatles", (0, 1, 1, 0, 1)),
    (("Beatles",), "the Beatles .", (1, 1, 1, 1, 1)),
    # Accents count; how they are composed does not to DPR alone.
    (("Beyoncé",), "Beyonce", (0, 0, 0, 0, 0)),
    (("Beyonc\u00e9",), "Beyonce\u0301", (0, 0, 0, 1, 0)),
    # Within a word, which DPR alone does not take.
    (("Iran",), "Mirandola", (1, 0, 0, 0, 1)),
    (("ran",), "Iran", (1, 0, 0, 0, 1)),
    # Case: the output keeps its own in PopQA.
    (("PARIS",), "paris", (1, 1, 1, 1, 1)),
    (("paris",), "Paris is", (1, 0, 2 / 3, 1, 1)),
    (("paris",), "PARIS", (0, 1, 1, 1, 1)),
    (("New York",), "It is York New", (0, 0, 2 / 3, 0, 0)),
    (("Rome",), "", (0, 0, 0, 0, 0)),
    (("Rome",), " .", (0, 0, 0, 0, 0)),
    # Nothing is left of these in SQuAD's form.
    (("The",), "", (0, 0, 0, 0, 0)),
    (("The", "A"), "what", (1, 0, 0, 0, 0)),
    (("dog dog cat",), "dog dog", (0, 0, 0.8, 0, 0)),
]


@pytest.mark.parametrize(("answers", "said", "wanted"), CASES)
def test_by_hand(answers: tuple[str, ...], said: str, wanted: tuple[float, ...]) -> None:
    found = [kind().score([answers], [said]) for kind in KINDS]
    assert found == pytest.approx(list(wanted))


@pytest.mark.parametrize("label", [(), ("",), (" ", "")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_question_without_an_answer_is_told(
    kind: type[SpokenMetric], label: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match="expected one with text") as caught:
        kind().score([label], ["Rome"])
    assert "\n" not in str(caught.value)


def answers_of(relations: list[str], labels: list[str], said: list[str]) -> Answers:
    return Answers(
        labels=[(label,) for label in labels],
        predictions=said,
        strata=[""] * len(labels),
        relations=relations,
    )


def test_chance_is_another_question_of_the_same_relation() -> None:
    relations = ["born"] * 5 + ["colour"] * 3 + ["lone", "", ""]
    others = other_questions(relations)
    assert (others != np.arange(11)).all()
    assert [relations[at] for at in others[:8]] == relations[:8]
    assert sorted(others[:5]) == [0, 1, 2, 3, 4]
    assert np.array_equal(others, other_questions(relations))
    for _ in range(3):  # no matter of luck: of each number of questions
        assert (other_questions([""] * 2) == [1, 0]).all()


def test_the_chance_match_is_the_metric_against_another() -> None:
    metric = ChanceMatch("exact-match")
    assert metric.name == "em_chance"
    # Whatever is drawn, the other of a pair is the other.
    same = answers_of(["x", "x", "y", "y"], ["a1", "b1", "c1", "c1"], ["b1", "a1", "c1", "d1"])
    assert metric.score_of(same) == pytest.approx(0.75)
    assert ExactMatch().score_of(same) == pytest.approx(0.25)
    assert metric.score_of(same.at([2, 3])) == pytest.approx(0.5)
    alone = same.at([0])
    assert metric.score_of(alone) == 0


def test_chance_of_no_metric_is_told() -> None:
    with pytest.raises(UsageError, match="did you mean has-answer"):
        ChanceMatch("has-answr")


def test_ranks_by_hand() -> None:
    labels = [("rome", "roma"), ("oslo",), ("bern",), "lima"]
    said = [("roma", "rome"), ("bern", "paris", "oslo"), ("rome",), "lima"]
    assert Hits().score(labels, said) == 0.5
    assert ReciprocalRank().score(labels, said) == pytest.approx((1 + 1 / 3 + 0 + 1) / 4)
    assert Hits("8-of-train").variant == "hits-at-1:8-of-train"
    assert not math.isnan(ReciprocalRank().score([], []))
