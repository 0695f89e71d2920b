"""Controls that swap entities: each answers with the knowledge of another.

Who may take whose place decides what a control says. What a method covers, and how much it
brings, must stay as it is: then a difference to the true knowledge is one of right and wrong, not
of something and nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Self, cast, final

import numpy as np
from numpy.typing import NDArray

from kbench.errors import Unsupported
from kbench.knowledge.alike import Alike, grounds_of, parted
from kbench.knowledge.base import Entity, KnowledgeBase, Rows, Spelled, Vectors
from kbench.knowledge.linking import Covers
from kbench.knowledge.views import Broken

__all__ = ["Exchanged", "Shuffled"]

_WIDE = 50
"""Entities at least among which a partner is drawn by the size of the text."""


class Exchanged(Broken):
    """Every entity answers with another's vector, types, description and facts.

    Whose, says :attr:`other`; all that is known of an entity moves as one. Names, the values that
    facts say, by name and by vector, and the links of the corpus stay as they are. The facts that
    sentences spell out take other relations, each that of :attr:`other_fact`.

    Args:
        base: the true knowledge base.
        seed: of what is drawn.
        covers: whether the method covers each row; default: whether it has a vector.
        grounds: a name for ``covers``, and for whatever else decides, in the digest; default: the
            rows that are covered.

    Raises:
        Unsupported: when :attr:`other` is asked for, if nobody can take another's place.
    """

    control: ClassVar[str]
    rule: ClassVar[int] = 1
    """By which partners are drawn; what another one would draw differs, and so does its digest."""
    seed: int

    def __init__(
        self,
        base: KnowledgeBase,
        seed: int,
        covers: Covers | None = None,
        grounds: object = None,
    ) -> None:
        self._covers = covers or base.has_vector
        if covers is not None and grounds is None:
            grounds = grounds_of(covers, len(base))
        drawn = self.control if self.rule == 1 else f"{self.control}, rule {self.rule}"
        super().__init__(base, drawn, seed, grounds)

    def _partners(self, rng: np.random.Generator) -> Rows:
        """Returns whose knowledge each entity answers with; of two and more that are covered."""
        raise NotImplementedError

    def _over(self, base: KnowledgeBase) -> Self:
        """Returns the same control of other vectors, of those whom the method covers here."""
        return type(self)(base, self.seed, self._covered_before, "over")

    @cached_property
    def alike(self) -> Alike:
        """Who is alike in what the method may read."""
        return Alike(self.base, self._covers)

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Whether the method covers each entity. ``[entities]``."""
        return self.alike.covered

    @cached_property
    def other(self) -> Rows:
        """The entity whose knowledge each answers with. ``[entities]``."""
        covered = np.flatnonzero(self.covered)
        if len(covered) == 1:
            raise Unsupported(
                f"control {self.control}: of knowledge base {self.name} one entity alone is "
                f"covered, {self.base.entity(int(covered[0])).id!r}; it takes two to answer for "
                "each other"
            )
        return self._partners(np.random.default_rng(self.seed))

    @cached_property
    def other_fact(self) -> Rows:
        """The spelled fact whose relation each takes: by one cycle. ``[facts]``.

        Which relation that is hangs on nothing that the sentence says; so in a control that tells
        nothing true some facts keep theirs by chance. If none did, each would tell what is not so.
        """
        every = np.arange(len(self.base.spelled), dtype=np.int64)
        # By its own draws, or a method that reads nothing else were the same under two controls.
        rng = np.random.default_rng([self.seed, *self.control.encode()])
        return _cycled([every], len(every), rng)

    def has_vector(self, rows: Rows) -> NDArray[np.bool_]:
        return self.base.has_vector(self._others(rows))

    def vectors(self, rows: Rows) -> Vectors:
        return self.base.vectors(self._others(rows))

    def value_vectors(self, rows: Rows) -> Vectors:
        return self.base.value_vectors(rows)  # who answers for another, tells what is so of itself

    def has_description(self, rows: Rows) -> NDArray[np.bool_]:
        return self.base.has_description(self._others(rows))

    def has_facts(self, rows: Rows) -> NDArray[np.bool_]:
        return self.base.has_facts(self._others(rows))

    def facts(self, row: int) -> list[tuple[str, str]]:
        # What is told of the other is told of this one, even if it has no name itself: whom a
        # method covers must not hang on whose place is taken.
        return self.base.facts(int(self.other[row])) if row >= 0 else []

    def entity(self, row: int) -> Entity:
        own, other = self.base.entity(row), self.base.entity(int(self.other[row]))
        return Entity(own.id, own.label, own.aliases, other.types, other.description)

    @cached_property
    def triples(self) -> NDArray[np.int32]:
        head, fact = self._moved
        broken = np.array(self.base.triples[fact])
        broken[:, 0] = head
        return broken

    @cached_property
    def told(self) -> NDArray[np.bool_]:
        return np.asarray(self.base.told[self._moved[1]])

    @cached_property
    def _moved(self) -> tuple[NDArray[np.int32], Rows]:
        """Who answers with each fact, rising, and its number: several may with the same."""
        heads = self.base.triples[:, 0]
        order = np.argsort(heads, kind="stable")
        bounds = np.searchsorted(heads[order], np.arange(len(self.base) + 1, dtype=heads.dtype))
        number = np.diff(bounds)[self.other]
        own = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        head = np.repeat(np.arange(len(number), dtype=np.int32), number)
        return head, order[np.repeat(bounds[self.other], number) + own]

    @cached_property
    def spelled(self) -> Spelled:
        true = self.base.spelled
        return replace(true, relation=true.relation[self.other_fact])

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        """Moves other vectors as all else moves, where they stay among those that have one."""
        view = self._over(self.base.over(rows, vectors))
        if np.isin(self.other[rows], rows).all():
            view.other = self.other
        return view

    def _covered_before(self, rows: Rows) -> NDArray[np.bool_]:
        return self.covered[rows]

    def _others(self, rows: Rows) -> Rows:
        return np.where(rows >= 0, self.other[rows], -1)


@final
class Shuffled(Exchanged):
    """Every entity answers with another's knowledge, of one that the method covers as it does.

    Another of its own kind, or not: nothing is asked of the partner but that the method reads as
    much of it. The permutation is a cycle, drawn by the seed, in each group of entities that are
    alike: the method covers them, or not; they have a vector, or not; a description, facts that
    can be told, both or neither; a name of their own; and texts of like size. A group by size has
    50 entities at least, any other two: one that has fewer joins its neighbour, so that nobody
    keeps its own. So size is given up first, then the name, which text there is, the vector; never
    what the method covers. Of whom it covers all knowledge is there still, once.
    """

    control = "shuffled"

    def _partners(self, rng: np.random.Generator) -> Rows:
        return _cycled(self._groups(), len(self.base), rng)

    def _groups(self) -> list[NDArray[np.int32]]:
        alike = self.alike
        keys = (
            (alike.covered, 0), (alike.vector, 2), (alike.text, 2), (alike.name, 2),
            (alike.size, _WIDE),
        )  # fmt: skip
        groups = [np.arange(len(self.base), dtype=np.int32)]
        for key, least in keys:
            groups = [part for group in groups for part in parted(group, key[group], least)]
        return groups


def _cycled(groups: Iterable[NDArray[np.integer]], entities: int, rng: np.random.Generator) -> Rows:
    """Returns a permutation that is one cycle in each group, drawn at random."""
    other = np.empty(entities, dtype=np.int64)
    for group in groups:
        order = rng.permutation(group)
        other[order] = np.roll(order, 1)
    return cast("Rows", other)
