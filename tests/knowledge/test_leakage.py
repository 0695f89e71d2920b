"""Test examples that the knowledge base knows already are counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kbench.data import Example, Mention, Role
from kbench.knowledge import Bundle, Entity, Sentence, write_bundle
from kbench.knowledge.holdout import hold_out, pairs_in_turn
from kbench.knowledge.leakage import leakage, pairs_of

CARD = {"name": "leaks", "version": "1", "licence": "none", "source": "test"}
FACTS = [("Q0", "P17", "Q1"), ("Q2", "P36", "Q1"), ("Q3", "P36", "Q3")]
CORPUS = [
    Sentence("The Wye flows, through Wales.", ()),
    Sentence("Zürich’s lake is “blue”.", ()),
]


@pytest.fixture
def base(tmp_path: Path) -> Bundle:
    entities = [Entity(f"Q{n}") for n in range(4)]
    return write_bundle(tmp_path / "kb", CARD, entities, FACTS, {"P17": "country"}, CORPUS)


def example(head: str | None, tail: str | None, label: str, text: str = "a b") -> Example:
    mentions = (Mention(0, 1, head, Role.HEAD), Mention(2, 3, tail, Role.TAIL))
    return Example("x", text, mentions, label)


@pytest.mark.parametrize(
    ("given", "known", "pairs", "facts"),
    [
        (example("Q0", "Q1", "P17"), 1, 1, 1),
        (example("Q0", "Q1", "country"), 1, 1, 1),  # the relation by its text
        (example("Q0", "Q1", "P36"), 1, 1, 0),  # joined by another relation
        (example("Q1", "Q0", "P17"), 1, 1, 0),  # the other way round
        (example("Q0", "Q2", "P17"), 1, 0, 0),
        (example("Q3", "Q3", "P36"), 1, 1, 1),
        (example("Q0", "Q1", "P999"), 1, 1, 0),  # a relation that the knowledge base has not
        (example("Q0", "Q9", "P17"), 0, 0, 0),
        (example(None, "Q1", "P17"), 0, 0, 0),
        (Example("x", "a b", (), "P17"), 0, 0, 0),
        (Example("x", "a b", (Mention(0, 1, "Q0", Role.TARGET),), ("P17",)), 0, 0, 0),
    ],
)
def test_pairs_and_facts(base: Bundle, given: Example, known: int, pairs: int, facts: int) -> None:
    found = leakage([given, given], base)
    assert found == {
        "test_pairs_known": 2 * known,
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
    pairs = [pairs_of(asked, base, "gold")]
    made, dropped = hold_out(base, tmp_path / "rest", asked, pairs, {"tasks": ["t"]})
    assert dropped == {"triples": 1, "sentences": 1}
    left = leakage(asked, made)
    assert left.pop("test_pairs_known") == 1
    assert set(left.values()) == {0}
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


RIVERS = 40


def rivers(folder: Path) -> Bundle:
    """Rivers with a name and another, each in a town; two towns of each name."""
    entities = [Entity(f"R{n}", f"River number{n}", (f"Old water{n}",)) for n in range(RIVERS)]
    entities += [Entity(f"T{n}", f"Town{n}") for n in range(RIVERS)]
    entities += [Entity(f"A{n}", f"town{n}") for n in range(RIVERS)]
    facts = [(f"R{n}", "in", f"T{n}") for n in range(RIVERS)]
    facts += [(f"A{n}", "twin", f"T{n}") for n in range(RIVERS)]
    return write_bundle(folder, CARD, entities, facts, {"in": "lies in"})


def asked(kind: str, by: str) -> list[Example]:
    """An example about each river: a relation, or a question, linked by ids, titles or aliases."""
    made = []
    for n in range(RIVERS):
        river = f"Old water{n}" if by == "alias" else f"River number{n}"
        head = Mention(4, 4 + len(river), f"R{n}" if by == "gold" else None, Role.HEAD)
        if kind == "relation":
            text = f"The {river} meets Town{n} ."
            start = text.index("Town")
            end = start + len(f"Town{n}")
            tail = Mention(start, end, f"T{n}" if by == "gold" else None, Role.TAIL)
            made.append(Example(f"{n}", text, (head, tail), "lies in"))
        else:
            text = f"The {river} is in "
            subject = replace(head, role=Role.TARGET)
            # An alias finds what no mention marks.
            mentions = () if by == "alias" else (subject,)
            stratum = "in" if kind == "probe" else ""
            answers = ("nowhere", f"town{n}")
            made.append(Example(f"{n}", text, mentions, answers, len(text), stratum=stratum))
    return made


@pytest.mark.parametrize("by", ["gold", "title", "alias"])
@pytest.mark.parametrize("kind", ["relation", "question", "probe"])
def test_all_is_found_however_it_is_linked(tmp_path: Path, kind: str, by: str) -> None:
    base, examples = rivers(tmp_path / "kb"), asked(kind, by)
    assert leakage(examples, base, by) == {
        "test_pairs_known": RIVERS,
        "test_pairs_in_knowledge": RIVERS,
        "test_facts_in_knowledge": RIVERS,
        "test_sentences_in_corpus": 0,
    }
    pairs = [pairs_of(examples, base, by)]
    made, dropped = hold_out(base, tmp_path / "rest", examples, pairs, {})
    assert dropped == {"triples": RIVERS, "sentences": 0}
    left = leakage(examples, made, by)
    assert (left["test_pairs_known"], left["test_pairs_in_knowledge"]) == (RIVERS, 0)
    assert [*dict(made.facts(int(made.rows(["A3"])[0])))] == ["twin"]


def test_a_question_that_names_its_relation_asks_for_no_other(tmp_path: Path) -> None:
    base = rivers(tmp_path / "kb")
    examples = [replace(e, stratum="twin") for e in asked("probe", "gold")]
    found = leakage(examples, base)
    assert found["test_pairs_in_knowledge"] == RIVERS
    assert found["test_facts_in_knowledge"] == 0


def test_what_a_linker_does_not_find_is_not_counted(tmp_path: Path) -> None:
    base, examples = rivers(tmp_path / "kb"), asked("relation", "alias")
    assert set(leakage(examples, base, "gold").values()) == {0}
    # An alias that nobody else has is a title's second choice.
    assert leakage(examples, base, "title")["test_pairs_in_knowledge"] == RIVERS


def test_a_namesake_that_is_linked_then_is_held_out_too(tmp_path: Path) -> None:
    names = {"A": "Wye", "B": "Wye", "C": "Wye", "T": "Wales", "U": "Kent"}
    facts = [("A", "in", "T"), ("A", "by", "T"), ("A", "on", "T"), ("B", "in", "T"),
             ("B", "by", "T"), ("B", "in", "U"), ("C", "by", "T")]  # fmt: skip
    entities = [Entity(entity, name) for entity, name in names.items()]
    base = write_bundle(tmp_path / "kb", CARD, entities, facts)
    text = "Wye in Wales"
    marks = (Mention(0, 3, role=Role.HEAD), Mention(7, 12, role=Role.TAIL))
    examples = [Example("x", text, marks, "in")]
    pairs = pairs_in_turn(
        base,
        [pairs_of(examples, base, "alias")],
        lambda rest: [pairs_of(examples, rest, "alias")],
    )
    made, dropped = hold_out(base, tmp_path / "rest", examples, pairs, {})
    # Without its facts the first Wye is in fewer than the second, and that in as many as the third.
    assert dropped["triples"] == 5
    assert leakage(examples, made, "alias")["test_pairs_in_knowledge"] == 0


def test_every_mention_of_a_role_may_be_the_one_that_is_linked(base: Bundle) -> None:
    marks = (Mention(0, 1, None, Role.HEAD), Mention(2, 3, "Q1", Role.TAIL),
             Mention(4, 5, "Q0", Role.HEAD))  # fmt: skip
    found = leakage([Example("x", "a b c", marks, "P17")], base)
    assert (found["test_pairs_known"], found["test_facts_in_knowledge"]) == (1, 1)
