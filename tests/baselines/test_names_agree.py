"""Who is found by name, who is described and who is covered: parts that must agree, and meet here.

The knowledge base is made for their disagreement: entities with only facts, only a text, no name;
whose id is the name; of several names; without blanks; in another form than their text.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kbench.data import Example, Mention
from kbench.errors import Unsupported
from kbench.knowledge import Bundle, Entity, KnowledgeBase, link, write_bundle
from kbench.knowledge.aliases import aliases_of
from kbench.knowledge.controls import Random, Shuffled, Zero
from kbench_baselines.namesakes import Namesakes
from kbench_baselines.occurrences import occurrences
from kbench_baselines.retrieval import RetrievalAugmentation, VisibleMatrix

CARD = {"name": "disagreeing", "version": "1", "licence": "none", "source": "test"}
ENTITIES = [
    Entity("Q1", "Berlin", description="Berlin is a town ."),
    Entity("Q2", "Only Facts"),
    Entity("Q3", "Only Text", description="It is said that ONLY TEXT has no fact ."),
    Entity("Q4"),  # no name, facts
    Entity("Q5", description="nobody knows what it is called"),
    Entity("Q6"),  # no name, nothing
    Entity("Q7", "Nothing Known"),
    Entity("River_Wye"),
    Entity("Q8", "annie", ("Ann Mary Lee",), description="Ann Mary Lee (born 1950) is mayor ."),
    Entity("Q9", "柏林", description="我说柏林是德国的地方。"),
    Entity("Q10", "Zu\u0308rich", description="In Zürich it rains ."),
    Entity("Q11", " ", description=" "),
    Entity("Q12", "Parisian", description="Parisians are many ."),
    Entity("Q13", "Tail Unknown"),  # its one fact has a tail without a name
]
FACTS = [
    ("Q2", "in", "Q1"),
    ("Q2", "in", "Q4"),
    ("Q4", "in", "Q1"),
    ("River_Wye", "flows_to", "Q10"),
    ("Q13", "in", "Q6"),
    ("Q1", "in", "Q9"),
]
WITHOUT = {"Q4", "Q5", "Q6", "Q11"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("kb") / "kb"
    return write_bundle(folder, CARD, ENTITIES, FACTS, {"in": "lies in"})


def rows_of(base: KnowledgeBase, ids: list[str]) -> list[int]:
    return sorted(base.rows(ids).tolist())


@pytest.mark.parametrize("control", ["none", "shuffled", "random", "zero"])
@pytest.mark.parametrize("seed", range(3))
def test_coverage_is_what_is_told(base: Bundle, control: str, seed: int) -> None:
    seen = {
        "none": base,
        "shuffled": Shuffled(base, seed),
        "random": Random(base, seed),
        "zero": Zero(base),
    }[control]
    everyone = np.arange(len(base))
    facts = [bool(seen.facts(row)) for row in everyone]
    assert seen.has_facts(everyone).tolist() == facts
    assert seen.described(everyone).tolist() == [bool(seen.describe(row)) for row in everyone]
    for method in (RetrievalAugmentation(), VisibleMatrix(), VisibleMatrix({"facts": 0})):
        passages = [list(method.passages(seen, row)) for row in everyone]
        assert method.covers(seen, everyone).tolist() == [bool(texts) for texts in passages]
        for text in (text for texts in passages for text in texts):
            assert text == " ".join(text.split())
            assert not text.startswith(":")


def test_what_is_told_has_names(base: Bundle) -> None:
    told = {base.entity(row).id: base.describe(row) for row in range(len(base))}
    assert told["Q2"] == "Only Facts lies in Berlin."
    assert told["River_Wye"] == "River Wye flows to Zu\u0308rich."
    assert told["Q13"] == told["Q4"] == told["Q6"] == told["Q11"] == ""
    passages = RetrievalAugmentation().passages
    (row,) = base.rows(["Q5"]).tolist()
    assert [*passages(base, row)] == ["nobody knows what it is called"]
    (row,) = base.rows(["Q12"]).tolist()
    assert passages(base, row) == ("Parisian : Parisians are many .",)
    (row,) = base.rows(["Q10"]).tolist()
    assert passages(base, row) == ("Zu\u0308rich : In Zürich it rains .",)
    assert base.unnamed() == (4, 3)


def test_every_name_leads_to_its_entity_by_every_linker(base: Bundle) -> None:
    names = aliases_of(base)
    for row in range(len(base)):
        entity = base.entity(row)
        assert (not entity.names) == (entity.id in WITHOUT)
        for name in entity.names:
            assert names.lookup(name.upper()) == (row, False)
            assert [match.row for match in names.find(f"({name})")] == [row]
            example = Example("x", name, (Mention(0, len(name)),), "")
            assert link([example], base, "title", lambda r: r >= 0).rows == ((row,),)


def test_pelt_finds_in_descriptions_whom_the_alias_linker_finds(base: Bundle) -> None:
    names = aliases_of(base)
    linked = [
        row
        for row in range(len(base))
        if row in {match.row for match in names.find(base.entity(row).description)}
    ]
    found = occurrences(base, descriptions=True)
    assert found.rows.tolist() == linked == rows_of(base, ["Q1", "Q3", "Q8", "Q9", "Q10"])
    assert found.unnamed == 2  # one without a name, and "Parisians"
    masked = {found.masked(at).text for at in range(len(found.rows))}
    assert "我说是德国的地方。" in masked
    assert "In  it rains ." in masked
    assert " (born 1950) is mayor ." in masked


def test_what_is_not_told_is_counted_and_said(base: Bundle) -> None:
    fit: Any = SimpleNamespace(knowledge=Shuffled(base, 0))
    plug: Any = None
    with pytest.warns(UserWarning, match="4 of 14 entities have no name .* 3 of 6 facts"):
        history = RetrievalAugmentation().fit(plug, fit)
    assert history.counts == {"entities_without_name": 4, "facts_not_told": 3}


def test_who_can_tell_nothing_is_refused(base: Bundle, tmp_path: Path) -> None:
    facts = [("Q1", "P1", "Q2")]
    codes = write_bundle(tmp_path / "kb", CARD, [Entity("Q1"), Entity("Q2")], facts)
    lm: Any = None
    for control in (codes, Shuffled(codes, 0)):
        with pytest.raises(Unsupported, match="nothing to tell: no description, and no fact"):
            RetrievalAugmentation().build(lm, control)
    assert RetrievalAugmentation().build(lm, Zero(base)) is not None


def test_namesakes_share_a_name_in_any_form(tmp_path: Path) -> None:
    from kbench.knowledge import write_vectors

    entities = [Entity("Q1", "O’Neil"), Entity("Q2", "x", ("O'NEIL",)), Entity("ONeil_Town")]
    entities += [Entity("Q4", "ONeil\u00a0Town"), Entity("Q5"), Entity("Q6")]
    write_bundle(tmp_path / "kb", CARD, entities)
    base = write_vectors(tmp_path / "kb", np.ones((6, 2), dtype=np.float32), {})
    assert Namesakes(base, 5).rows.tolist() == rows_of(base, ["Q1", "Q2", "Q4", "ONeil_Town"])
