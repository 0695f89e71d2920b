"""Views of a knowledge base: the same entities with something about them replaced."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from kbench.data.files import canonical_digest
from kbench.knowledge.base import (
    Entity,
    KnowledgeBase,
    Marks,
    Rows,
    Sentence,
    Spelled,
    Vectors,
    Words,
)

__all__ = ["Broken", "OtherVectors", "View"]


class View(KnowledgeBase):
    """A knowledge base seen through something; forwards whatever that does not replace."""

    def __init__(self, base: KnowledgeBase, digest: str) -> None:
        self.base = base
        self.name = base.name
        self.dimension = base.dimension
        self.digest = digest

    def __len__(self) -> int:
        return len(self.base)

    def rows(self, ids: Sequence[str | None]) -> Rows:
        return self.base.rows(ids)

    def has_vector(self, rows: Rows) -> NDArray[np.bool_]:
        return self.base.has_vector(rows)

    def vectors(self, rows: Rows) -> Vectors:
        return self.base.vectors(rows)

    def entity(self, row: int) -> Entity:
        return self.base.entity(row)

    @property
    def triples(self) -> NDArray[np.int32]:
        return self.base.triples

    @property
    def relations(self) -> Mapping[str, str]:
        return self.base.relations

    @property
    def sentences(self) -> Sequence[Sentence]:
        return self.base.sentences

    @property
    def labels(self) -> Sequence[str]:
        return self.base.labels

    @property
    def aliases(self) -> Sequence[Sequence[str]]:
        return self.base.aliases

    @property
    def ids(self) -> Sequence[str]:
        return self.base.ids

    @property
    def types(self) -> Marks:
        return self.base.types

    def each_name(self) -> Iterator[tuple[str, ...]]:
        return self.base.each_name()

    def named(self, keys: Collection[str]) -> Iterator[tuple[int, str, bool]]:
        return self.base.named(keys)

    def name_of(self, row: int) -> str:
        return self.base.name_of(row)

    def has_name(self, rows: Rows) -> NDArray[np.bool_]:
        return self.base.has_name(rows)

    def shown(self, row: int, texts: Sequence[str]) -> list[str]:
        return self.base.shown(row, texts)

    @property
    def unbroken(self) -> KnowledgeBase:
        return self.base.unbroken

    @property
    def words(self) -> Words | None:
        return self.base.words

    @property
    def spelled(self) -> Spelled:
        return self.base.spelled

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        return OtherVectors(self, rows, vectors)


class Broken(View):
    """A view that breaks what is known; its digest names how, by which seed and on which grounds.

    Args:
        base: the true knowledge base.
        control: how.
        seed: of what is drawn; None where nothing is.
        grounds: what else decides who answers with what; None for nothing.
    """

    def __init__(
        self, base: KnowledgeBase, control: str, seed: int | None, grounds: object = None
    ) -> None:
        about = [base.digest, control, seed] + ([] if grounds is None else [grounds])
        super().__init__(base, canonical_digest(about))
        self.seed = seed


@final
class OtherVectors(View):
    """The same entities with other vectors, for some of them.

    Args:
        base: the entities.
        rows: those that have a vector, rising. ``[n]``.
        vectors: theirs. ``[n, dimension]``.
    """

    def __init__(self, base: KnowledgeBase, rows: Rows, vectors: Vectors) -> None:
        super().__init__(base, canonical_digest([base.digest, "vectors", vectors.shape]))
        self.dimension = int(vectors.shape[1])
        self._rows = rows
        self._vectors = vectors

    def has_vector(self, rows: Rows) -> NDArray[np.bool_]:
        return np.isin(rows, self._rows)

    def has_description(self, rows: Rows) -> NDArray[np.bool_]:
        return self.base.has_description(rows)

    @property
    def description_lengths(self) -> NDArray[np.int32]:
        return self.base.description_lengths

    def vectors(self, rows: Rows) -> Vectors:
        return self._vectors[np.searchsorted(self._rows, rows)]

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        return OtherVectors(self.base, rows, vectors)
