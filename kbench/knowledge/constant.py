"""The control ``constant``: as much to train, and nothing to tell one entity from another.

A plug that is trained with the true knowledge differs from the model without it in two things: it
knows, and it has trained parameters in the place where knowledge goes. Trained on the same data,
in as many steps, with the same vector of every entity, it is a learned slot (prompt tuning), an
adapter or a passage of equal size: what it gains is the effect of these parameters.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import cast, final

import numpy as np
from numpy.typing import NDArray

from kbench.knowledge.base import Entity, KnowledgeBase, Rows, Spelled, Vectors
from kbench.knowledge.views import Broken

__all__ = ["Constant"]

_SAMPLE = 1 << 11
"""Vectors whose norm is measured, and texts of which the middle one is taken."""


@final
class Constant(Broken):
    """Every entity has the same vector, description and facts; none has a type.

    The vector is a direction drawn by the seed, as long as the true ones are on average. The
    description is one of the knowledge base, of middling length; of its facts each is the first
    that can be told. What has no description, or no facts, has none here. The facts that sentences
    spell out all have the commonest relation.

    Args:
        base: the true knowledge base.
        seed: of the direction.
    """

    def __init__(self, base: KnowledgeBase, seed: int) -> None:
        super().__init__(base, "constant", seed)
        self._seed = seed

    def vectors(self, rows: Rows) -> Vectors:
        return np.tile(self._vector, (len(rows), 1))

    @cached_property
    def _vector(self) -> Vectors:
        every = np.arange(len(self), dtype=np.int64)
        some = every[self.base.has_vector(every)][:_SAMPLE]
        norms = np.linalg.norm(self.base.vectors(some), axis=1)
        drawn = np.random.default_rng(self._seed).standard_normal(self.dimension)
        vector = drawn * (norms.mean() if len(some) else 1.0) / np.linalg.norm(drawn)
        return cast("Vectors", vector.astype(np.float32))

    def has_description(self, rows: Rows) -> NDArray[np.bool_]:
        return self.base.has_description(rows)

    def entity(self, row: int) -> Entity:
        own = self.base.entity(row)
        text = self._description if own.description.strip() else own.description
        return Entity(own.id, own.label, own.aliases, (), text)

    @cached_property
    def _description(self) -> str:
        lengths = self.base.description_lengths
        some = np.flatnonzero(lengths)[:_SAMPLE]
        middle = some[np.argsort(lengths[some], kind="stable")[len(some) // 2]]
        return self.base.entity(int(middle)).description

    @cached_property
    def triples(self) -> NDArray[np.int32]:
        told = self.base.told
        broken = np.array(self.base.triples)
        if told.any():
            broken[told, 1:] = broken[np.argmax(told), 1:]
        return broken

    @cached_property
    def spelled(self) -> Spelled:
        true = self.base.spelled
        commonest = np.bincount(true.relation, minlength=1).argmax()
        return replace(true, relation=np.full_like(true.relation, commonest))

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        return Constant(self.base.over(rows, vectors), self._seed)
