"""Shortening an input without losing what the task or the method stands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kbench.encoding.inputs import Tokens

__all__ = ["kept", "truncate"]


def truncate(tokens: Tokens, limit: int, claims: Sequence[int]) -> Tokens | None:
    """Keeps ``limit`` tokens: the essentials, then mentions, then the text nearest to them.

    Essential are all inserted tokens (specials, markers, slots, the blank) and the first and last
    token of the mentions ``claims``. Of the rest, tokens of mentions come first, then those with
    the smallest distance to an essential that is not a special; without any such, the beginning
    of the text. Order is kept.

    Returns:
        The shortened example, or None if the essentials alone are too many.
    """
    text = tokens.kinds == 1
    essential = ~text
    if tokens.blank >= 0:  # that of a text to go on with is its last token
        essential[tokens.blank] = True
    within = np.zeros_like(text)
    for mention in claims:
        start, end = tokens.spans[mention]
        if end > start:
            essential[[start, end - 1]] = True
            within[start:end] = True
    if essential.sum() > limit:
        return None
    cost = _distance(np.flatnonzero(essential & (tokens.kinds != 0)), len(text))
    cost[within] = 0
    cost[essential] = -1
    keep = np.zeros_like(text)
    keep[np.argsort(cost, kind="stable")[:limit]] = True
    return kept(tokens, keep)


def kept(tokens: Tokens, keep: NDArray[np.bool_]) -> Tokens:
    """Returns an example with some of its tokens; slots, markers and the blank are among them.

    A mention that keeps none has an empty span.
    """
    # before[p] is the new position of token p if it is kept, of the next kept one if not.
    before = np.concatenate([[0], np.cumsum(keep)])
    spans = before[tokens.spans]
    spans[spans[:, 0] == spans[:, 1]] = 0
    return replace(
        tokens,
        ids=tokens.ids[keep],
        kinds=tokens.kinds[keep],
        slots=before[tokens.slots],
        spans=spans,
        blank=int(before[tokens.blank]) if tokens.blank >= 0 else -1,
    )


def _distance(anchors: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Distance of each position to the nearest anchor; to the start if there is none."""
    positions = np.arange(length)
    if not len(anchors):
        return positions.copy()
    right = np.searchsorted(anchors, positions)
    after = anchors[np.minimum(right, len(anchors) - 1)]
    before = anchors[np.maximum(right - 1, 0)]
    nearest: NDArray[np.int64] = np.minimum(np.abs(after - positions), np.abs(positions - before))
    return nearest
