"""The entities nearest to a vector, in bounded memory: the matrix is read block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kbench.knowledge import KnowledgeBase, Rows, Vectors

__all__ = ["nearest_rows"]

_BLOCK = 1 << 22
"""Numbers of the matrix, and of its products with the queries, that are held at a time."""


def nearest_rows(
    base: KnowledgeBase, queries: Vectors, count: int, without: Rows
) -> tuple[Rows, NDArray[np.float64]]:
    """Returns the entities whose vectors have the largest cosine with each query.

    Args:
        base: the entities; those without a vector, or with one of zeros, are nobody's neighbour.
        queries: ``[queries, dimension]``.
        count: how many at most.
        without: an entity that is not to be named for each query. ``[queries]``.

    Returns:
        their rows, nearest first, the smaller row first of equals, and the cosines, both
        ``[queries, count]``; -1 and -inf where there are fewer, or the query is all zeros.
    """
    rows = np.full((len(queries), count), -1, dtype=np.int64)
    cosines = np.full((len(queries), count), -np.inf)
    wanted, told = _directions(queries)
    size = max(1, _BLOCK // max(1, base.dimension, len(queries)))
    for start in range(0, len(base) if count else 0, size):
        block = np.arange(start, min(start + size, len(base)), dtype=np.int64)
        block = block[base.has_vector(block)]
        directions, pointing = _directions(base.vectors(block))
        block, directions = block[pointing], directions[pointing]
        block_cosines = np.where(told[:, None], wanted @ directions.T, -np.inf)
        block_cosines[block[None, :] == without[:, None]] = -np.inf
        rows, cosines = _best(rows, cosines, block, block_cosines)
    return rows, cosines


def _directions(vectors: Vectors) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Vectors of length one, and which could be made so."""
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(norms > 0, norms, 1.0), norms[:, 0] > 0


def _best(
    rows: Rows, cosines: NDArray[np.float64], block: Rows, block_cosines: NDArray[np.float64]
) -> tuple[Rows, NDArray[np.float64]]:
    """The best of what was found before and of a block, of equals the earlier."""
    everyone = np.concatenate([rows, np.broadcast_to(block, block_cosines.shape)], axis=1)
    scores = np.concatenate([cosines, block_cosines], axis=1)
    count = rows.shape[1]
    # To sort all would take longer than to make them: those that may be among the best are sorted.
    least = -np.partition(-scores, count - 1, axis=1)[:, count - 1 : count]
    order = np.empty(rows.shape, dtype=np.int64)
    for one, own in enumerate(scores):
        able = np.flatnonzero(~(own < least[one]))  # with what is no number, if too few are
        order[one] = able[np.argsort(-own[able], kind="stable")[:count]]
    scores = np.take_along_axis(scores, order, axis=1)
    everyone = np.take_along_axis(everyone, order, axis=1)
    return np.where(np.isneginf(scores), -1, everyone), scores
