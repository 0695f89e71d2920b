"""Candidates of a mention: the entities that share a name with the linked one.

A name is a label or an alias, whatever its form and case. How likely a candidate is before the
context is read, its prior, is taken as proportional to one more than the number of facts it occurs
in. Names are what mentions are made of, so controls leave them; facts come through the control.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from kbench.knowledge import KnowledgeBase, Rows, folded

__all__ = ["Namesakes"]

Priors: TypeAlias = NDArray[np.float32]


@final
class Namesakes:
    """The candidates of every entity, kept only for those that share a name.

    Args:
        knowledge: gives names, facts, and says who has a vector; none else is a candidate.
        most: candidates of a mention at most, the linked entity included.

    Attributes:
        rows: entities with namesakes, rising. ``[k]``.
    """

    def __init__(self, knowledge: KnowledgeBase, most: int) -> None:
        facts = knowledge.triples
        occurrences = np.concatenate([facts[:, 0], facts[:, 2]])
        weights = np.bincount(occurrences, minlength=len(knowledge)) + np.int64(1)
        others = _others(knowledge, weights, most - 1)
        self.rows = np.array(sorted(others), dtype=np.int64)
        width = 1 + max(map(len, others.values()), default=0)
        self._table = np.full((len(self.rows), width), -1, dtype=np.int64)
        self._table[:, 0] = self.rows
        for at, row in enumerate(self.rows.tolist()):
            self._table[at, 1 : 1 + len(others[row])] = others[row]
        priors = np.where(self._table >= 0, weights[self._table], 0.0)
        self._priors = (priors / priors.sum(1, keepdims=True)).astype(np.float32)

    def shared(self, rows: Rows) -> int:
        """Returns how many of the linked entities share a name. ``[mentions]``."""
        return int(np.isin(rows, self.rows).sum())

    def of(self, rows: Rows) -> tuple[Rows, Priors]:
        """Returns candidates of linked entities, each one's own first, and their priors.

        No wider than the most candidates among ``rows``; the rest of a row is -1, of prior 0.

        Args:
            rows: the linked entities. ``[mentions]``.

        Returns:
            Both ``[mentions, candidates]``.
        """
        at = np.minimum(np.searchsorted(self.rows, rows), max(0, len(self.rows) - 1))
        shared = self.rows[at] == rows if len(self.rows) else np.zeros(len(rows), dtype=bool)
        if not shared.any():
            return rows[:, None], np.ones((len(rows), 1), dtype=np.float32)
        width = int((self._table[at[shared]] >= 0).sum(1).max())
        candidates = np.full((len(rows), width), -1, dtype=np.int64)
        priors = np.zeros((len(rows), width), dtype=np.float32)
        candidates[:, 0], priors[:, 0] = rows, 1.0
        candidates[shared] = self._table[at[shared], :width]
        priors[shared] = self._priors[at[shared], :width]
        return candidates, priors


def _others(
    knowledge: KnowledgeBase, weights: NDArray[np.int64], most: int
) -> dict[int, list[int]]:
    """Finds the likeliest namesakes of each entity that has any, likeliest first."""
    shared: dict[int, set[int]] = defaultdict(set)
    for group in _groups(knowledge):
        # Beside itself nobody needs more than the first so many, however common the name.
        likely = _likeliest(group, weights, most + 1)
        for row in group:
            shared[row].update(other for other in likely if other != row)
    ordered = {row: _likeliest(others, weights, most) for row, others in shared.items()}
    return {row: others for row, others in ordered.items() if others}


def _groups(knowledge: KnowledgeBase) -> list[set[int]]:
    """Returns the entities with a vector by name, for the names that several have.

    All names are read twice: the first time only hashes are kept, eight bytes a name.
    """
    hashes = np.sort(np.fromiter((hash(name) for name, _ in _names(knowledge)), dtype=np.int64))
    several = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    groups: dict[str, set[int]] = defaultdict(set)
    for name, row in _names(knowledge):
        if hash(name) in several:
            groups[name].add(row)
    return [group for group in groups.values() if len(group) > 1]


def _names(knowledge: KnowledgeBase) -> Iterator[tuple[str, int]]:
    """Yields each name of each entity with a vector, once, whatever its form and case."""
    known = knowledge.has_vector(np.arange(len(knowledge)))
    for row, names in enumerate(knowledge.each_name()):
        if known[row]:
            yield from ((n, row) for n in {folded(name) for name in names})


def _likeliest(rows: set[int], weights: NDArray[np.int64], most: int) -> list[int]:
    return sorted(rows, key=lambda row: (-weights[row], row))[:most]
