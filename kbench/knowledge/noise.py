"""The control ``random``: as much knowledge of every entity, and none of it true."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from typing import cast, final

import numpy as np
from numpy.typing import NDArray

from kbench.knowledge.alike import parted
from kbench.knowledge.base import Entity, KnowledgeBase, Rows, Spelled, Vectors
from kbench.knowledge.names import DENSE
from kbench.knowledge.views import Broken

__all__ = ["Random"]

_SAMPLE = 1 << 11
"""Entities whose words, or types, are drawn from."""
_WORD = re.compile(rf"{DENSE}|(?:(?!{DENSE})[^\W_])+")
"""A word; where a script puts no blanks between words, a sign."""
_PIECE = re.compile(rf"{DENSE}|(?:(?!{DENSE})\S)+")
"""What stands between blanks; where a script puts none between words, a sign."""


@final
class Random(Broken):
    """Gaussian directions with the norm of the true vectors, words and facts drawn at random.

    A vector is a function of seed and row alone. Nothing is stored, so the control costs no copy
    of the matrix: the noise is a hash of ``(seed, row, column)`` (splitmix64) through the
    Box-Muller transform. Each fact keeps its head. It gets any relation with as many words as the
    true one, and any tail with as many, or with none where the true one has no name; for a tail
    that is alone with so many words one of like length stands in. A description keeps its form, but
    each word in it is drawn from the words of two thousand descriptions; types are drawn as well,
    as many as there are.
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

    def has_description(self, rows: Rows) -> NDArray[np.bool_]:
        return self.base.has_description(rows)

    def entity(self, row: int) -> Entity:
        own, rng = self.base.entity(row), np.random.default_rng([self._seed, row])
        types: tuple[str, ...] = ()
        if own.types and self._types:
            number = len(own.types)
            drawn = rng.choice(self._types, size=number, replace=number > len(self._types))
            types = tuple(drawn.tolist())
        text = own.description
        if text:
            text = _WORD.sub(lambda _: self._words[rng.integers(len(self._words))], text)
        return Entity(own.id, own.label, own.aliases, types, text)

    @cached_property
    def _words(self) -> list[str]:
        """Words of descriptions, each as often as it occurs."""
        described = np.flatnonzero(self.base.description_lengths)
        texts = [entity.description for entity in self._sample(described)]
        return [word for text in texts for word in _WORD.findall(text)] or [""]

    @cached_property
    def _types(self) -> list[str]:
        """Types, each once."""
        everyone = np.arange(len(self.base), dtype=np.int64)
        return sorted({kind for entity in self._sample(everyone) for kind in entity.types})

    def _sample(self, rows: Rows) -> list[Entity]:
        if len(rows) > _SAMPLE:
            rows = np.random.default_rng(self._seed).choice(rows, size=_SAMPLE, replace=False)
        return [self.base.entity(row) for row in np.sort(rows).tolist()]

    @cached_property
    def triples(self) -> NDArray[np.int32]:
        rng = np.random.default_rng(self._seed)
        broken = np.array(self.base.triples)
        names = (_length(names[0]) if names else 0 for names in self.each_name())
        words = np.fromiter(names, dtype=np.int32, count=len(self))
        kinds = np.array([_length(name) for name in self._relation_names], dtype=np.int32)
        broken[:, 1] = _drawn(broken[:, 1], kinds, 1, rng)
        broken[:, 2] = _drawn(broken[:, 2], words, 2, rng)
        return broken

    @cached_property
    def spelled(self) -> Spelled:
        true, rng = self.base.spelled, np.random.default_rng(self._seed)
        return replace(true, relation=rng.choice(np.unique(true.relation), size=len(true)))

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


def _length(name: str) -> int:
    """Returns how many words a name has."""
    return len(name.split()) if name.isascii() else len(_PIECE.findall(name))


def _drawn(
    values: NDArray[np.int32], words: NDArray[np.int32], least: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Draws another in the place of each, of ``least`` at least that have as many words.

    What has no words stands only for what has none.
    """
    drawn, part_of = np.empty_like(values), np.empty(len(words), dtype=np.int32)
    sides = (np.flatnonzero(side).astype(np.int32) for side in (words == 0, words > 0))
    parts = [part for side in sides if len(side) for part in parted(side, words[side], least)]
    for number, part in enumerate(parts):
        part_of[part] = number
    asked = part_of[values]
    for number, part in enumerate(parts):
        places = np.flatnonzero(asked == number)
        drawn[places] = rng.choice(part, size=len(places))
    return drawn
