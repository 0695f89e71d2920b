"""The controls: views of a knowledge base with its knowledge broken in one way each.

Being views, every method has them without knowing of them. What a control leaves as it is, is as
telling as what it breaks: all but ``zero`` leave whom a method covers and how much it brings. It
alone takes something away, on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from kbench.knowledge.base import Entity, KnowledgeBase, Rows, Spelled, Vectors
from kbench.knowledge.constant import Constant
from kbench.knowledge.documents import DOCUMENTS, Answers, Documents
from kbench.knowledge.exchange import Shuffled
from kbench.knowledge.gold import Gold
from kbench.knowledge.kinds import Foreign, SameType
from kbench.knowledge.linking import Covers
from kbench.knowledge.noise import Random
from kbench.knowledge.values import ValueSwapped
from kbench.knowledge.views import Broken
from kbench.spec import Control

__all__ = [
    "Constant",
    "Documents",
    "Foreign",
    "Random",
    "SameType",
    "Shuffled",
    "ValueSwapped",
    "Zero",
    "controlled",
]


@final
class Zero(Broken):
    """Vectors of zeros, no types, no description, no facts: what the slot itself does.

    The one control in which there is less to read, on purpose.
    """

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
        return Spelled(*(column[:0] for column in vars(true).values()))

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        return Zero(self.base.over(rows, vectors))


def controlled(
    base: KnowledgeBase,
    control: Control,
    seed: int,
    covers: Covers | None = None,
    grounds: object = None,
    gold: Callable[[], Gold] | None = None,
    labels: object = None,
    answers: Callable[[], Mapping[int, Answers]] | None = None,
) -> KnowledgeBase:
    """Returns a knowledge base seen through a control.

    Args:
        base: the true one.
        control: how it is broken.
        seed: of what is drawn.
        covers: whether the method has something to say of each row of the true knowledge base;
            default: whether it has a vector.
        grounds: what ``covers`` is called in digests; default: they name the rows themselves.
        gold: gives the gold labels that ``foreign`` must not bring; None for types alone.
        labels: what these, or the answers, are called in digests.
        answers: gives what ``answer-removed`` takes out of the texts of entities, by row.
    """
    if control == Control.FOREIGN:
        about = grounds if labels is None else [grounds, labels]
        return Foreign(base, seed, covers, about, gold)
    if control == Control.SAME_TYPE:
        return SameType(base, seed, covers, grounds)
    if control == Control.SHUFFLED:
        return Shuffled(base, seed, covers, grounds)
    if control == Control.RANDOM:
        return Random(base, seed)
    if control == Control.VALUE_SWAPPED:
        return ValueSwapped(base, seed)
    if control == Control.CONSTANT:
        return Constant(base, seed)
    if control in DOCUMENTS:
        return Documents(base, control, answers, labels if answers else None)
    return Zero(base) if control == Control.ZERO else base
