"""The controls that know of kinds: what they bring is never, or always, of the same kind."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from kbench.data import Candidate, Example, Mention, Role
from kbench.errors import Unsupported
from kbench.knowledge import Bundle, Entity, KnowledgeBase, write_bundle, write_vectors
from kbench.knowledge.controls import Foreign, SameType, Shuffled, controlled
from kbench.knowledge.gold import Gold
from kbench.knowledge.sharing import sharing
from kbench.spec import Control
from kbench_tasks.knowledge.atlas import Atlas

CARD = {"name": "kinds", "version": "1", "licence": "none", "source": "test"}


def bundle(
    folder: Path,
    entities: list[Entity],
    facts: list[tuple[str, str, str]] | None = None,
    relations: dict[str, str] | None = None,
    vectors: bool = True,
) -> Bundle:
    made = write_bundle(folder, CARD, entities, facts or [], relations or {})
    if not vectors:
        return made
    table = np.arange(1, 1 + 4 * len(made), dtype=np.float32).reshape(-1, 4)
    return write_vectors(folder, table, {})


def typed(folder: Path, *types: tuple[str, ...], **about: bool) -> Bundle:
    things = [Entity(f"E{i:03}", f"name{i}", types=kinds) for i, kinds in enumerate(types)]
    return bundle(folder, things, **about)


def typing(entity: int, *labels: str) -> Example:
    return Example(f"t{entity}", "x", (Mention(0, 1, f"E{entity:03}", Role.TARGET),), labels)


def question(entity: int, *answers: str) -> Example:
    mention = Mention(0, 1, f"E{entity:03}")
    return Example(f"q{entity}", "x is ", (mention,), answers, blank=5)


def related(head: int, tail: int, label: str) -> Example:
    ends = (
        Mention(0, 1, f"E{head:03}", Role.HEAD),
        Mention(2, 3, f"E{tail:03}", Role.TAIL),
    )
    return Example(f"r{head}-{tail}", "x y", ends, label)


def everyone(base: KnowledgeBase) -> np.ndarray:
    return np.arange(len(base), dtype=np.int64)


def own_types(base: KnowledgeBase) -> list[set[str]]:
    return [{*base.entity(row).types} for row in range(len(base))]


@pytest.mark.parametrize("seed", range(6))
def test_a_foreigner_shares_nothing_where_there_is_one(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = [tuple(f"k{k}" for k in rng.permutation(6)[: rng.integers(0, 3)]) for _ in range(60)]
    things = [
        Entity(f"E{i:03}", f"n{i}", types=own, description="text" * int(rng.integers(0, 3)))
        for i, own in enumerate(kinds)
    ]
    base = bundle(tmp_path / "kb", things)
    examples = [typing(i, *rng.choice(list("abcd"), size=rng.integers(1, 3))) for i in range(40)]
    covered = rng.random(60) < 0.7
    gold = Gold(base, examples)
    view = Foreign(base, seed, lambda rows: covered[rows], gold=lambda: gold)
    types, labels = own_types(base), [set[str]() for _ in things]
    for example in examples:
        labels[int(example.mentions[0].entity[1:])] |= {*example.label}
    foreign = [
        {
            other
            for other in range(60)
            if covered[other] == covered[row]
            and other != row
            and not (types[row] & types[other] or labels[row] & labels[other])
        }
        for row in range(60)
    ]
    for row, other in enumerate(view.other.tolist()):
        assert covered[other] == covered[row]
        assert other != row
        assert other in foreign[row] or not foreign[row]
    assert sum(map(bool, foreign)) > 40
    np.testing.assert_array_equal(view.has_vector(everyone(base)), base.has_vector(everyone(base)))


def test_a_foreigner_does_not_hang_on_what_was_asked_for_before(tmp_path: Path) -> None:
    base = typed(tmp_path / "kb", *[(f"k{row % 5}",) for row in range(60)])
    examples = [typing(row, "ba"[row % 2]) for row in range(40)]
    found = []
    for first in ("types", "labels", "told"):
        gold = Gold(base, examples)
        getattr(gold, first)  # as another run of the same process does
        found.append(Foreign(base, 0, gold=lambda: gold).other.tolist())  # noqa: B023
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("seed", range(3))
def test_one_of_the_same_type_shares_the_rarest_that_another_has(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    often = ["thing"] * 60
    kinds = [(f"k{k}", kind) for k, kind in zip(rng.integers(0, 12, 60), often, strict=True)]
    base = typed(tmp_path / "kb", *kinds)
    view, types = SameType(base, seed), own_types(base)
    number = Counter(kind for several in types for kind in several)
    for row, other in enumerate(view.other.tolist()):
        assert other != row
        shared = min((kind for kind in types[row] if number[kind] > 1), key=number.__getitem__)
        assert shared in types[other]
    assert not np.array_equal(view.other, SameType(base, seed + 1).other)


def test_a_fact_in_a_sentence_takes_the_relation_of_one_of_its_kind() -> None:
    base = Bundle(Atlas().folder())
    facts, types = base.spelled, own_types(base)
    heads = facts.subject.tolist()
    linked = [base.rows([m.entity for m in base.sentences[at].mentions]) for at in facts.sentence]
    assert heads == [int(rows[m]) for rows, m in zip(linked, facts.head, strict=True)]
    views = [SameType(base, 0), Foreign(base, 0), SameType(base, 1)]
    alike, anyone, again = (view.spelled.relation for view in views)
    for fact, other in enumerate(views[0].other_fact.tolist()):
        assert other != fact
        assert {*types[heads[fact]]} & {*types[heads[other]]}
    # Of a kind it tells what any other of it would, and of all nothing but how frequent each is.
    often = np.bincount(facts.relation) / len(facts)
    chance = float((often**2).sum())
    assert abs((anyone == facts.relation).mean() - chance) < 0.05
    assert (alike == facts.relation).mean() > chance + 0.1
    assert not np.array_equal(alike, anyone)
    assert not np.array_equal(alike, again)
    assert not np.array_equal(anyone, Shuffled(base, 0).spelled.relation)


def test_what_has_no_type_gets_anyone_of_those_that_are_covered_alike(tmp_path: Path) -> None:
    base = typed(tmp_path / "kb", *([("a",)] * 10), *([()] * 10), ("alone",))
    for seed in range(5):
        view = SameType(base, seed, lambda rows: rows != 3)
        covered = everyone(base) != 3
        np.testing.assert_array_equal(covered[view.other], covered)
        assert (view.other[covered] != everyone(base)[covered]).all()
        assert view.other[3] == 3  # alone among those that are not covered


def test_what_everybody_has_says_nothing(tmp_path: Path) -> None:
    base = typed(tmp_path / "kb", *[("entity", kind) for kind in "aabbccdd"])
    view, types = Foreign(base, 0), own_types(base)
    assert all(types[row] & types[other] == {"entity"} for row, other in enumerate(view.other))


def test_a_type_of_all_whom_the_method_covers_says_nothing(tmp_path: Path) -> None:
    kinds = [("film",)] * 6 + [("film", "genre"), ("genre",), ("genre",)]
    base = typed(tmp_path / "kb", *kinds)
    gold = Gold(base, [question(row, "Drama" if row % 2 else "War") for row in range(6)])
    told = Foreign(base, 0, lambda rows: (rows >= 0) & (rows < 6), gold=lambda: gold).other
    assert all((row + other) % 2 and other < 6 for row, other in enumerate(told[:6].tolist()))
    # Where one of another type is covered too, it is the one who is foreign.
    told = Foreign(base, 0, lambda rows: (rows >= 0) & (rows < 8), gold=lambda: gold).other
    assert told[:6].tolist() == [7] * 6
    # Without labels nothing is left to be foreign by.
    with pytest.raises(Unsupported, match="shares a type or a gold label with all others"):
        _ = Foreign(base, 0, lambda rows: (rows >= 0) & (rows < 6)).other


def test_of_whom_no_type_is_known_does_not_make_a_type_tell_something(tmp_path: Path) -> None:
    base = typed(tmp_path / "kb", *([("film",)] * 20), (), ("genre",))
    gold = Gold(base, [question(row, "Drama" if row % 2 else "War") for row in range(20)])
    told = Foreign(base, 0, lambda rows: (rows >= 0) & (rows < 21), gold=lambda: gold).other
    assert all((row + other) % 2 or other == 20 for row, other in enumerate(told[:20].tolist()))
    assert len({*told[:20].tolist()} - {20}) > 5
    # A type of the only one who has any tells it from all others.
    alone = Foreign(base, 0, lambda rows: (rows >= 19) & (rows < 21)).other
    assert alone[19:21].tolist() == [20, 19]


def test_where_nobody_is_foreign_it_is_said(tmp_path: Path) -> None:
    pairs = typed(tmp_path / "kb", ("a", "b"), ("b", "c"), ("a", "c"))
    with pytest.raises(Unsupported, match="shares a type or a gold label with all others") as said:
        _ = Foreign(pairs, 0).other
    assert "\n" not in str(said.value)
    nothing = typed(tmp_path / "none", (), (), ())
    with pytest.raises(Unsupported, match=r"no two entities .* share a type"):
        _ = SameType(nothing, 0).other
    assert (Foreign(nothing, 0).other != everyone(nothing)).all()
    for control in (Foreign, SameType):
        with pytest.raises(Unsupported, match="one entity alone is covered"):
            _ = control(pairs, 0, lambda rows: rows == 1).other


def test_where_most_are_of_one_kind_a_partner_hardly_tells_that_one_is_of_another(
    tmp_path: Path,
) -> None:
    kinds = ["human"] * 800 + [f"k{i % 10}" for i in range(200)]
    base = typed(tmp_path / "kb", *[(kind,) for kind in kinds])
    other = Foreign(base, 0).other[800:]
    assert 0.05 < np.mean([kinds[row] == "human" for row in other]) < 0.16  # one in ten kinds
    everywhere = Shuffled(base, 0).other[800:]
    assert np.mean([kinds[row] == "human" for row in everywhere]) > 0.7


def test_labels_of_all_splits_and_supports_count(tmp_path: Path) -> None:
    base = typed(tmp_path / "kb", *([()] * 6))
    shown = Candidate("a", (related(2, 3, "a"),))
    few_shot = Example("f", "x y", related(0, 1, "a").mentions, "a", candidates=(shown,))
    gold = Gold(base, [few_shot, related(4, 5, "b")])
    for seed in range(5):
        other = Foreign(base, seed, gold=lambda: gold).other
        assert {*other[:4].tolist()} <= {4, 5}
        assert {*other[4:].tolist()} <= {0, 1, 2, 3}


def test_a_label_that_says_that_nothing_holds_is_none(tmp_path: Path) -> None:
    base = typed(tmp_path / "kb", *([()] * 6))
    examples = [related(0, 1, "none"), related(2, 3, "none"), related(4, 5, "b")]
    assert Gold(base, examples, null={"none"}).labels.row.tolist() == [4, 5]
    partners = {
        int(Foreign(base, seed, gold=partial(Gold, base, examples, "gold", {"none"})).other[0])
        for seed in range(40)
    }
    assert partners == {1, 2, 3, 4, 5}


def test_the_facts_of_a_foreigner_do_not_tell_the_relation(tmp_path: Path) -> None:
    things = [Entity(f"E{i:03}", f"n{i}") for i in range(8)]
    facts = [("E002", "P1", "E003"), ("E004", "P2", "E005")]
    base = bundle(tmp_path / "kb", things, facts, {"P1": "mother of", "P2": "part of"})
    for label in ("P1", "mother of"):
        gold = Gold(base, [related(0, 1, label), related(6, 7, "other")])
        for seed in range(10):
            other = Foreign(base, seed, gold=lambda gold=gold: gold).other
            assert not {*other[:2].tolist()} & {0, 1, 2, 3}


@pytest.mark.parametrize("described", [False, True])
def test_a_foreigner_does_not_name_the_answer(tmp_path: Path, described: bool) -> None:
    things = [Entity(f"E{i:03}", f"n{i}") for i in range(6)] + [
        Entity("E006", "Green", description="a colour" if described else ""),
        Entity("E007", "n7", description="as GREEN as grass" if described else ""),
        Entity("E008", "n8", description="evergreen" if described else ""),
    ]
    facts = [("E001", "r", "E006"), ("E006", "r", "E002")]
    base = bundle(tmp_path / "kb", things, facts)
    gold = Gold(base, [question(0, "green", "blue"), question(3, "red"), question(4, "BLUE")])
    wrong = {0, 1, 2, 4, 6} | ({7} if described else set())
    seen = set()
    for seed in range(60):
        seen.add(int(Foreign(base, seed, lambda r: r >= 0, gold=lambda: gold).other[0]))
    assert not seen & wrong
    # Nothing else is kept away, but that nothing is swapped for a text where it need not be.
    assert seen == ({3, 5} if described else {3, 5, 7, 8})


def test_facts_go_to_all_that_answer_with_them(tmp_path: Path) -> None:
    things = [Entity(f"E{i:03}", f"n{i}", types=("a" if i < 6 else "b",)) for i in range(8)]
    facts = [(f"E{i:03}", "r", f"E{(i + k) % 8:03}") for i in range(8) for k in range(i % 3)]
    base = bundle(tmp_path / "kb", things, facts)
    view = Foreign(base, 1, lambda rows: rows >= 0)
    assert len({*view.other.tolist()}) < 8
    for row, other in enumerate(view.other.tolist()):
        assert view.facts(row) == base.facts(other)
        np.testing.assert_array_equal(
            view.vectors(np.array([row])), base.vectors(np.array([other]))
        )
        assert view.entity(row).types == base.entity(other).types
        assert view.entity(row).label == f"n{row}"
    heads = view.triples[:, 0]
    assert (heads[1:] >= heads[:-1]).all()


def test_digests_name_control_seed_and_labels(tmp_path: Path) -> None:
    base = typed(tmp_path / "kb", *[(kind,) for kind in "aabb"])
    digests = {
        controlled(base, control, seed, None, "vector", None, labels).digest
        for control, seed, labels in (
            (Control.FOREIGN, 0, None), (Control.FOREIGN, 0, "task"), (Control.FOREIGN, 1, None),
            (Control.SAME_TYPE, 0, None), (Control.SHUFFLED, 0, None),
        )
    }  # fmt: skip
    assert len(digests) == 5
    alike = {controlled(base, Control.SAME_TYPE, 0, None, "vector", None, x).digest for x in "ab"}
    assert len(alike) == 1  # it does not look at labels


def test_derived_vectors_move_with_their_partner(tmp_path: Path) -> None:
    base = typed(tmp_path / "kb", *[(kind,) for kind in "aabbccddee"])
    for view in (Foreign(base, 0), SameType(base, 0)):
        rows = everyone(base)
        table = np.arange(10, dtype=np.float32)[:, None]
        assert view.over(rows, table).vectors(rows)[:, 0].tolist() == view.other.tolist()
        few = rows[::2]  # one of each type: of the same there is no other
        if isinstance(view, Foreign):
            seen = view.over(few, table[::2])
            assert seen.has_vector(few).all()
            assert not seen.has_vector(rows[1::2]).any()
            assert (seen.vectors(few)[:, 0] // 2 != few // 2).all()


def test_shares_are_counted(tmp_path: Path) -> None:
    base = typed(tmp_path / "kb", ("a",), ("a",), ("b",), ("b",), ("c",), ("c",), ())
    examples = [typing(0, "x"), typing(1, "y"), typing(2, "x", "z"), typing(6, "w")]
    gold, every = Gold(base, examples), lambda rows: rows >= 0
    view = Shuffled(base, 0)
    view.other = np.array([2, 0, 3, 2, 5, 4, 1])
    told = sharing([*examples, typing(9, "x")], view, "gold", every, gold)
    # 0 gets 2, who is an x too; 1 gets 0, no y but an a; 2 gets 3, a b; 6 gets 1, who is no w.
    assert told == {"": 4, "_label": 1, "_type": 2}
    assert sharing(examples, view, "gold", lambda rows: rows == 1, gold)[""] == 1
    foreign = sharing(examples, Foreign(base, 0, gold=lambda: gold), "gold", every, gold)
    assert foreign == {"": 4, "_label": 0, "_type": 0}
    assert sharing([], view, "gold", every, gold)[""] == 0
