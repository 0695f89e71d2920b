"""Encoded examples as flat arrays with bounds ("ragged"); a batch of them is a few gathers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from kbench.encoding.batch import Batch, Choices, ragged

__all__ = ["Branches", "Builder", "Encoded", "Inputs", "TokenKind", "Tokens"]


class TokenKind(IntEnum):
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


class Encoded(Protocol):
    """Encoded examples: texts (:class:`Inputs`), or pairs (:class:`~kbench.encoding.pairs.Pairs`).

    A model reads *sequences*. A text is one; an example that is compared with others has several,
    and what it is is decided between its candidates once all of them were read.
    """

    @property
    def slot_rows(self) -> NDArray[np.int64]:
        """Knowledge-base row of each slot. ``[slots]``."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, all its sequences together. ``[examples]``."""

    @property
    def sequence_lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence. ``[sequences]``."""

    @property
    def beginnings(self) -> NDArray[np.int64] | None:
        """How many tokens each sequence begins with that others do, and the number of those.

        None where they do not. ``[sequences, 2]``
        """

    @property
    def shortened(self) -> int:
        """Texts that lost a part."""

    @property
    def unslotted(self) -> int:
        """Context mentions that lost their slot because their text was full."""

    @property
    def words(self) -> Mapping[str, int]:
        """How many tokens stand for words, and how many of these are ``[UNK]``, by name."""

    @property
    def candidates(self) -> Sequence[tuple[str, ...]]:
        """What each example chooses between, by name; empty where it is the task's classes."""

    def __len__(self) -> int:
        """Examples."""

    def collate(
        self, chosen: NDArray[np.int64], targets: NDArray[np.generic] | None = None
    ) -> Batch:
        """Gathers examples into a padded batch, with what they decide between.

        Args:
            chosen: some of the examples. ``[batch]``.
            targets: of all examples, if the batch is to have those of the chosen ones.
        """

    def collate_sequences(self, chosen: NDArray[np.int64]) -> Batch:
        """Gathers some of the sequences into a padded batch, without what they decide."""

    def choices(self, chosen: NDArray[np.int64]) -> Choices | None:
        """Returns what the sequences of examples decide between; None where each is its own."""


@dataclass(frozen=True)
class Inputs:
    """Encoded examples as flat arrays; example ``i`` owns ``bounds[i]:bounds[i + 1]``.

    Attributes:
        ids: token ids; at a slot the id is a placeholder that is never looked up. ``[tokens]``.
        kinds: a :class:`TokenKind` each. ``[tokens]``.
        bounds: ``[examples + 1]``, into ``ids`` and ``kinds``.
        slots: position of each slot within its example; those of an entity one after another.
            ``[slots]``.
        slot_rows: knowledge-base row of each slot. ``[slots]``.
        slot_bounds: ``[examples + 1]``, into ``slots``.
        spans: first token and token after the last of each mention, within its example: what
            stands between its own markers, so that the token before is the last of its own marker
            where it is marked and has no slot; the span holds what is inserted at mentions within
            it. 0, 0 for a mention without a token. ``[mentions, 2]``.
        span_rows: knowledge-base row of each mention, -1 if unlinked. ``[mentions]``.
        span_bounds: ``[examples + 1]``, into ``spans``.
        blanks: position of the ``[MASK]`` within its example, -1 for none. ``[examples]``.
        pad: token id of padding.
        unknown: token id of what the tokenizer does not know; -1 if there is none.
        unslotted: context mentions that lost their slot because the input was full.
        shortened: examples that lost text.
        cut: texts to go on with whose passages lost a part for want of room.
        segments: 1 for tokens of passages, else 0; None without passages. ``[tokens]``.
        branches: where anchored passages hang; None without such.
        beginnings: how many tokens each example begins with that others do, their slots and
            mentions among them, and the number of those; None where they do not. ``[examples, 2]``.
        slots_each: slots of an entity.
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
    unknown: int = -1
    unslotted: int = 0
    shortened: int = 0
    cut: int = 0
    segments: NDArray[np.uint8] | None = None
    branches: Branches | None = None
    beginnings: NDArray[np.int64] | None = None
    slots_each: int = 1

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example. ``[examples]``."""
        return np.diff(self.bounds)

    @property
    def sequence_lengths(self) -> NDArray[np.int64]:
        """Those of the examples: each is one sequence. ``[examples]``."""
        return self.lengths

    @property
    def words(self) -> Mapping[str, int]:
        """How many tokens are of texts and of passages, and how many of these are ``[UNK]``.

        Where passages of a text to go on with were cut, of how many such texts, too.
        """
        return self.words_of(np.ones(len(self), dtype=np.int64))

    def words_of(self, times: NDArray[np.int64]) -> dict[str, int]:
        """Returns the same, where each example is read so many times. ``[examples]``."""
        read = np.repeat(times, self.lengths)
        unknown = self.ids == self.unknown
        counts = {}
        for name, kind in (("text", TokenKind.TEXT), ("passage", TokenKind.PASSAGE)):
            own = self.kinds == kind
            if kind == TokenKind.TEXT or own.any():
                counts[f"{name}_tokens"] = int(read[own].sum())
                counts[f"unknown_{name}_tokens"] = int(read[own & unknown].sum())
        return counts | ({"passages_cut": self.cut} if self.cut else {})

    @property
    def candidates(self) -> Sequence[tuple[str, ...]]:
        """None of their own."""
        return ()

    def collate(
        self, chosen: NDArray[np.int64], targets: NDArray[np.generic] | None = None
    ) -> Batch:
        """Gathers examples into a batch padded to its own longest.

        Args:
            chosen: some of the examples. ``[batch]``.
            targets: of all examples, if the batch is to have those of the chosen ones.
        """
        lengths = self.lengths[chosen]
        width = int(lengths.max())
        steps = np.arange(width)
        mask = steps < lengths[:, None]
        at = np.minimum(self.bounds[chosen][:, None] + steps, len(self.ids) - 1)
        ids = np.where(mask, self.ids[at], self.pad)
        slots, owner = ragged(self.slot_bounds, chosen)
        spans, holder = ragged(self.span_bounds, chosen)
        places_of = holder[:, None] * width + self.spans[spans]
        full = self.spans[spans, 1] > 0
        blanks = self.blanks[chosen]
        places = np.arange(len(chosen)) * width + blanks
        batch = Batch(
            ids=torch.from_numpy(ids),
            mask=torch.from_numpy(mask.astype(np.int64)),
            slot_index=torch.from_numpy(owner * width + self.slots[slots]),
            slot_rows=torch.from_numpy(self.slot_rows[slots]),
            mentions=torch.from_numpy(places_of[full]),
            mention_rows=torch.from_numpy(self.span_rows[spans][full]),
            mention_owners=torch.from_numpy(holder[full]),
            blank_index=torch.from_numpy(places if (blanks >= 0).all() else places[:0]),
            examples=torch.from_numpy(chosen),
            targets=None if targets is None else torch.from_numpy(targets[chosen]),
            shared=None if self.beginnings is None else _shared(self.beginnings[chosen]),
            slots_each=self.slots_each,
        )
        return _with_passages(batch, self, at, mask)

    def collate_sequences(self, chosen: NDArray[np.int64]) -> Batch:
        """Gathers examples into a batch padded to its own longest."""
        return self.collate(chosen)

    def choices(self, chosen: NDArray[np.int64]) -> Choices | None:
        """Nothing is decided between sequences."""
        return None


def _shared(beginnings: NDArray[np.int64]) -> tuple[int, int] | None:
    """What all of some examples begin with; None where that is nothing."""
    tokens, number = beginnings[0].tolist()
    return (tokens, number) if tokens and (beginnings == beginnings[0]).all() else None


def _with_passages(
    batch: Batch, inputs: Inputs, at: NDArray[np.int64], mask: NDArray[np.bool_]
) -> Batch:
    """Adds segments of passages; positions and visibility of those that hang at a mention."""
    if inputs.segments is not None:
        segments = np.where(mask, inputs.segments[at], 0).astype(np.int64)
        batch = replace(batch, segments=torch.from_numpy(segments))
    if inputs.branches is not None:
        branches = inputs.branches
        numbers = np.where(mask, branches.numbers[at], -1)
        batch = replace(
            batch,
            positions=torch.from_numpy(np.where(mask, branches.positions[at], 0)),
            visible=torch.from_numpy(_visible(numbers, branches.anchors[at])),
        )
    return batch


def _visible(numbers: NDArray[np.int32], anchors: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Who sees whom where branches hang at mentions (K-BERT, section 3.3).

    A token sees those of its own branch, or of the trunk if it is of the trunk; a branch and the
    mention it hangs at see each other. Padding sees padding, so that no row is empty.

    Args:
        numbers: 0 for the trunk, -1 for padding, else the branch. ``[batch, tokens]``.
        anchors: bounds of the mention of a branch's token. ``[batch, tokens, 2]``.
    """
    same: NDArray[np.bool_] = numbers[:, :, None] == numbers[:, None, :]
    places = np.arange(numbers.shape[1])
    start, end = anchors[..., 0, None], anchors[..., 1, None]
    hangs = (places >= start) & (places < end) & (numbers > 0)[:, :, None]
    return same | hangs | hangs.transpose(0, 2, 1)


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

    Args:
        slots_each: slots of an entity.

    Attributes:
        unslotted: see :class:`Inputs`.
        shortened: see :class:`Inputs`.
        cut: see :class:`Inputs`.
    """

    def __init__(self, slots_each: int = 1) -> None:
        self.slots_each = slots_each
        self.unslotted = 0
        self.shortened = 0
        self.cut = 0
        self._tokens: list[Tokens] = []
        self._slot_rows: list[int] = []
        self._span_rows: list[int] = []

    def add(self, tokens: Tokens, span_rows: Sequence[int], slot_rows: Sequence[int]) -> None:
        """Adds an example: the rows of its mentions, and those of its slots in their order."""
        self._tokens.append(tokens)
        self._span_rows += span_rows
        self._slot_rows += slot_rows

    def done(self, pad: int, unknown: int = -1) -> Inputs:
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
            unknown=unknown,
            unslotted=self.unslotted,
            shortened=self.shortened,
            cut=self.cut,
            segments=brought.astype(np.uint8) if brought.any() else None,
            branches=_joined(many),
            slots_each=self.slots_each,
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
