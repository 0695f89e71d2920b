"""The control ``value-swapped``: every fact keeps its entity and relation, and gets a false value.

What a model answers with such knowledge in reach shows whether it reads it: the share of examples
answered with the very value that was put there is the follow rate
(:class:`~kbench.metrics.FollowRate`). No score over shuffled knowledge says as much, for a model
may lose what it knew by itself without having read a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from kbench.data import Example
from kbench.errors import Unsupported
from kbench.knowledge.base import Entity, KnowledgeBase, Rows, Vectors
from kbench.knowledge.folding import folded
from kbench.knowledge.gold import Relations, answers_of, asked_about, called
from kbench.knowledge.linking import Covers
from kbench.knowledge.names import is_capitals, shortest, stands
from kbench.knowledge.views import Broken

__all__ = ["ValueSwapped", "injected"]

_ROUNDS = 16
"""Draws of a value before all that are left are looked through."""
_ORDINARY = 3
"""Letters of names that are ordinary words in lower case (May, WHO, Her), in any text."""
_LIKELY = 4
"""Of these the draws of a value as often as facts have it; later ones take all alike."""


@final
class ValueSwapped(Broken):
    """Facts keep head and relation; their values are permuted within the relation.

    A value that is true of the head all the same is drawn again, of the values of the relation; it
    stays where none of them is false. What can be told is swapped with what can be told, so each
    entity has as many facts as in truth. A description has the name of the false value where it
    names the true one. Vectors, types, names and the links of the corpus stay as they are.

    Args:
        base: the true knowledge base.
        seed: of what is drawn.
    """

    def __init__(self, base: KnowledgeBase, seed: int) -> None:
        super().__init__(base, "value-swapped", seed)
        self._seed = seed

    @cached_property
    def triples(self) -> NDArray[np.int32]:
        broken = np.array(self.base.triples)
        named = self.base.has_name(np.arange(len(self), dtype=np.int64))
        broken[:, 2] = _false_values(self.base.triples, named, np.random.default_rng(self._seed))
        if not (broken[:, 2] != self.base.triples[:, 2]).any():
            raise Unsupported(
                f"control value-swapped: no relation of knowledge base {self.name} has two values "
                "that could be swapped; shuffled needs none"
            )
        return broken

    def facts_of(self, row: int) -> Iterator[tuple[int, int, int]]:
        """Yields relation, true value and false value of the facts of an entity that are false."""
        order, bounds = self._facts_by_head
        for fact in order[bounds[row] : bounds[row + 1]].tolist():
            _, relation, true = self.base.triples[fact].tolist()
            if (false := int(self.triples[fact, 2])) != true:
                yield relation, true, false

    @cached_property
    def _facts_by_head(self) -> tuple[Rows, Rows]:
        """The numbers of the facts by their heads, and where those of each entity begin."""
        heads = self.base.triples[:, 0]
        order = np.argsort(heads, kind="stable")
        rows = np.arange(len(self) + 1, dtype=heads.dtype)
        return order, np.searchsorted(heads[order], rows)

    def has_description(self, rows: Rows) -> NDArray[np.bool_]:
        return self.base.has_description(rows)

    def entity(self, row: int) -> Entity:
        true = self.base.entity(row)
        if not true.description:
            return true
        return replace(true, description=self._swapped_in(true.description, true, row))

    def _swapped_in(self, text: str, own: Entity, row: int) -> str:
        """Returns a text with false values in the place of the true ones that it names.

        A word in lower case is no name that has capitals, but where a whole text has none; a
        name of two or three capitals is written so.
        """
        spared = {folded(name) for name in own.names}
        instead: dict[str, str] = {}
        spelled: dict[str, set[str]] = {}
        cased = text != text.lower()
        for _, true, false in self.facts_of(row):
            for name in self.base.entity(true).names:
                key = folded(name)
                if len(key) >= shortest(key) and key not in spared:
                    instead.setdefault(key, self.name_of(false))
                    spelled.setdefault(key, set()).add(name)
        if not any(instead.values()):
            return text
        longest = sorted(instead, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest)), re.IGNORECASE)

        def put(found: re.Match[str]) -> str:
            key = folded(found[0])
            if not stands(text, found.start(), found.end()):
                return found[0]
            ordinary = all(_is_ordinary(found[0], name, cased) for name in spelled.get(key, ()))
            return (None if ordinary else instead.get(key)) or found[0]

        return pattern.sub(put, text)

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        return ValueSwapped(self.base.over(rows, vectors), self._seed)


def _is_ordinary(word: str, name: str, cased: bool) -> bool:
    """Whether a word of a text is rather another word than a name of its letters.

    Args:
        word: of the text.
        name: as the knowledge base spells it.
        cased: whether the text has capitals.
    """
    if is_capitals(name):
        return not word.isupper()
    capitals = name != name.lower() and (cased or len(name) <= _ORDINARY)
    return capitals and word == word.lower()


def injected(
    examples: Sequence[Example], seen: ValueSwapped, linker: str, covers: Covers
) -> list[tuple[str, ...]]:
    """Returns the false answers that the knowledge of each example holds, by all their names.

    Of a question that says which relation it asks for (its stratum names it) these are the false
    values of that relation, of the entities that it links; of another those of the facts whose
    true value is called as an answer is. What is called as a right answer is none.

    Args:
        examples: of a test split.
        seen: the knowledge base through the control.
        linker: of the run.
        covers: whether the method covers each row.

    Returns:
        One entry an example; empty where no false answer is known, as of all that are no questions.
    """
    base, relations = seen.base, Relations(seen.base)
    answers = [{*map(folded, answers_of(example))} for example in examples]
    named = called({answer for own in answers for answer in own}, base)
    found: list[dict[str, None]] = [{} for _ in examples]
    asked = asked_about(examples, base, linker, covers)
    for at, row in zip(asked.example.tolist(), asked.row.tolist(), strict=True):
        if not answers[at]:
            continue
        wanted = relations.of(examples[at].stratum)
        right = {entity for answer in answers[at] for entity in named.get(answer, ())}
        for relation, true, false in seen.facts_of(row):
            if relation in wanted if wanted else true in right:
                found[at] |= dict.fromkeys(base.entity(false).names)
    return [
        tuple(name for name in names if folded(name) not in own)
        for names, own in zip(found, answers, strict=True)
    ]


def _false_values(
    facts: NDArray[np.int32], named: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int32]:
    """Returns another value for each fact, false of its head where its relation has such a one."""
    tails = facts[:, 2].copy()
    group = facts[:, 1].astype(np.int64) * 2 + named[tails]
    order = np.argsort(group, kind="stable")
    groups, first = np.unique(group[order], return_index=True)
    bounds = np.append(first, len(order))
    several = [order[bounds[n] : bounds[n + 1]] for n in range(len(groups))]
    for part in several:
        tails[part] = _rotated(facts[part, 2], rng)
    truth, distinct = _Truth(facts, len(named)), [np.unique(facts[part, 2]) for part in several]
    every = np.concatenate([*distinct, np.zeros(0, dtype=np.int32)])
    starts = np.append(0, np.cumsum([len(values) for values in distinct])).astype(np.int64)
    number = np.searchsorted(groups, group)
    left = np.flatnonzero(truth.holds(facts[:, :2], tails))
    for turn in range(_ROUNDS):
        of = number[left]
        if turn < _LIKELY:
            tails[left] = facts[order[rng.integers(bounds[of], bounds[of + 1])], 2]
        else:
            tails[left] = every[rng.integers(starts[of], starts[of + 1])]
        left = left[truth.holds(facts[left, :2], tails[left])]
    for fact in left.tolist():
        values = distinct[number[fact]]
        false = values[~truth.holds(np.tile(facts[fact, :2], (len(values), 1)), values)]
        tails[fact] = rng.choice(false) if len(false) else facts[fact, 2]
    return tails


def _rotated(values: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
    """Returns a permutation in which nothing keeps its value, unless most have the same."""
    shuffled = rng.permutation(len(values))
    by_value = shuffled[np.argsort(values[shuffled], kind="stable")]
    most = int(np.unique(values, return_counts=True)[1].max())
    moved = np.empty_like(values)
    moved[by_value] = np.roll(values[by_value], most)
    return moved


@final
class _Truth:
    """Which facts there are, for quick looking up."""

    def __init__(self, facts: NDArray[np.int32], entities: int) -> None:
        self._entities = max(1, entities)
        self._kinds = 1 + int(facts[:, 1].max(initial=0))
        self._codes = np.unique(self._code(facts[:, :2], facts[:, 2]))

    def holds(self, keys: NDArray[np.int32], values: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether each head and relation has a value. ``[n, 2], [n] -> [n]``."""
        known: NDArray[np.bool_] = np.isin(self._code(keys, values), self._codes)
        return known

    def _code(self, keys: NDArray[np.int32], values: NDArray[np.int32]) -> NDArray[np.int64]:
        heads, relations = keys.astype(np.int64).T
        code: NDArray[np.int64] = (heads * self._kinds + relations) * self._entities + values
        return code
