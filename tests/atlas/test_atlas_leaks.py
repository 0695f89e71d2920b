from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from kbench.knowledge import Bundle
from scripts.wordnet_text import NameIndex, Synset, Text, synset_sentences, words_of

CARD = Path(__file__).parents[2] / "kbench" / "model" / "tiny" / "card.json"


def names_of(bundle: Bundle, ids: Sequence[str]) -> list[str]:
    entities = [bundle.entity(int(row)) for row in bundle.rows(ids)]
    return [name for entity in entities for name in (entity.label, *entity.aliases)]


@pytest.fixture(scope="module")
def test_names(bundle: Bundle, splits: dict[str, Any]) -> NameIndex:
    return NameIndex(names_of(bundle, splits["test"]))


@pytest.fixture(scope="module")
def unseen_names(bundle: Bundle, splits: dict[str, Any]) -> NameIndex:
    return NameIndex(names_of(bundle, [*splits["dev"], *splits["test"]]))


class TestPretrainingText:
    def test_is_what_the_model_was_trained_on(self, pretraining_text: Text) -> None:
        card = json.loads(CARD.read_text("utf-8"))
        assert pretraining_text.sha256 == card["text"]["sha256"]
        assert len(pretraining_text.train) == card["text"]["sentences"]

    def test_shares_no_sentence_with_what_is_held_out(self, pretraining_text: Text) -> None:
        assert len(pretraining_text.held) > 1000
        assert not set(pretraining_text.held) & set(pretraining_text.train)

    def test_names_no_dev_or_test_entity(
        self, pretraining_text: Text, unseen_names: NameIndex
    ) -> None:
        found = [s for s in pretraining_text.train if s in unseen_names]
        assert found == []

    def test_check_finds_a_planted_name(
        self, pretraining_text: Text, bundle: Bundle, splits: dict[str, Any],
        unseen_names: NameIndex,
    ) -> None:  # fmt: skip
        name = names_of(bundle, splits["test"])[0]
        planted = [
            *pretraining_text.train[:1000],
            f"someone said that {name.upper()}, too, was.",
        ]
        assert [s for s in planted if s in unseen_names] == planted[-1:]

    def test_without_the_filter_names_would_be_there(
        self, synsets: dict[str, Synset], unseen_names: NameIndex
    ) -> None:
        some = islice(synsets.values(), 0, None, 10)
        unfiltered = (s for synset in some for s in synset_sentences(synset, synsets))
        named = (s for s in unfiltered if s in unseen_names)
        assert len([*islice(named, 101)]) > 100

    def test_filter_covers_every_name_in_the_bundle(
        self, bundle: Bundle, splits: dict[str, Any]
    ) -> None:
        filtered = {words_of(name) for name in splits["unseen_names"]}
        names = names_of(bundle, [*splits["dev"], *splits["test"]])
        assert {words_of(name) for name in names} <= filtered


@pytest.mark.parametrize("task", ["typing", "relations", "qa"])
class TestTasks:
    def test_splits_share_no_linked_entity(
        self, task: str, tasks: dict[str, list[dict[str, Any]]], splits: dict[str, Any]
    ) -> None:
        unseen = {"dev": set(splits["dev"]), "test": set(splits["test"])}
        for record in tasks[task]:
            for mention in record["mentions"]:
                for part in ("dev", "test"):
                    inside = mention["entity"] in unseen[part]
                    assert inside == (record["split"] == part and mention["entity"] is not None)

    def test_train_and_dev_name_no_entity_of_a_later_split(
        self,
        task: str,
        tasks: dict[str, list[dict[str, Any]]],
        unseen_names: NameIndex,
        test_names: NameIndex,
    ) -> None:
        rivals = {"train": unseen_names, "dev": test_names}
        for record in tasks[task]:
            if record["split"] in rivals:
                assert record["text"] not in rivals[record["split"]], record["text"]


class TestCorpus:
    def test_links_no_dev_or_test_entity(self, bundle: Bundle, splits: dict[str, Any]) -> None:
        unseen = {*splits["dev"], *splits["test"]}
        assert not any(m.entity in unseen for s in bundle.sentences for m in s.mentions)

    def test_names_no_dev_or_test_entity(self, bundle: Bundle, unseen_names: NameIndex) -> None:
        assert [s.text for s in bundle.sentences if s.text in unseen_names] == []


class TestNameIndex:
    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            ("Lund", "he came to LUND.", True),
            ("Lund", "he came to Lunden.", False),
            ("Xi'an", "in xi an there is", True),
            ("Sao Paulo", "the State of São Paulo", True),
            ("Sao Paulo", "Sao and Paulo", False),
            ("", "anything", False),
        ],
    )
    def test_compares_words_without_case_and_accents(
        self, name: str, text: str, expected: bool
    ) -> None:
        assert (text in NameIndex([name])) is expected

    def test_agrees_with_a_search_by_regular_expressions(self, pretraining_text: Text) -> None:
        sentences = pretraining_text.train[::400]
        names = ["dog", "united states", "of the", "a person who", "river in", "world war ii"]
        pattern = re.compile("|".join(rf"(?<![a-z0-9]){n}(?![a-z0-9])" for n in names))
        plain = [" ".join(words_of(s)) for s in sentences]
        expected = [bool(pattern.search(s)) for s in plain]
        assert [s in NameIndex(names) for s in sentences] == expected
        assert any(expected)
