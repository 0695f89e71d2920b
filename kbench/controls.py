"""The controls: views of a knowledge base with its knowledge broken in one way each.

Being views, every method has them without knowing of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import cast, final

import numpy as np
from numpy.typing import NDArray

from kbench.files import canonical_digest
from kbench.knowledge import Entity, KnowledgeBase, Rows, Sentence, Vectors

__all__ = ["RandomVectors", "Shuffled", "ZeroVectors"]


class _View(KnowledgeBase):
    """A knowledge base seen through a control; forwards whatever it does not break."""

    def __init__(self, base: KnowledgeBase, control: str, seed: int | None) -> None:
        self.base = base
        self.name = base.name
        self.dimension = base.dimension
        self.digest = canonical_digest([base.digest, control, seed])

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


@final
class Shuffled(_View):
    """Every entity answers with another's vector, description and facts.

    The permutation is one cycle over the entities that have a vector (and one over the others),
    so no entity keeps its own and coverage does not change. Names, and the links of the corpus,
    stay as they are: only what is known of an entity moves.
    """

    def __init__(self, base: KnowledgeBase, seed: int) -> None:
        super().__init__(base, "shuffled", seed)
        self._seed = seed

    @cached_property
    def _other(self) -> Rows:
        rng = np.random.default_rng(self._seed)
        everyone = np.arange(len(self.base), dtype=np.int64)
        covered = self.base.has_vector(everyone)
        other = np.empty_like(everyone)
        for group in (everyone[covered], everyone[~covered]):
            order = rng.permutation(group)
            other[order] = np.roll(order, 1)
        return other

    def vectors(self, rows: Rows) -> Vectors:
        return self.base.vectors(self._other[rows])

    def entity(self, row: int) -> Entity:
        own, other = self.base.entity(row), self.base.entity(int(self._other[row]))
        return Entity(own.id, own.label, own.aliases, other.types, other.description)

    @cached_property
    def triples(self) -> NDArray[np.int32]:
        # Entity e answers with the facts of other(e): a fact of r moves to the e with other(e) = r.
        owner = np.argsort(self._other)
        broken = np.array(self.base.triples)
        broken[:, 0] = owner[broken[:, 0]]
        broken[:, 2] = owner[broken[:, 2]]
        return broken


@final
class RandomVectors(_View):
    """Gaussian directions with the norm of the true vectors; a function of seed and row alone.

    Nothing is stored, so the control costs no copy of the matrix: the noise is a hash of
    ``(seed, row, column)`` (splitmix64) through the Box-Muller transform.
    """

    def __init__(self, base: KnowledgeBase, seed: int) -> None:
        super().__init__(base, "random", seed)
        self._key = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]

    def vectors(self, rows: Rows) -> Vectors:
        norms = np.linalg.norm(self.base.vectors(rows), axis=1, keepdims=True)
        width = self.dimension
        cells = rows.astype(np.uint64)[:, None] * np.uint64(width) + np.arange(width, dtype="u8")
        radius = np.sqrt(-2.0 * np.log(self._uniform(2 * cells)))
        noise = radius * np.cos(2.0 * np.pi * self._uniform(2 * cells + np.uint64(1)))
        noise *= norms / np.linalg.norm(noise, axis=1, keepdims=True)
        return cast("Vectors", noise.astype(np.float32))

    def entity(self, row: int) -> Entity:
        own = self.base.entity(row)
        return Entity(own.id, own.label, own.aliases)

    def _uniform(self, counters: NDArray[np.uint64]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):
            state = (counters + self._key) * np.uint64(0x9E3779B97F4A7C15)
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
            state ^= state >> np.uint64(31)
        # Half a step up: the logarithm of exactly zero must not occur.
        uniform: NDArray[np.float64] = (
            (state >> np.uint64(11)).astype(np.float64) + 0.5
        ) * 2.0**-53
        return uniform


@final
class ZeroVectors(_View):
    """Vectors of zeros and no description: what the slot itself does to the input."""

    def __init__(self, base: KnowledgeBase) -> None:
        super().__init__(base, "zero", None)

    def vectors(self, rows: Rows) -> Vectors:
        return np.zeros((len(rows), self.dimension), dtype=np.float32)

    def entity(self, row: int) -> Entity:
        own = self.base.entity(row)
        return Entity(own.id, own.label, own.aliases)
