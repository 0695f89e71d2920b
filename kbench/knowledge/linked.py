"""Examples with their links, made the same way wherever they are asked for.

A run, its count of what the knowledge base knew already, what is held out of a knowledge base, and
what is shown of a run must all speak of the same entities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kbench.data import Example
from kbench.knowledge.aliases import aliases_of
from kbench.knowledge.base import KnowledgeBase, Rows
from kbench.knowledge.linking import Covers, Links, link

__all__ = ["anyone", "linked"]


def linked(
    examples: Sequence[Example],
    knowledge: KnowledgeBase | None,
    linker: str,
    covers: Covers | None = None,
) -> tuple[Sequence[Example], Links]:
    """Links the mentions of examples, with those that the linker adds.

    Args:
        examples: as a task gives them.
        knowledge: the true one; None links nothing.
        linker: one of :data:`~kbench.knowledge.LINKERS`.
        covers: whether something can be said of each row; default: whether it has a vector.

    Returns:
        The examples with the mentions that were found, and the row of each mention.

    Raises:
        UsageError: no such linker.
    """
    if knowledge is None or linker != "alias":
        return examples, link(examples, knowledge, linker, covers)
    named, ambiguous = aliases_of(knowledge).linked(examples, knowledge)
    return named, replace(link(named, knowledge, linker, covers), ambiguous=ambiguous)


def anyone(rows: Rows) -> NDArray[np.bool_]:
    """Covers every entity, for links whatever a method has to say."""
    return rows >= 0
