"""The controls: views of a knowledge base with its knowledge broken in one way each.

Being views, every method has them without knowing of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import cast, final

import numpy as np
from numpy.typing import NDArray

from kbench.data.files import canonical_digest
from kbench.knowledge.base import Entity, KnowledgeBase, Rows, Spelled, Vectors
from kbench.knowledge.views import View
from kbench.spec import Control

__all__ = ["Random", "Shuffled", "Zero", "controlled"]


class _Control(View):
    """A view whose digest names the control and its seed."""

    def __init__(self, base: KnowledgeBase, control: str, seed: int | None) -> None:
        super().__init__(base, canonical_digest([base.digest, control, seed]))


@final
class Shuffled(_Control):
    """Every entity answers with another's vector, description and facts.

    The permutation is a cycle over the entities that have a vector and a text (a description or
    facts), one over those that have a vector alone, and likewise without a vector. So no entity
    keeps its own, and where there was something to say of a mention, there still is. Names, and
    the links of the corpus, stay as they are: only what is known of an entity moves. The facts
    that sentences spell out take each other's relations, by one cycle too.
    """

    def __init__(self, base: KnowledgeBase, seed: int) -> None:
        super().__init__(base, "shuffled", seed)
        self._seed = seed

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        return Shuffled(self.base.over(rows, vectors), self._seed)

    @cached_property
    def other(self) -> Rows:
        """The entity whose knowledge each answers with. ``[entities]``."""
        rng = np.random.default_rng(self._seed)
        other = np.empty(len(self.base), dtype=np.int64)
        for group in _alike(self.base):
            order = rng.permutation(group)
            other[order] = np.roll(order, 1)
        return other

    def vectors(self, rows: Rows) -> Vectors:
        return self.base.vectors(self.other[rows])

    def entity(self, row: int) -> Entity:
        own, other = self.base.entity(row), self.base.entity(int(self.other[row]))
        return Entity(own.id, own.label, own.aliases, other.types, other.description)

    @cached_property
    def triples(self) -> NDArray[np.int32]:
        # Entity e answers with the facts of other(e): a fact of r moves to the e with other(e) = r.
        broken = np.array(self.base.triples)
        back = np.empty(len(self.base), dtype=np.int32)
        back[self.other] = np.arange(len(back), dtype=np.int32)
        broken[:, 0] = back[broken[:, 0]]
        return broken

    @cached_property
    def spelled(self) -> Spelled:
        true = self.base.spelled
        order = np.random.default_rng(self._seed).permutation(len(true))
        relation = np.empty_like(true.relation)
        relation[order] = np.roll(true.relation[order], 1)
        return replace(true, relation=relation)


def _alike(base: KnowledgeBase) -> list[Rows]:
    """Returns the entities by what is known of them: with and without a vector and a text."""
    everyone = np.arange(len(base), dtype=np.int64)
    vector, text = base.has_vector(everyone), base.described(everyone)
    groups: list[Rows] = []
    for same in (vector, ~vector):
        told, untold = everyone[same & text], everyone[same & ~text]
        # Alone, an entity would keep its own. Vectors pass among those that have one, always.
        alone = 1 in (len(told), len(untold))
        groups += [np.concatenate([told, untold])] if alone else [told, untold]
    return groups


@final
class Random(_Control):
    """Gaussian directions with the norm of the true vectors, and facts drawn at random.

    A vector is a function of seed and row alone. Nothing is stored, so the control costs no copy
    of the matrix: the noise is a hash of ``(seed, row, column)`` (splitmix64) through the
    Box-Muller transform. Each fact keeps its head and gets any relation and tail; an entity is
    described by them alone.
    """

    def __init__(self, base: KnowledgeBase, seed: int) -> None:
        super().__init__(base, "random", seed)
        self._seed = seed
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

    @cached_property
    def triples(self) -> NDArray[np.int32]:
        rng = np.random.default_rng(self._seed)
        broken = np.array(self.base.triples)
        broken[:, 1] = rng.integers(max(1, len(self.relations)), size=len(broken))
        broken[:, 2] = rng.integers(len(self), size=len(broken))
        return broken

    @cached_property
    def spelled(self) -> Spelled:
        true = self.base.spelled
        drawn = np.random.default_rng(self._seed).integers(
            max(1, len(self.relations)), size=len(true)
        )
        return replace(true, relation=drawn)

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        return Random(self.base.over(rows, vectors), self._seed)

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
class Zero(_Control):
    """Vectors of zeros, no description, no facts: what the slot itself does to the input."""

    def __init__(self, base: KnowledgeBase) -> None:
        super().__init__(base, "zero", None)

    def vectors(self, rows: Rows) -> Vectors:
        return np.zeros((len(rows), self.dimension), dtype=np.float32)

    def entity(self, row: int) -> Entity:
        own = self.base.entity(row)
        return Entity(own.id, own.label, own.aliases)

    @property
    def triples(self) -> NDArray[np.int32]:
        return self.base.triples[:0]

    @property
    def spelled(self) -> Spelled:
        true = self.base.spelled
        return Spelled(true.sentence[:0], true.head[:0], true.tail[:0], true.relation[:0])

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        return Zero(self.base.over(rows, vectors))


def controlled(base: KnowledgeBase, control: Control, seed: int) -> KnowledgeBase:
    """Returns a knowledge base seen through a control."""
    if control == Control.SHUFFLED:
        return Shuffled(base, seed)
    if control == Control.RANDOM:
        return Random(base, seed)
    return Zero(base) if control == Control.ZERO else base
