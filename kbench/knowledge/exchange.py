"""The control ``shuffled``: every entity answers with the knowledge of another.

Who may take whose place decides what the control says. What a method covers, and how much it
brings, must stay as it is: then a difference to the true knowledge is one of right and wrong, not
of something and nothing. What is brought should be as far from the truth as that allows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import cast, final

import numpy as np
from numpy.typing import NDArray

from kbench.errors import Unsupported
from kbench.knowledge.base import Entity, KnowledgeBase, Rows, Spelled, Vectors
from kbench.knowledge.linking import Covers
from kbench.knowledge.views import Broken

__all__ = ["Exchanged", "Shuffled", "parted"]

_WIDE = 50
"""Entities at least among which a partner is drawn by the size of the text."""


class Exchanged(Broken):
    """Every entity answers with another's vector, types, description and facts.

    Whose, says :attr:`other`, a permutation; all that is known of an entity moves as one. Names,
    and the links of the corpus, stay as they are. The facts that sentences spell out take each
    other's relations, by one cycle.
    """

    @property
    def other(self) -> Rows:
        """The entity whose knowledge each answers with. ``[entities]``."""
        raise NotImplementedError

    def has_vector(self, rows: Rows) -> NDArray[np.bool_]:
        return self.base.has_vector(self._others(rows))

    def vectors(self, rows: Rows) -> Vectors:
        return self.base.vectors(self._others(rows))

    def has_description(self, rows: Rows) -> NDArray[np.bool_]:
        return self.base.has_description(self._others(rows))

    def has_facts(self, rows: Rows) -> NDArray[np.bool_]:
        return self.base.has_facts(self._others(rows))

    def facts(self, row: int) -> list[tuple[str, str]]:
        # What is told of the other is told of this one, even if it has no name itself: whom a
        # method covers must not hang on whose place is taken.
        return self.base.facts(int(self.other[row])) if row >= 0 else []

    @property
    def told(self) -> NDArray[np.bool_]:
        return self.base.told

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
        order = np.random.default_rng(self.seed).permutation(len(true))
        relation = np.empty_like(true.relation)
        relation[order] = np.roll(true.relation[order], 1)
        return replace(true, relation=relation)

    def _others(self, rows: Rows) -> Rows:
        return np.where(rows >= 0, self.other[rows], -1)


@final
class Shuffled(Exchanged):
    """Every entity answers with another's knowledge, of one that the method covers as it does.

    The permutation is a cycle, drawn by the seed, in each group of entities that are alike: the
    method covers them, or not; they have a vector, or not; a description, facts that can be
    told, both or neither; a name of their own; and texts of like size, by powers of two of the
    characters of the description, or of the number of facts where there is none. A group by size
    has 50 entities at least, any other two: one that has fewer joins its neighbour, so that
    nobody keeps its own. So size is given up first, then the name, which text there is, the
    vector; never what the method covers. Of whom it covers all knowledge is there still, once.

    Args:
        base: the true knowledge base.
        seed: of the permutation.
        covers: whether the method covers each row; default: whether it has a vector.
        grounds: a name for ``covers`` in the digest; default: the rows themselves.

    Raises:
        Unsupported: when the permutation is asked for, if only one entity is covered.
    """

    def __init__(
        self,
        base: KnowledgeBase,
        seed: int,
        covers: Covers | None = None,
        grounds: object = None,
    ) -> None:
        self._covers = covers or base.has_vector
        if covers is not None and grounds is None:
            told = np.packbits(covers(np.arange(len(base), dtype=np.int64)))
            grounds = hashlib.sha256(told.tobytes()).hexdigest()
        super().__init__(base, "shuffled", seed, grounds)
        self._seed = seed

    @cached_property
    def covered(self) -> NDArray[np.bool_]:
        """Whether the method covers each entity. ``[entities]``."""
        return self._covers(np.arange(len(self.base), dtype=np.int64))

    @cached_property
    def other(self) -> Rows:
        """The entity whose knowledge each answers with. ``[entities]``."""
        covered = np.flatnonzero(self.covered)
        if len(covered) == 1:
            raise Unsupported(
                f"control shuffled: of knowledge base {self.name} one entity alone is covered, "
                f"{self.base.entity(int(covered[0])).id!r}; it takes two to answer for each other"
            )
        return _cycled(self._alike(), len(self.base), np.random.default_rng(self._seed))

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        """Moves other vectors as all else moves, where they stay among those that have one."""
        other = self.base.over(rows, vectors)
        view = Shuffled(other, self._seed, lambda asked: self.covered[asked], "over")
        if np.array_equal(np.sort(self.other[rows]), rows):
            view.other = self.other
        return view

    def _alike(self) -> list[NDArray[np.int32]]:
        """The entities by what a method may read of them, those it covers apart from the others."""
        base, everyone = self.base, np.arange(len(self.base), dtype=np.int32)
        rows = np.arange(len(base), dtype=np.int64)
        name, vector = base.has_name(rows), base.has_vector(rows)
        del rows
        told = np.bincount(base.triples[base.told, 0], minlength=len(base))
        facts = told.astype(np.int32)
        length = base.description_lengths
        # In an order in which neighbours share something: nothing, facts, both, a description.
        text = np.where(facts > 0, 1 + (length > 0), 3 * (length > 0)).astype(np.int8)
        size = _power(np.where(length > 0, length, facts))
        del facts, told, length
        keys = ((self.covered, 0), (vector, 2), (text, 2), (name, 2), (size, _WIDE))
        groups = [everyone]
        for key, least in keys:
            groups = [part for group in groups for part in parted(group, key[group], least)]
        return groups


def _power(sizes: NDArray[np.integer]) -> NDArray[np.int8]:
    """Returns the power of two that each is above or equal to. ``[n]``."""
    power: NDArray[np.int32] = np.frexp(np.maximum(1, sizes).astype(np.float32))[1]
    return power.astype(np.int8)


def parted(
    group: NDArray[np.int32], key: NDArray[np.generic], least: int
) -> list[NDArray[np.int32]]:
    """Parts a group by the values of a key; a part of fewer than ``least`` joins the next.

    Args:
        group: rows, or numbers of any kind. ``[n]``.
        key: of each of them. ``[n]``.
        least: how many a part has at least, if the group has as many.
    """
    parts: list[NDArray[np.int32]] = []
    for value in np.unique(key):
        part = group[key == value]
        if parts and len(parts[-1]) < least:
            parts[-1] = np.concatenate([parts[-1], part])
        else:
            parts.append(part)
    if len(parts) > 1 and len(parts[-1]) < least:
        parts[-2:] = [np.concatenate(parts[-2:])]
    return parts


def _cycled(groups: Iterable[NDArray[np.int32]], entities: int, rng: np.random.Generator) -> Rows:
    """Returns a permutation that is one cycle in each group, drawn at random."""
    other = np.empty(entities, dtype=np.int64)
    for group in groups:
        order = rng.permutation(group)
        other[order] = np.roll(order, 1)
    return cast("Rows", other)
