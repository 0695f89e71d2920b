from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kbench.data import Mention
from kbench.errors import UsageError
from kbench.knowledge import Bundle, Entity, Sentence, write_bundle, write_vectors
from kbench.knowledge.merging import merge

CARD = {"name": "one", "version": "1", "licence": "MIT", "source": "here", "citation": "A, 2020"}
SAID = Sentence("Cardiff is in Wales .", (Mention(0, 7, "Q2"), Mention(14, 19, "Q1")))
MORE = Sentence("Cardiff is in Wales .", (Mention(0, 7, "Q2"),))


@pytest.fixture
def one(tmp_path: Path) -> Bundle:
    entities = [
        Entity("Q1", "Wales", ("Cymru",), (), "land of song"),
        Entity("Q2", "", ("the Capital",)),
        Entity("Q3", "Wye", (), ("river",)),
    ]
    facts = [("Q2", "P1", "Q1"), ("Q3", "P2", "Q1"), ("Q3", "P9", "Q1")]
    relations = {"P1": "capital of", "P2": "flows through"}
    made = write_bundle(tmp_path / "one", CARD, entities, facts, relations, [SAID],
                        splits=[2, 0, 0])  # fmt: skip
    return write_vectors(made.folder, np.ones((3, 2), dtype=np.float32), {"model": "m"})


@pytest.fixture
def two(tmp_path: Path) -> Bundle:
    entities = [
        Entity("Q1", "WALES", ("Gwalia", "cymru"), ("country",), "a country"),
        Entity("Q2", "Cardiff", (), ("city",), "a city"),
        Entity("Q9", "Bristol"),
    ]
    card = {**CARD, "name": "two", "licence": "CC0-1.0"}
    facts = [("Q2", "P1", "Q1"), ("Q9", "P2", "Q2")]
    relations = {"P1": "is the capital of", "P2": "P2", "P9": "ends in"}
    return write_bundle(tmp_path / "two", card, entities, facts, relations, [MORE, SAID])


def entity(bundle: Bundle, name: str) -> Entity:
    return bundle.entity(int(bundle.rows([name])[0]))


def test_what_two_know_is_known(one: Bundle, two: Bundle, tmp_path: Path) -> None:
    made, counts = merge([one, two], tmp_path / "both")
    assert list(made.ids) == ["Q1", "Q2", "Q3", "Q9"]
    assert entity(made, "Q1") == Entity(
        "Q1", "Wales", ("Cymru", "Gwalia"), ("country",), "land of song"
    )
    assert entity(made, "Q2") == Entity("Q2", "Cardiff", ("the Capital",), ("city",), "a city")
    assert entity(made, "Q3").types == ("river",)
    assert dict(made.relations) == {"P1": "capital of", "P2": "flows through", "P9": "ends in"}
    assert len(made.triples) == 4
    assert made.facts(int(made.rows(["Q9"])[0])) == [("flows through", "Cardiff")]
    assert list(made.sentences) == [SAID, MORE]
    assert not made.dimension
    assert counts == {
        "entities that another source has too": 2,
        "labels that differ": 0,
        "descriptions that differ": 1,
        "texts of relations that differ": 1,
        "sentences that another source has too": 1,
        "facts that another source has too": 1,
    }
    made.verify()


def test_the_first_source_counts(one: Bundle, two: Bundle, tmp_path: Path) -> None:
    made, _ = merge([two, one], tmp_path / "both", "joint")
    wales = entity(made, "Q1")
    assert (wales.label, wales.description) == ("WALES", "a country")
    assert wales.aliases == ("Gwalia", "cymru")
    assert made.relations["P1"] == "is the capital of"
    assert made.name == "joint"


def test_another_label_is_an_alias_and_counted(one: Bundle, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", CARD, [Entity("Q1", "Cambria")])
    made, counts = merge([one, other], tmp_path / "both")
    assert entity(made, "Q1").aliases == ("Cymru", "Cambria")
    assert counts["labels that differ"] == 1


def test_what_any_source_trains_on_is_of_train(one: Bundle, two: Bundle, tmp_path: Path) -> None:
    made, _ = merge([one, two], tmp_path / "both")
    assert made.splits is not None
    assert set(made.splits) == {0}  # the fact of test in one is in the other, which has no splits
    third = write_bundle(tmp_path / "third", CARD, [Entity("Q8"), Entity("Q7")],
                         [("Q8", "P1", "Q7")], splits=[1])  # fmt: skip
    again, _ = merge([one, third], tmp_path / "again")
    assert again.splits is not None
    assert sorted(again.splits) == [0, 0, 1, 2]
    bare = write_bundle(tmp_path / "bare", CARD, [Entity("Q8")])
    assert merge([two, bare], tmp_path / "none")[0].splits is None


def test_card(one: Bundle, two: Bundle, tmp_path: Path) -> None:
    card = merge([one, two], tmp_path / "both")[0].card
    assert (card["name"], card["licence"], card["source"]) == ("one+two", "MIT; CC0-1.0", "here")
    sources = card["merged"]["sources"]
    assert [(s["digest"], s["licence"]) for s in sources] == [
        (one.digest, "MIT"), (two.digest, "CC0-1.0"),
    ]  # fmt: skip
    assert sources[0]["counts"]["triples"] == 3
    assert card["merged"]["relation_texts_not_taken"] == [
        "P1: 'capital of', not 'is the capital of'"
    ]
    assert card["vectors"] is None
    json.dumps(card)


def test_three_sources_in_turn_are_three_at_once(one: Bundle, two: Bundle, tmp_path: Path) -> None:
    third = write_bundle(tmp_path / "third", CARD, [Entity("Q1", "Cambria"), Entity("Q5")],
                         [("Q1", "P5", "Q5")])  # fmt: skip
    first, _ = merge([one, two], tmp_path / "first")
    assert merge([first, third], tmp_path / "turn")[0].digest == (
        merge([one, two, third], tmp_path / "once")[0].digest
    )


def test_what_cannot_be_merged(one: Bundle, two: Bundle, tmp_path: Path) -> None:
    for bundles, target, problem in (
        ([one], tmp_path / "kb", "two or more"),
        ([one, two, Bundle(one.folder)], tmp_path / "kb", "given twice"),
        ([one, two], two.folder, "one of the sources"),
    ):
        with pytest.raises(UsageError, match=problem):
            merge(bundles, target)
    two.verify()
