"""Test examples that the knowledge base knows already are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbench.data import Example, Mention, Role
from kbench.knowledge import Bundle, Entity, Sentence, write_bundle
from kbench.knowledge.holdout import hold_out
from kbench.knowledge.leakage import leakage

CARD = {"name": "leaks", "version": "1", "licence": "none", "source": "test"}
FACTS = [("Q0", "P17", "Q1"), ("Q2", "P36", "Q1"), ("Q3", "P36", "Q3")]
CORPUS = [
    Sentence("The Wye flows, through Wales.", ()),
    Sentence("Zürich’s lake is “blue”.", ()),
]


@pytest.fixture
def base(tmp_path: Path) -> Bundle:
    entities = [Entity(f"Q{n}") for n in range(4)]
    return write_bundle(tmp_path / "kb", CARD, entities, FACTS, sentences=CORPUS)


def example(head: str | None, tail: str | None, label: str, text: str = "a b") -> Example:
    mentions = (Mention(0, 1, head, Role.HEAD), Mention(2, 3, tail, Role.TAIL))
    return Example("x", text, mentions, label)


@pytest.mark.parametrize(
    ("given", "pairs", "facts"),
    [
        (example("Q0", "Q1", "P17"), 1, 1),
        (example("Q0", "Q1", "P36"), 1, 0),  # joined by another relation
        (example("Q1", "Q0", "P17"), 1, 0),  # the other way round
        (example("Q0", "Q2", "P17"), 0, 0),
        (example("Q3", "Q3", "P36"), 1, 1),
        (example("Q0", "Q1", "P999"), 1, 0),  # a relation that the knowledge base has not
        (example("Q0", "Q9", "P17"), 0, 0),
        (example(None, "Q1", "P17"), 0, 0),
        (Example("x", "a b", (), "P17"), 0, 0),
        (Example("x", "a b", (Mention(0, 1, "Q0", Role.TARGET),), ("P17",)), 0, 0),
    ],
)
def test_pairs_and_facts(base: Bundle, given: Example, pairs: int, facts: int) -> None:
    found = leakage([given, given], base)
    assert found == {
        "test_pairs_in_knowledge": 2 * pairs,
        "test_facts_in_knowledge": 2 * facts,
        "test_sentences_in_corpus": 0,
    }


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("the wye flows through wales .", 1),
        ("The Wye flows through Wales", 1),
        ("The Wye flowsthrough Wales", 0),
        ("The Wye flows through Wales today", 0),
        ("Zu\u0308rich's\u00a0lake is blue", 1),
    ],
)
def test_sentences(base: Bundle, text: str, same: int) -> None:
    assert leakage([example(None, None, "x", text)], base)["test_sentences_in_corpus"] == same


def test_nothing_known_and_nothing_asked(tmp_path: Path, base: Bundle) -> None:
    bare = write_bundle(tmp_path / "bare", CARD, [])
    assert set(leakage([example("Q0", "Q1", "P17")], bare).values()) == {0}
    assert set(leakage([], base).values()) == {0}


def test_what_is_held_out_is_in_no_new_bundle(tmp_path: Path, base: Bundle) -> None:
    asked = [
        example("Q1", "Q0", "P36"),  # the other way round, and another relation
        example("Q3", "Q9", "P17"),
        example(None, None, "x", "the WYE flows through Wales"),
    ]
    made, dropped = hold_out(base, tmp_path / "rest", asked, {"tasks": ["t"]})
    assert dropped == {"triples": 1, "sentences": 1}
    assert set(leakage(asked, made).values()) == {0}
    assert [made.entity(row) for row in range(len(made))] == [
        base.entity(row) for row in range(len(base))
    ]
    assert len(made.triples) == 2
    assert dict(made.relations) == dict(base.relations)
    assert made.card["held_out"] == {
        "tasks": ["t"], "triples": 1, "sentences": 1, "of": base.digest
    }  # fmt: skip
    assert made.digest != base.digest
    assert not made.dimension
    made.verify()
