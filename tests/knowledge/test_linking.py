"""Links: by the data's ids or by title, never to an entity without a vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from kbench.data import Example, Mention
from kbench.errors import UsageError
from kbench.knowledge import (
    Entity,
    KnowledgeBase,
    Rows,
    Sentence,
    Vectors,
    folded,
    write_bundle,
)
from kbench.knowledge.linking import link

LABELS = ("Paris", "paris", "Tokyo", "TOKYO tower", "Tokyo Tower", "", "Straße", "Nowhere")


class Names(KnowledgeBase):
    """Entities that are but names; the last has no vector."""

    name = digest = "names"
    dimension = 1
    relations: Mapping[str, str] = {}
    sentences: Sequence[Sentence] = ()
    triples: Any = np.empty((0, 3), dtype=np.int32)
    labels = LABELS

    def __len__(self) -> int:
        return len(LABELS)

    def rows(self, ids: Sequence[str | None]) -> Rows:
        known = {f"Q{row}": row for row in range(len(LABELS))}
        return np.array([known.get(i or "", -1) for i in ids], dtype=np.int64)

    def has_vector(self, rows: Rows) -> Any:
        return (rows >= 0) & (rows < len(LABELS) - 1)

    def vectors(self, rows: Rows) -> Vectors:
        return rows[:, None].astype(np.float32)

    def entity(self, row: int) -> Entity:
        return Entity(f"Q{row}", LABELS[row])

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        raise NotImplementedError


def naming(*names: str | tuple[str, str | None]) -> Example:
    """An example that mentions each name, with an id where one is given."""
    pairs = [name if isinstance(name, tuple) else (name, None) for name in names]
    text = " ".join(name for name, _ in pairs)
    mentions, start = [], 0
    for name, entity in pairs:
        mentions.append(Mention(start, start + len(name), entity))
        start += len(name) + 1
    return Example("x", text, tuple(mentions), "label")


def test_gold_links_go_by_id_and_leave_out_what_has_no_vector() -> None:
    one = naming(("here", "Q2"), ("there", None), ("it", "Q7"), ("that", "Q99"))
    links = link([one, naming(), naming(("so", "Q0"))], Names())
    assert links.rows == ((2, -1, -1, -1), (), (0,))
    assert links.mentions == pytest.approx(2 / 5)
    assert links.examples == pytest.approx(2 / 3)
    assert links.linker == "gold"
    assert links.ambiguous == 0
    assert len(links) == 3


@pytest.mark.parametrize(
    ("title", "row"),
    [
        ("Paris", 0),
        ("paris", 1),
        ("PARIS", -1),  # two entities differ from it by case alone
        ("Tokyo", 2),
        ("tOKYO", 2),
        ("Tokyo Tower", 4),
        ("STRASSE", 6),
        ("Nowhere", -1),  # without a vector
        ("Lyon", -1),
        ("Tokyo ", 2),  # a blank at the end of a span is no part of a name
        ("\u00a0Tokyo", 2),
    ],
)
def test_titles_link_exactly_and_else_in_another_case(title: str, row: int) -> None:
    links = link([naming(title)], Names(), "title")
    assert links.rows == ((row,),)
    assert links.ambiguous == (title == "PARIS")


def test_a_title_counts_only_where_the_data_has_no_id() -> None:
    one = naming(("Paris", "Q2"), ("Paris", "Q99"), "Paris")
    assert link([one], Names(), "title").rows == ((2, -1, 0),)
    assert link([one], Names(), "gold").rows == ((2, -1, -1),)


def test_without_knowledge_nothing_is_linked() -> None:
    links = link([naming(("Paris", "Q0"))], None)
    assert links.rows == ((-1,),)
    assert (links.examples, links.mentions) == (0, 0)


@pytest.mark.parametrize("linker", ["gold", "title"])
def test_without_examples_or_mentions_coverage_is_nothing(linker: str) -> None:
    assert link([], Names(), linker).rows == ()
    assert link([naming()], Names(), linker).rows == ((),)
    assert link([naming()], Names(), linker).examples == 0


def test_an_unknown_linker_is_a_usage_error_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="did you mean title"):
        link([naming("Paris")], Names(), "titel")


NAMED = [
    Entity("Q0", "Ann Mary Lee", ("annie", "The Mayor")),
    Entity("Q1", "Zürich", ("The Mayor", "Turicum", "turicum")),
    Entity("Q2", "annie"),
    Entity("Q3", "O’Connor Hall"),
    Entity("New_York"),
    Entity("Q5", "", ("Gotham",)),
    Entity("Q6"),
    Entity("Q7", "Geneva", ("us",)),
    Entity("Q8", "Bern", ("US",)),
]


@pytest.mark.parametrize(
    ("title", "entity", "ambiguous"),
    [
        ("annie", "Q2", 0),  # called so, where another has it as an alias
        ("ANN MARY LEE", "Q0", 0),
        ("turicum", "Q1", 0),
        ("TURICUM", "Q1", 0),  # one entity's, in two forms
        ("The Mayor", None, 1),
        ("the mayor", None, 1),
        ("us", "Q7", 0),
        ("US", "Q8", 0),
        ("Us", None, 1),
        ("Zu\u0308rich", "Q1", 0),
        ("O'Connor\u00a0Hall", "Q3", 0),
        ("Ｏ’ＣＯＮＮＯＲ Hall", "Q3", 0),
        ("New York", "New_York", 0),
        ("gotham", "Q5", 0),
        ("Q6", None, 0),
        ("Zurich", None, 0),
        ("\u200b", None, 0),
    ],
)
def test_titles_link_by_other_names_where_nobody_is_called_so(
    tmp_path_factory: pytest.TempPathFactory, title: str, entity: str | None, ambiguous: int
) -> None:
    card = {"name": "named", "version": "1", "licence": "none", "source": "test"}
    base = write_bundle(tmp_path_factory.mktemp("kb") / "kb", card, NAMED)
    links = link([naming(title)], base, "title", lambda rows: rows >= 0)
    assert links.rows == ((int(base.rows([entity])[0]),),)
    assert links.ambiguous == ambiguous
    # The names that a bundle finds in its columns are those that a loop finds.
    keys = {folded(title)}
    looped = [(row, name, called) for row, name, called in KnowledgeBase.named(base, keys)]
    assert {*looped} <= {*base.named(keys)}
    assert {row for row, *_ in base.named(keys)} == {row for row, *_ in looped}
