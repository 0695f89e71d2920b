"""Swapped values: every fact false, well-formed, and known to whoever looks for what follows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kbench.data import Example, Mention
from kbench.errors import Unsupported
from kbench.knowledge import Bundle, Entity, KnowledgeBase, write_bundle, write_vectors
from kbench.knowledge.constant import Constant
from kbench.knowledge.controls import controlled
from kbench.knowledge.linked import anyone
from kbench.knowledge.values import ValueSwapped, injected
from kbench.spec import Control

CARD = {"name": "values", "version": "1", "licence": "none", "source": "test"}
RELATIONS = {"color": "has color", "near": "is near", "kind": "is a"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Twelve things of three colours, each near two others, all of one kind; one has no name."""
    things = [
        Entity(f"t{n:02}", f"thing{n}", description=f"thing{n} has the color c{n % 3} since ever")
        for n in range(12)
    ]
    colours = [Entity(f"c{n}", f"c{n}", ("hue" + "abc"[n],)) for n in range(3)]
    facts = [(f"t{n:02}", "color", f"c{n % 3}") for n in range(12)]
    facts += [(f"t{n:02}", "near", f"t{(n + step) % 12:02}") for n in range(12) for step in (1, 2)]
    facts += [(f"t{n:02}", "kind", "x9") for n in range(12)]
    facts += [("t00", "near", "Q1")]
    every = [*things, *colours, Entity("x9", "thing"), Entity("Q1", "")]
    folder = tmp_path_factory.mktemp("values")
    bundle = write_bundle(folder, CARD, every, facts, RELATIONS)
    table = np.arange(1, 1 + 4 * len(bundle), dtype=np.float32).reshape(-1, 4)
    return write_vectors(folder, table, {})


def facts(base: KnowledgeBase) -> set[tuple[int, ...]]:
    return {tuple(fact) for fact in base.triples.tolist()}


def test_every_fact_with_another_value_in_its_relation_becomes_false(base: Bundle) -> None:
    relations = [*base.relations]
    for seed in range(5):
        seen = ValueSwapped(base, seed)
        assert np.array_equal(seen.triples[:, :2], base.triples[:, :2])
        stays = base.triples[:, 1] == relations.index("kind")
        stays |= ~base.told  # nobody without a name to swap with
        assert not facts(base) & {tuple(fact) for fact in seen.triples[~stays].tolist()}
        assert np.array_equal(seen.triples[stays], base.triples[stays])
        for kind in (relations.index("color"), relations.index("near")):
            own = seen.triples[:, 1] == kind
            assert {*seen.triples[own, 2].tolist()} <= {*base.triples[own, 2].tolist()}


def test_what_can_be_told_and_whom_a_method_covers_stays(base: Bundle) -> None:
    seen, rows = ValueSwapped(base, 0), np.arange(len(base), dtype=np.int64)
    assert np.array_equal(seen.told, base.told)
    assert np.array_equal(seen.has_facts(rows), base.has_facts(rows))
    assert np.array_equal(seen.described(rows), base.described(rows))
    assert [len(seen.facts(row)) for row in rows.tolist()] == [
        len(base.facts(row)) for row in rows.tolist()
    ]


def test_the_seed_alone_decides(base: Bundle) -> None:
    one, same, other = (ValueSwapped(base, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.triples, same.triples)
    assert one.digest == same.digest
    assert not np.array_equal(one.triples, other.triples)
    assert len({base.digest, one.digest, other.digest}) == 3


def test_names_in_descriptions_are_swapped_as_whole_words(tmp_path: Path) -> None:
    things = [
        Entity("a", "Anna", description="Anna lives in ROME . Romeo does not"),
        Entity("b", "Ben", description="Ben lives in the Eternal City"),
        Entity("r", "Rome", ("Eternal City",)),
        Entity("p", "Paris"),
        Entity("c", "Carl"),
        Entity("d", "Dora"),
    ]
    facts = [("a", "in", "r"), ("b", "in", "r"), ("c", "in", "p"), ("d", "in", "p")]
    seen = ValueSwapped(write_bundle(tmp_path, CARD, things, facts, {"in": "lives in"}), 0)
    texts = [seen.entity(int(row)).description for row in seen.rows(["a", "b"])]
    assert texts == ["Anna lives in Paris . Romeo does not", "Ben lives in the Paris"]


@pytest.mark.parametrize(
    ("description", "told"),
    [
        (
            "Ann met May in May . she may go , they who may",
            "Ann met Bo in Bo . she may go , they who may",
        ),
        ("ann met may , who may go", "ann met may , who may go"),  # which of them, nobody can say
        ("Ann is from Turkey and eats turkey", "Ann is from Chile and eats turkey"),
        ("ann is from turkey , TURKEY", "ann is from turkey , Chile"),
        ("ann is from turkey", "ann is from Chile"),  # a text without capitals
        ("Ann is paid in lek , LEK and Lek", "Ann is paid in yen , yen and yen"),
        ("Ann asks WHO , who asks Who", "Ann asks FAO , who asks Who"),
    ],
)
def test_an_ordinary_word_is_not_swapped_for_a_name(
    description: str, told: str, tmp_path: Path
) -> None:
    things = [Entity("a", "Ann", description=description), Entity("b", "Ben")]
    values = {"met": ("May", "Bo"), "in": ("Turkey", "Chile"), "paid": ("lek", "yen")}
    values["asks"] = ("WHO", "FAO")
    things += [Entity(name, name) for pair in values.values() for name in pair]
    facts = [(who, how, pair[at]) for how, pair in values.items() for at, who in enumerate("ab")]
    base = write_bundle(tmp_path, CARD, things, facts, {how: how for how in values})
    seen = ValueSwapped(base, 0)
    assert seen.entity(int(seen.rows(["a"])[0])).description == told


def test_a_common_value_is_swapped_for_a_rare_one(tmp_path: Path) -> None:
    """Of ten facts nine have one value: a permutation would leave eight of them true."""
    things = [Entity(f"t{n}", f"t{n}") for n in range(10)]
    facts = [(f"t{n}", "is", "t0" if n else "t1") for n in range(10)]
    base = write_bundle(tmp_path, CARD, things, facts, {"is": "is"})
    assert (ValueSwapped(base, 0).triples[:, 2] != base.triples[:, 2]).all()


def test_a_knowledge_base_without_two_values_is_refused(tmp_path: Path) -> None:
    base = write_bundle(
        tmp_path, CARD, [Entity("a", "a"), Entity("b", "b")], [("a", "is", "b")], {"is": "is"}
    )
    with pytest.raises(Unsupported, match="no relation of knowledge base values has two values"):
        _ = ValueSwapped(base, 0).triples


def question(thing: str, *answers: str, relation: str = "") -> Example:
    mention = Mention(0, 1, thing)
    return Example(f"q{thing}", "x is ", (mention,), answers, blank=5, stratum=relation)


def test_false_answers_are_those_of_the_relation_that_is_asked_for(base: Bundle) -> None:
    seen = ValueSwapped(base, 0)
    asked = [
        question("t04", "c1"),  # by the fact that tells the answer
        question("t04", "c1", relation="color"),
        question("t04", "thing5", relation="near"),
        question("t04", "nobody"),  # no fact tells it
        question("c1", "c1"),  # nothing is told of it
        Example("r", "x", (Mention(0, 1, "t04"),), "near"),
    ]
    found = injected(asked, seen, "gold", anyone)
    row = int(base.rows(["t04"])[0])
    told = {(base.name_of(true)): base.entity(false).names for _, true, false in seen.facts_of(row)}
    assert found[0] == found[1] == told["c1"]
    assert len(found[0]) == 2  # its alias is one of its names
    assert {*found[2]} == {*told["thing5"], *told["thing6"]} - {"thing5"}
    assert found[3:] == [(), (), ()]


def test_a_constant_tells_nobody_apart(base: Bundle) -> None:
    rows = np.arange(len(base), dtype=np.int64)
    seen = controlled(base, Control.CONSTANT, 0)
    assert isinstance(seen, Constant)
    assert len(np.unique(seen.vectors(rows), axis=0)) == 1
    norms = np.linalg.norm(base.vectors(rows), axis=1)
    assert np.linalg.norm(seen.vectors(rows[:1])) == pytest.approx(norms.mean(), rel=1e-5)
    assert len({seen.entity(row).description for row in rows.tolist()} - {""}) == 1
    assert len({told for row in rows.tolist() for told in seen.facts(row)}) == 1
    assert np.array_equal(seen.described(rows), base.described(rows))
    assert np.array_equal(seen.has_facts(rows), base.has_facts(rows))
    other = seen.over(rows[:3], np.ones((3, 2), dtype=np.float32))
    assert len(np.unique(other.vectors(rows[:3]), axis=0)) == 1
    assert not np.array_equal(
        seen.vectors(rows[:1]), controlled(base, Control.CONSTANT, 1).vectors(rows[:1])
    )
