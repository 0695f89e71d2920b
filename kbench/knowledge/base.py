"""Knowledge bases: entities by row, and what is known of each.

Free of torch: vectors come as NumPy arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kbench.data import Mention
from kbench.knowledge.folding import folded
from kbench.knowledge.names import id_name, names_of

__all__ = [
    "Entity",
    "KnowledgeBase",
    "KnowledgeSource",
    "Marks",
    "Rows",
    "Sentence",
    "Spelled",
    "Vectors",
    "Words",
]

Rows: TypeAlias = NDArray[np.int64]
"""Rows of a knowledge base, -1 where there is no entity."""
Vectors: TypeAlias = NDArray[np.float32]
"""Vectors of entities, one a row. ``[entities, dimension]``."""


@dataclass(frozen=True, slots=True)
class Entity:
    """What a knowledge base knows of a thing by name.

    Attributes:
        id: unique in the bundle (a Wikidata id, a title, …).
        label: its usual name.
        aliases: other names.
        types: names of its classes.
        description: a sentence or paragraph about it.
    """

    id: str
    label: str = ""
    aliases: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    description: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All its names, first how it is called: see :mod:`kbench.knowledge.names`."""
        return names_of(self.id, self.label, self.aliases)

    @property
    def name(self) -> str:
        """How it is called in a text; empty if it has no name."""
        return next(iter(self.names), "")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the bundle's corpus with its linked mentions."""

    text: str
    mentions: tuple[Mention, ...]


@dataclass(frozen=True)
class Words:
    """Words that share a vector space with the entities (the layout of wikipedia2vec).

    Attributes:
        words: as the space spells them.
        vectors: ``[words, dimension]``.
    """

    words: Sequence[str]
    vectors: Vectors


@dataclass(frozen=True)
class Marks:
    """What several entities have in common, such as types.

    Attributes:
        row: of the entity, rising; once for each of its marks. ``[pairs]``.
        number: of the mark in ``names``. ``[pairs]``.
        names: of the marks.
    """

    row: Rows
    number: Rows
    names: Sequence[str]


@dataclass(frozen=True)
class Spelled:
    """Facts that sentences of the corpus spell out: both mentions linked, and a triple of the two.

    Attributes:
        sentence: number in the corpus. ``[facts]``.
        head: number of the head's mention in its sentence. ``[facts]``.
        tail: number of the tail's mention in its sentence. ``[facts]``.
        relation: number of the relation. ``[facts]``.
        subject: row of the head's entity. ``[facts]``.
    """

    sentence: Rows
    head: Rows
    tail: Rows
    relation: Rows
    subject: Rows

    def __len__(self) -> int:
        return len(self.sentence)


class KnowledgeBase(ABC):
    """Entities by row, and what is known of each. Rows run from 0; -1 is an unknown entity."""

    name: str
    digest: str
    dimension: int

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of entities."""

    @abstractmethod
    def rows(self, ids: Sequence[str | None]) -> Rows:
        """Returns the row of each id, -1 where the id is None or unknown. ``[ids]``."""

    @abstractmethod
    def has_vector(self, rows: Rows) -> NDArray[np.bool_]:
        """Returns whether each row has a vector; False for row -1. ``[rows]``."""

    @abstractmethod
    def vectors(self, rows: Rows) -> Vectors:
        """Gathers the vectors of rows that have one. ``[rows, dimension]``."""

    def vectors_or_zeros(self, rows: Rows) -> Vectors:
        """Returns the vectors of entities, zeros for one that has none. ``[rows, dimension]``."""
        vectors = np.zeros((len(rows), self.dimension), dtype=np.float32)
        there = self.has_vector(rows)
        vectors[there] = self.vectors(rows[there])
        return vectors

    def value_vectors(self, rows: Rows) -> Vectors:
        """Returns the vectors of entities as the values of facts. ``[rows, dimension]``.

        A fact says its own tail, as :meth:`facts` has the tail's own name, under a control too that
        has others answer for entities: there :meth:`vectors` are those of whoever answers for the
        tail, of whom no fact speaks. Zeros for one that has none.
        """
        return self.vectors_or_zeros(rows)

    @abstractmethod
    def entity(self, row: int) -> Entity:
        """Returns the entity of a row."""

    @property
    @abstractmethod
    def triples(self) -> NDArray[np.int32]:
        """Facts as ``[triples, 3]``: head row, relation number, tail row."""

    @property
    @abstractmethod
    def relations(self) -> Mapping[str, str]:
        """Relation ids, in the order of their numbers, with their labels."""

    @property
    @abstractmethod
    def sentences(self) -> Sequence[Sentence]:
        """The corpus of linked sentences; empty where the bundle has none."""

    @property
    @abstractmethod
    def labels(self) -> Sequence[str]:
        """The label of every row."""

    @property
    def aliases(self) -> Sequence[Sequence[str]]:
        """The aliases of every row."""
        return [self.entity(row).aliases for row in range(len(self))]

    @property
    def ids(self) -> Sequence[str]:
        """The id of every row."""
        return [self.entity(row).id for row in range(len(self))]

    @cached_property
    def types(self) -> Marks:
        """The types of every row."""
        names: dict[str, int] = {}
        found = [
            (row, names.setdefault(kind, len(names)))
            for row in range(len(self))
            for kind in self.entity(row).types
        ]
        rows, numbers = np.array(found, dtype=np.int64).reshape(-1, 2).T
        return Marks(rows, numbers, list(names))

    @property
    def has_types(self) -> bool:
        """Whether the type of any entity is known."""
        return len(self.types.row) > 0

    def each_name(self) -> Iterator[tuple[str, ...]]:
        """Yields the names of every row, as :attr:`Entity.names` has them; in one pass."""
        ids: Sequence[str] | None = None
        for row, (label, aliases) in enumerate(zip(self.labels, self.aliases, strict=True)):
            if not label or label.isspace():
                ids = self.ids if ids is None else ids
            yield names_of(ids[row] if ids is not None else "", label, aliases)

    def named(self, keys: Collection[str]) -> Iterator[tuple[int, str, bool]]:
        """Yields the names that, folded, are among some; in any order, some perhaps twice.

        Args:
            keys: folded names (:func:`kbench.knowledge.folding.folded`).

        Yields:
            The row, the name, and whether it is how the entity is called.
        """
        for row, names in enumerate(self.each_name()):
            for at, name in enumerate(names):
                if folded(name) in keys:
                    yield row, name, at == 0

    def name_of(self, row: int) -> str:
        """Returns how an entity is called in a text; empty if it has no name."""
        return self.labels[row].strip() or self.entity(row).name

    def has_name(self, rows: Rows) -> NDArray[np.bool_]:
        """Returns whether each row has a name; False for row -1. ``[rows]``."""
        wanted = np.unique(rows).tolist()
        known = {row: row >= 0 and bool(self.name_of(row)) for row in wanted}
        return np.array([known[row] for row in rows.tolist()], dtype=bool)

    @property
    def unbroken(self) -> KnowledgeBase:
        """The knowledge base without its control.

        For two uses alone: to derive entity vectors that come back through :meth:`over`, which
        breaks them in its turn, and to give a text the same form with and without the control.
        """
        return self

    @property
    def words(self) -> Words | None:
        """Words in the space of the entity vectors; None where there are none."""
        return None

    @cached_property
    def spelled(self) -> Spelled:
        """The facts that the corpus spells out, a mention pair each; the first triple counts."""
        first: dict[tuple[int, int], int] = {}
        for head, relation, tail in self.triples.tolist():
            first.setdefault((head, tail), relation)
        facts = [
            (number, head, tail, first[pair], h)
            for number, rows in enumerate(self._linked())
            for head, h in enumerate(rows)
            for tail, t in enumerate(rows)
            if h >= 0 and (pair := (h, t)) in first
        ]
        return Spelled(*np.array(facts, dtype=np.int64).reshape(-1, 5).T)

    @abstractmethod
    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        """Returns the same entities with other vectors, seen through the same control.

        For methods that make entity vectors of their own: their controls break those.

        Args:
            rows: the entities that have a vector, rising. ``[n]``.
            vectors: theirs. ``[n, dimension]``.
        """

    @cached_property
    def degrees(self) -> NDArray[np.int64]:
        """In how many triples each entity is, as head or tail. ``[entities]``."""
        ends = np.concatenate([self.triples[:, 0], self.triples[:, 2]])
        return np.bincount(ends, minlength=len(self))

    def facts(self, row: int) -> list[tuple[str, str]]:
        """Returns what the triples say of an entity as head: names of relations and tails.

        What has no name is not told of: nothing of an entity without one, and no fact whose tail
        has none. A relation without a label goes by its id.
        """
        heads = self._by_head[:, 0]
        # Numbers of another width would have NumPy make a copy of all heads.
        start, end = np.searchsorted(heads, np.array([row, row + 1], dtype=heads.dtype))
        own = self._by_head[start:end].tolist()
        if not own or not self.name_of(row):
            return []
        told = ((self._relation_names[kind], self.name_of(tail)) for _, kind, tail in own)
        return [(relation, tail) for relation, tail in told if tail]

    def lines(self, row: int, facts: Iterable[tuple[str, str]]) -> list[str]:
        """Returns facts of an entity as text, a line each.

        Args:
            row: of the entity.
            facts: some of its :meth:`facts`.
        """
        name = self.name_of(row)
        return [f"{name} {relation} {tail} ." for relation, tail in facts]

    @cached_property
    def facts_by_relation(self) -> dict[str, int]:
        """How many facts are told by each name of a relation."""
        often = np.bincount(self.triples[:, 1], minlength=len(self._relation_names)).tolist()
        told: dict[str, int] = {}
        for name, number in zip(self._relation_names, often, strict=True):
            told[name] = told.get(name, 0) + number
        return told

    def shown(self, row: int, texts: Sequence[str]) -> list[str]:
        """Returns the texts of an entity as a control of documents has a method read them.

        For methods that read texts by themselves, outside of the input
        (:attr:`~kbench.method.InjectionMethod.reads_text`); as it stands they are as they are.
        """
        return [*texts]

    def describe(self, row: int) -> str:
        """Returns the description of an entity, else its facts as text; empty if there are none."""
        entity = self.entity(row)
        if entity.description and not entity.description.isspace():
            return entity.description
        facts = "; ".join(f"{relation} {tail}" for relation, tail in self.facts(row))
        return f"{entity.name} {facts}.".lstrip() if facts else ""

    @cached_property
    def told(self) -> NDArray[np.bool_]:
        """Whether each triple can be told: head and tail have names. ``[triples]``."""
        named = self.has_name(np.arange(len(self), dtype=np.int64))
        if named.all():
            return np.ones(len(self.triples), dtype=bool)
        told: NDArray[np.bool_] = named[self.triples[:, 0]] & named[self.triples[:, 2]]
        return told

    def unnamed(self) -> tuple[int, int]:
        """Returns how many entities have no name, and how many facts are not told for that."""
        named = self.has_name(np.arange(len(self), dtype=np.int64))
        return (0, 0) if named.all() else (int((~named).sum()), int((~self.told).sum()))

    def has_facts(self, rows: Rows) -> NDArray[np.bool_]:
        """Returns whether :meth:`facts` has any of each; False for row -1. ``[rows]``."""
        heads = self.triples[:, 0]
        known: NDArray[np.bool_] = np.isin(rows, heads if self.told.all() else heads[self.told])
        return known

    def has_description(self, rows: Rows) -> NDArray[np.bool_]:
        """Returns whether each row has a description; False for row -1. ``[rows]``."""
        wanted = np.unique(rows).tolist()
        known = {row: row >= 0 and bool(self.entity(row).description.strip()) for row in wanted}
        return np.array([known[row] for row in rows.tolist()], dtype=bool)

    @cached_property
    def description_lengths(self) -> NDArray[np.int32]:
        """Characters of the description of each entity; 0 for one of blanks. ``[entities]``."""
        texts = (self.entity(row).description for row in range(len(self)))
        lengths = (0 if text.isspace() else len(text) for text in texts)
        return np.fromiter(lengths, dtype=np.int32, count=len(self))

    def described(self, rows: Rows) -> NDArray[np.bool_]:
        """Returns whether :meth:`describe` has a text for each; False for row -1. ``[rows]``."""
        return self.has_facts(rows) | self.has_description(rows)

    def _linked(self) -> Iterator[list[int]]:
        """Yields the rows of the mentions of each sentence."""
        mentions = [
            [mention.entity for mention in sentence.mentions] for sentence in self.sentences
        ]
        rows = self.rows([entity for several in mentions for entity in several]).tolist()
        start = 0
        for several in mentions:
            yield rows[start : start + len(several)]
            start += len(several)

    @cached_property
    def _relation_names(self) -> list[str]:
        """How each relation is called in a text: by its label, else its id, as words if it is."""
        return [
            text if (text := label.strip()) and label != relation else id_name(relation) or relation
            for relation, label in self.relations.items()
        ]

    @cached_property
    def _by_head(self) -> NDArray[np.int32]:
        """The triples in the order of their heads; those of a bundle are so on disk."""
        heads = self.triples[:, 0]
        if (heads[1:] >= heads[:-1]).all():
            return self.triples
        return self.triples[np.argsort(heads, kind="stable")]


class KnowledgeSource(ABC):
    """A knowledge base that a distribution offers by name."""

    @abstractmethod
    def folder(self) -> Path:
        """Returns the folder of its bundle."""
