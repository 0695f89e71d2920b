"""The controls that know of kinds: ``foreign`` and ``same-type``.

``shuffled`` asks nothing of the entity whose knowledge is brought, so it may be of the same kind,
or even have the same answer; where most entities are of one kind it mostly is. Then it tells a
model half of what the true knowledge tells. These two split what is told: ``foreign`` brings
nothing that is true of the entity, ``same-type`` what is true of any entity of its kind.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from kbench.errors import Unsupported
from kbench.knowledge.base import KnowledgeBase, Marks, Rows
from kbench.knowledge.exchange import Exchanged
from kbench.knowledge.folding import folded
from kbench.knowledge.gold import Gold, has, marks_of, united
from kbench.knowledge.linking import Covers
from kbench.knowledge.names import find_word

__all__ = ["Foreign", "SameType"]

_ROUNDS = 16
"""Draws of a partner before all that are left are looked through."""
_LOOKED_AT = 64
"""Partners of which it is read whether their text names an answer."""


class _Drawn(Exchanged):
    """Every entity answers with one that is drawn for it; several may get the same.

    It is drawn among those of whom the method reads alike; where none of them will do, among
    those who are alike but for the size of the text, then the name, which text there is, the
    vector. What the method covers always stays.
    """

    def _drawn(self, rng: np.random.Generator, rows: Rows, group: NDArray[np.int32]) -> Rows:
        """Returns a partner of the same group for each of some entities, -1 where none will do."""
        raise NotImplementedError

    def _partners(self, rng: np.random.Generator) -> Rows:
        other, levels = np.full(len(self.base), -1, dtype=np.int64), self.alike.levels()
        for group in levels:
            if len(left := np.flatnonzero(other < 0)):
                other[left] = self._drawn(rng, left, group)
        self._check(other)
        for group in levels:
            if len(left := np.flatnonzero(other < 0)):
                other[left] = _anyone(rng, left, group)
        return np.where(other < 0, np.arange(len(other)), other)

    def _check(self, other: Rows) -> None:
        """Refuses what is no such control at all.

        Args:
            other: the partner of each entity, -1 where none will do. ``[entities]``.
        """
        raise NotImplementedError


@final
class SameType(_Drawn):
    """Every entity answers with another's knowledge, of one with a type in common.

    Of the types of an entity it is the rarest that another one has. Entities without a type, or
    with none that they share, get anyone's.
    """

    control = "same-type"

    def _drawn(self, rng: np.random.Generator, rows: Rows, group: NDArray[np.int32]) -> Rows:
        types = self.base.types
        asked = np.isin(types.row, rows)
        code = group[types.row].astype(np.int64) * max(1, len(types.names)) + types.number
        sharing, other = _by_rarest(rng, types.row, code, asked)
        found = np.full(len(rows), -1, dtype=np.int64)
        found[np.searchsorted(rows, sharing)] = other
        return found

    @cached_property
    def other_fact(self) -> Rows:
        """The spelled fact whose relation each takes: of a head with a type in common.

        Facts whose heads have none that others have take anyone's. ``[facts]``.
        """
        heads = self.base.spelled.subject
        fact, types = marks_of(self.base.types, heads)
        found = super().other_fact.copy()
        rng = np.random.default_rng([self.seed, 1])
        sharing, other = _by_rarest(rng, fact, types, np.ones(len(fact), dtype=bool))
        found[sharing] = other
        return found

    def _check(self, other: Rows) -> None:
        if self.covered.any() and not (other[self.covered] >= 0).any():
            raise Unsupported(
                f"control same-type: no two entities of knowledge base {self.name} that the method "
                "covers share a type; the other controls need none"
            )


@final
class Foreign(_Drawn):
    """Every entity answers with another's knowledge, of one that tells nothing true of it.

    The partner shares no type with it; it has no gold label in common with it in any split; no
    fact of it tells such a label, and where that is an answer its text does not name it. Which
    kind the partner is of is drawn first, all alike likely, and then who: where most entities are
    of one kind, a partner of that kind would else tell that one is of another. A type that
    everyone has whom the method covers and of whom any is known says nothing, and does not count.

    Entities to whom nobody is foreign get anyone's; how many that are, is counted in results
    (:mod:`kbench.knowledge.sharing`).

    Args:
        base: the true knowledge base.
        seed: of what is drawn.
        covers: whether the method covers each row; default: whether it has a vector.
        grounds: a name for ``covers`` and ``gold`` in the digest; default: whom it covers.
        gold: gives the gold labels; None for types alone.
    """

    control = "foreign"
    rule = 2  # by the first, partners hung on what ran before in the process

    def __init__(
        self,
        base: KnowledgeBase,
        seed: int,
        covers: Covers | None = None,
        grounds: object = None,
        gold: Callable[[], Gold] | None = None,
    ) -> None:
        super().__init__(base, seed, covers, grounds)
        self._given = gold

    def _over(self, base: KnowledgeBase) -> Self:
        return type(self)(base, self.seed, self._covered_before, "over", lambda: self._gold)

    @cached_property
    def _gold(self) -> Gold:
        return self._given() if self._given else Gold(self.base)

    @cached_property
    def _types(self) -> Marks:
        """The types of each entity, but for those of all whom the method covers.

        So where facts are told of films alone, a film is foreign that has another answer. Of whom
        no type is known does not count, as in :class:`~kbench.knowledge.gold.Gold`.
        """
        types = self._gold.types
        typed = int(self._with_marks(self.base.types).sum())
        often = np.bincount(types.number[self.covered[types.row]], minlength=len(types.names))
        kept = (often < typed)[types.number] if typed > 1 else slice(None)
        return Marks(types.row[kept], types.number[kept], types.names)

    @cached_property
    def _own(self) -> Marks:
        """What must not be told of each entity."""
        return united(self._types, self._gold.labels)

    @cached_property
    def _told(self) -> Marks:
        """What the knowledge of each entity would tell."""
        return united(self._types, self._gold.told)

    @cached_property
    def _tellers(self) -> Marks:
        """Who would tell each mark: what would be told, the other way round."""
        told = self._told
        order = np.argsort(told.number, kind="stable")
        return Marks(told.number[order], told.row[order], told.names)

    @cached_property
    def _kind(self) -> NDArray[np.int64]:
        """The commonest mark of each entity, counted from 1; 0 for one without. ``[entities]``."""
        own = self._own
        often = np.bincount(own.number, minlength=1)
        order = np.lexsort((-own.number, often[own.number]))
        kind = np.zeros(len(self.base), dtype=np.int64)
        kind[own.row[order]] = 1 + own.number[order]  # the last one stays
        return kind

    def _drawn(self, rng: np.random.Generator, rows: Rows, group: NDArray[np.int32]) -> Rows:
        members = _Members(group, self._kind)
        found = np.full(len(rows), -1, dtype=np.int64)
        for _ in range(_ROUNDS):
            left = np.flatnonzero(found < 0)
            partners = members.draw(rng, group[rows[left]])
            fits = (partners != rows[left]) & ~self._tells(rows[left], partners)
            found[left[fits]] = partners[fits]
        for at in self._by_marks(rows, np.flatnonzero(found < 0), group):
            found[at] = self._looked_for(rng, rows[at], members)
        return found

    def _tells(self, rows: Rows, partners: Rows) -> NDArray[np.bool_]:
        """Whether each partner would tell something true of the entity."""
        at, numbers = marks_of(self._own, rows)
        told = np.zeros(len(rows), dtype=bool)
        told[at[has(self._told, partners[at], numbers)]] = True
        for one in np.flatnonzero(~told).tolist() if self._gold.answers else ():
            told[one] = self._names_an_answer(int(rows[one]), int(partners[one]))
        return told

    def _names_an_answer(self, row: int, partner: int) -> bool:
        answers = self._gold.answers.get(row)
        return bool(answers) and any(find_word(a, self._text(partner)) >= 0 for a in answers or ())

    @cached_property
    def _text(self) -> Callable[[int], str]:
        return lru_cache(maxsize=1 << 12)(lambda row: folded(self.base.describe(row)))

    def _by_marks(self, rows: Rows, left: Rows, group: NDArray[np.int32]) -> list[Rows]:
        """Parts entities of a group by what must not be told of them, for all look alike."""
        known: dict[tuple[int, bytes], list[int]] = {}
        own = self._own
        bounds = np.searchsorted(own.row, [rows[left], rows[left] + 1])
        for at, start, end in zip(left.tolist(), *bounds.tolist(), strict=True):
            key = int(group[rows[at]]), own.number[start:end].tobytes()
            known.setdefault(key, []).append(at)
        return [np.array(several) for several in known.values()]

    def _looked_for(self, rng: np.random.Generator, rows: Rows, members: _Members) -> Rows:
        """Looks through all of a group for partners of entities with the same marks."""
        _, own = marks_of(self._own, rows[:1])
        near = np.zeros(len(self.base), dtype=bool)
        near[members.of(rows[0])] = True
        near[marks_of(self._tellers, own)[1]] = False
        foreign = np.flatnonzero(near)
        found = np.full(len(rows), -1, dtype=np.int64)
        for at, row in enumerate(rows.tolist()) if len(foreign) else ():
            some = rng.choice(foreign, size=min(_LOOKED_AT, len(foreign)), replace=False).tolist()
            fits = (p for p in some if p != row and not self._names_an_answer(row, p))
            found[at] = next(fits, -1)
        return found

    def _check(self, other: Rows) -> None:
        own = self._with_marks(self._own)
        if (own | self._with_marks(self._gold.types)).any() and not (other[own] >= 0).any():
            raise Unsupported(
                f"control foreign: whoever the method covers in knowledge base {self.name} shares "
                "a type or a gold label with all others; the control shuffled needs no foreigner"
            )

    def _with_marks(self, marks: Marks) -> NDArray[np.bool_]:
        """Whether each entity is covered and has a mark. ``[entities]``."""
        marked = np.zeros(len(self.base), dtype=bool)
        marked[marks.row] = True
        return marked & self.covered


@final
class _Members:
    """Entities by group and kind.

    Args:
        group: of each entity. ``[entities]``.
        kind: of each entity. ``[entities]``.
    """

    def __init__(self, group: NDArray[np.int32], kind: NDArray[np.int64]) -> None:
        self._order = np.lexsort((kind, group))
        groups, kinds = group[self._order], kind[self._order]
        new = np.ones(len(group), dtype=bool)
        new[1:] = (groups[1:] != groups[:-1]) | (kinds[1:] != kinds[:-1])
        parts = np.flatnonzero(new)
        self._starts = np.append(parts, len(group))
        self._groups, first = np.unique(groups[parts], return_index=True)
        self._first = np.append(first, len(parts))
        self._of = group

    def draw(self, rng: np.random.Generator, groups: NDArray[np.int32]) -> Rows:
        """Draws a member of each group: first its kind, all alike likely."""
        place = np.searchsorted(self._groups, groups)
        part = rng.integers(self._first[place], self._first[place + 1])
        return self._order[rng.integers(self._starts[part], self._starts[part + 1])]

    def of(self, row: int) -> Rows:
        """Returns all of the group of an entity."""
        place = np.searchsorted(self._groups, self._of[row])
        start, end = self._starts[self._first[place]], self._starts[self._first[place + 1]]
        return self._order[start:end]


def _anyone(rng: np.random.Generator, rows: Rows, group: NDArray[np.int32]) -> Rows:
    """Returns another member of the group of each entity, -1 where there is none."""
    return _another(rng, group, np.argsort(group, kind="stable"), rows)


def _by_rarest(
    rng: np.random.Generator, row: Rows, code: NDArray[np.integer], asked: NDArray[np.bool_]
) -> tuple[Rows, Rows]:
    """Draws another with the same code, of the codes of each the rarest that another has.

    Args:
        rng: draws it.
        row: whose each code is; one may have several. ``[marks]``.
        code: ``[marks]``.
        asked: whether another is drawn for it. ``[marks]``.

    Returns:
        those who share a code with another, rising, and who was drawn for each.
    """
    order = np.argsort(code, kind="stable")
    first, last = (np.searchsorted(code[order], code, side) for side in ("left", "right"))
    size = last - first
    pairs = np.flatnonzero(asked & (size > 1))
    pairs = pairs[np.lexsort((size[pairs], row[pairs]))]
    sharing, rarest = np.unique(row[pairs], return_index=True)
    return sharing, row[_another(rng, code, order, pairs[rarest])]


def _another(
    rng: np.random.Generator, code: NDArray[np.integer], order: Rows, chosen: Rows
) -> Rows:
    """Returns the number of another with the same code for each chosen one, -1 where none has it.

    Args:
        rng: draws it.
        code: of all. ``[n]``.
        order: the numbers of all by their codes. ``[n]``.
        chosen: some numbers.
    """
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    start, end = (np.searchsorted(code[order], code[chosen], side) for side in ("left", "right"))
    size = end - start
    step = rng.integers(1, np.maximum(size, 2))
    at = start + (place[chosen] - start + step) % size
    return np.where(size > 1, order[at], -1)
