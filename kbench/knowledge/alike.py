"""Entities that are alike in all that a method may read of them: who may answer for whom.

A control that swaps entities must leave whom a method covers, and how much it brings, as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from kbench.knowledge.base import KnowledgeBase
from kbench.knowledge.linking import Covers

__all__ = ["Alike", "grounds_of", "parted"]

_SIZES = 64
"""More powers of two than a text has characters."""


@final
class Alike:
    """Entities by what a method may read of them, those it covers apart from the others.

    Args:
        base: the true knowledge base.
        covers: whether the method covers each row.

    Attributes:
        covered: whether it does. ``[entities]``.
        vector: whether they have one. ``[entities]``.
        text: what there is to read: 0 nothing, 1 facts, 2 both, 3 a description; so neighbours
            share something. ``[entities]``.
        name: whether they have one. ``[entities]``.
        size: of the text, the power of two above the characters of the description, or above the
            number of facts where there is none. ``[entities]``.
    """

    def __init__(self, base: KnowledgeBase, covers: Covers) -> None:
        rows = np.arange(len(base), dtype=np.int64)
        self.covered = covers(rows)
        self.name, self.vector = base.has_name(rows), base.has_vector(rows)
        del rows
        facts = np.bincount(base.triples[base.told, 0], minlength=len(base)).astype(np.int32)
        length = base.description_lengths
        self.text = np.where(facts > 0, 1 + (length > 0), 3 * (length > 0)).astype(np.int8)
        self.size = _power(np.where(length > 0, length, facts))

    def levels(self) -> Sequence[NDArray[np.int32]]:
        """Returns groups of entities, numbered, from those alike in all to those in the least.

        Size is given up first, then the name, which text there is, the vector; never what the
        method covers. Each is ``[entities]``.
        """
        code = self.covered.astype(np.int32)
        for key, values in (
            (self.vector, 2), (self.text, 4), (self.name, 2), (self.size, _SIZES),
        ):  # fmt: skip
            code *= values
            code += key
        return [code // lost for lost in (1, _SIZES, 2 * _SIZES, 8 * _SIZES, 16 * _SIZES)]


def grounds_of(covers: Covers, entities: int) -> str:
    """Returns a name for whom a method covers: the SHA-256 of the rows themselves."""
    told = np.packbits(covers(np.arange(entities, dtype=np.int64)))
    return hashlib.sha256(told.tobytes()).hexdigest()


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
