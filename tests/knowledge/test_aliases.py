"""Names in running text: whole words, the longest, the most popular; offsets never shift."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbench.data import Example, Mention, Role
from kbench.knowledge import Bundle, Entity, write_bundle, write_vectors
from kbench.knowledge.aliases import Aliases, aliases_of
from kbench.knowledge.linking import link

ENTITIES = [
    Entity("Q0", "Paris", aliases=("City of Light",)),
    Entity("Q1", "Paris", aliases=("Paris, Texas",)),
    Entity("Q2", "New York"),
    Entity("Q3", "New York City", aliases=("NY", "york")),
    Entity("Q4", "İstanbul"),
    Entity("Q5", ""),
    Entity("Q6", "Straße"),
]
FACTS = [("Q2", "r", "Q1"), ("Q3", "r", "Q1"), ("Q2", "r", "Q0")]


def base_of(folder: Path, entities: Sequence[Entity] = ENTITIES, facts: object = FACTS) -> Bundle:
    card = {"name": "names", "version": "1", "licence": "none", "source": "test"}
    bundle = write_bundle(folder, card, entities, facts)  # type: ignore[arg-type]
    return write_vectors(folder, np.ones((len(bundle), 2), dtype=np.float32), {})


@pytest.fixture
def base(tmp_path: Path) -> Bundle:
    return base_of(tmp_path / "kb")


def found(names: Aliases, text: str) -> list[tuple[str, int, bool]]:
    return [(text[name.start : name.end], name.row, name.ambiguous) for name in names.find(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("we flew to PARIS , then home", [("PARIS", 1, True)]),
        ("Paris, Texas is small", [("Paris, Texas", 1, False)]),
        ("the city of light", [("city of light", 0, False)]),
        ("New York City or New York", [("New York City", 3, False), ("New York", 2, False)]),
        ("New Yorker, comparison, yorkshire", []),
        ("york (York) [york]", [("york", 3, False), ("York", 3, False), ("york", 3, False)]),
        ("NY is two letters, Ny or ny is not", [("NY", 3, False)]),
        ("İİ İstanbul İ straße", [("İstanbul", 4, False), ("straße", 6, False)]),
        ("", []),
    ],
)
def test_names_in_a_text(base: Bundle, text: str, expected: list[tuple[str, int, bool]]) -> None:
    assert found(Aliases(base), text) == expected


def test_a_mention_is_looked_up_whole(base: Bundle) -> None:
    names = Aliases(base)
    assert names.lookup("ny") == (3, False)  # too short to be looked for, not to be looked up
    assert names.lookup("PARIS") == names.lookup(" Paris\n") == (1, True)
    assert names.lookup("Parisian") == (-1, False)
    assert names.lookup("") == (-1, False)


def test_mentions_keep_their_ids_and_gaps_are_filled(base: Bundle) -> None:
    text = "Paris and New York and york and NY"
    mentions = (Mention(0, 5, "Q0", Role.HEAD), Mention(10, 18, None, Role.TAIL), Mention(32, 34))
    example = Example("x", text, mentions, "label")
    (linked,), ambiguous = aliases_of(base).linked([example], base)
    assert linked.mentions == (
        Mention(0, 5, "Q0", Role.HEAD),
        Mention(10, 18, "Q2", Role.TAIL),
        Mention(32, 34, "Q3"),
        Mention(23, 27, "Q3", Role.CONTEXT),
    )
    assert ambiguous == 0
    links = link([linked], base, "alias")
    assert links.rows == ((0, 2, 3, 3),)
    assert links.linker == "alias"
    assert aliases_of(base).linked([Example("y", "to Paris", (), "")], base)[1] == 1


def test_the_answers_place_parts_no_name(base: Bundle) -> None:
    example = Example("x", "where is New York ?", (), ("a",), blank=12)
    (linked,), _ = aliases_of(base).linked([example], base)
    assert [example.text[m.start : m.end] for m in linked.mentions] == []


def test_a_knowledge_base_without_names(tmp_path: Path) -> None:
    names = Aliases(base_of(tmp_path / "kb", [Entity("Q0")], []))
    assert names.find("anything") == []


def test_names_are_collected_once_and_go_with_their_base(base: Bundle) -> None:
    from kbench.knowledge import aliases

    assert aliases_of(base) is aliases_of(base)
    before = len(aliases._made)
    other = Bundle(base.folder)
    aliases_of(other)
    assert len(aliases._made) == before + 1
    del other
    gc.collect()
    assert len(aliases._made) == before


words = st.text(alphabet="abİß", min_size=3, max_size=4)


@given(text=st.text(alphabet="ab İß-", max_size=12), names=st.lists(words, max_size=4))
def test_every_find_is_a_whole_word_and_none_overlap(
    tmp_path_factory: pytest.TempPathFactory, text: str, names: list[str]
) -> None:
    entities = [Entity(f"Q{n}", word) for n, word in enumerate(names)]
    known = Aliases(base_of(tmp_path_factory.mktemp("kb") / "kb", entities, []))
    spans = [(name.start, name.end) for name in known.find(text)]
    assert all(one[1] <= two[0] for one, two in pairwise(spans))
    for start, end in spans:
        assert text[start:end].casefold() in {name.casefold() for name in names}
        assert not text[max(0, start - 1) : start].isalnum()
        assert not text[end : end + 1].isalnum()
    for name in names:
        if text == name:
            assert spans == [(0, len(name))]
