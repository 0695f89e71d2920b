"""Encoded examples as flat arrays with bounds ("ragged"); a batch of them is a few gathers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Branches", "Builder", "Inputs", "TokenKind", "Tokens"]


class TokenKind:
    """Where a token comes from."""

    SPECIAL = 0
    TEXT = 1
    INSERTED = 2
    SLOT = 3
    BLANK = 4
    PASSAGE = 5


@dataclass(frozen=True)
class Branches:
    """Passages that only their mention sees (K-BERT's visible matrix and soft positions).

    Attributes:
        positions: position id of each token, counted from 0. ``[tokens]``.
        numbers: 0 for the input itself, else the branch within the example. ``[tokens]``.
        anchors: for a token of a branch the first token of its mention and the token after the
            last; else 0, 0. ``[tokens, 2]``.
    """

    positions: NDArray[np.int64]
    numbers: NDArray[np.int32]
    anchors: NDArray[np.int32]


@dataclass(frozen=True)
class Inputs:
    """Encoded examples as flat arrays; example ``i`` owns ``bounds[i]:bounds[i + 1]``.

    Attributes:
        ids: token ids; at a slot the id is a placeholder that is never looked up. ``[tokens]``.
        kinds: a :class:`TokenKind` each. ``[tokens]``.
        bounds: ``[examples + 1]``, into ``ids`` and ``kinds``.
        slots: position of each slot within its example. ``[slots]``.
        slot_rows: knowledge-base row of each slot. ``[slots]``.
        slot_bounds: ``[examples + 1]``, into ``slots``.
        spans: first token and token after the last of each mention, within its example; the
            span may hold inserted tokens of a nested mention. ``[mentions, 2]``.
        span_rows: knowledge-base row of each mention, -1 if unlinked. ``[mentions]``.
        span_bounds: ``[examples + 1]``, into ``spans``.
        blanks: position of the ``[MASK]`` within its example, -1 for none. ``[examples]``.
        pad: token id of padding.
        unslotted: context mentions that lost their slot because the input was full.
        shortened: examples that lost text.
        segments: 1 for tokens of passages, else 0; None without passages. ``[tokens]``.
        branches: where anchored passages hang; None without such.
    """

    ids: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    bounds: NDArray[np.int64]
    slots: NDArray[np.int64]
    slot_rows: NDArray[np.int64]
    slot_bounds: NDArray[np.int64]
    spans: NDArray[np.int64]
    span_rows: NDArray[np.int64]
    span_bounds: NDArray[np.int64]
    blanks: NDArray[np.int64]
    pad: int = 0
    unslotted: int = 0
    shortened: int = 0
    segments: NDArray[np.uint8] | None = None
    branches: Branches | None = None

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example. ``[examples]``."""
        return np.diff(self.bounds)


@dataclass(frozen=True, slots=True)
class Tokens:
    """One encoded example; see :class:`Inputs` for the fields."""

    ids: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    slots: NDArray[np.int64]
    spans: NDArray[np.int64]
    blank: int
    branches: Branches | None = None


class Builder:
    """Collects examples into the flat arrays of :class:`Inputs`.

    Attributes:
        unslotted: see :class:`Inputs`.
        shortened: see :class:`Inputs`.
    """

    def __init__(self) -> None:
        self.unslotted = 0
        self.shortened = 0
        self._tokens: list[Tokens] = []
        self._slot_rows: list[int] = []
        self._span_rows: list[int] = []

    def add(self, tokens: Tokens, span_rows: Sequence[int], slot_rows: Sequence[int]) -> None:
        """Adds an example: the rows of its mentions, and those of its slots in their order."""
        self._tokens.append(tokens)
        self._span_rows += span_rows
        self._slot_rows += slot_rows

    def done(self, pad: int) -> Inputs:
        """Returns all that was added."""
        many = self._tokens
        kinds = _flat([t.kinds for t in many], np.uint8)
        brought = kinds == TokenKind.PASSAGE
        return Inputs(
            ids=_flat([t.ids for t in many], np.int64),
            kinds=kinds,
            bounds=_bounds([len(t.ids) for t in many]),
            slots=_flat([t.slots for t in many], np.int64),
            slot_rows=np.array(self._slot_rows, dtype=np.int64),
            slot_bounds=_bounds([len(t.slots) for t in many]),
            spans=_flat([t.spans for t in many], np.int64).reshape(-1, 2),
            span_rows=np.array(self._span_rows, dtype=np.int64),
            span_bounds=_bounds([len(t.spans) for t in many]),
            blanks=np.array([t.blank for t in many], dtype=np.int64),
            pad=pad,
            unslotted=self.unslotted,
            shortened=self.shortened,
            segments=brought.astype(np.uint8) if brought.any() else None,
            branches=_joined(many),
        )


def _joined(many: list[Tokens]) -> Branches | None:
    if not any(tokens.branches for tokens in many):
        return None
    known = [tokens.branches or _no_branches(len(tokens.ids)) for tokens in many]
    return Branches(
        _flat([b.positions for b in known], np.int64),
        _flat([b.numbers for b in known], np.int32),
        _flat([b.anchors for b in known], np.int32).reshape(-1, 2),
    )


def _no_branches(length: int) -> Branches:
    return Branches(
        np.arange(length),
        np.zeros(length, dtype=np.int32),
        np.zeros((length, 2), dtype=np.int32),
    )


def _flat(arrays: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate(arrays).astype(dtype) if arrays else np.empty(0, dtype=dtype)


def _bounds(counts: list[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
