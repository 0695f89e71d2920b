"""Examples to token arrays: markers, entity slots and mentions as explicit positions.

The text is cut at the character offsets where something begins, ends or is inserted, each piece
is tokenized by itself (one batched call for all pieces of all examples), and what is inserted
goes between pieces. So nothing is ever added to a tokenizer, and a mention is exactly the
tokens of its own characters, whatever lower-casing does to lengths.

All examples live in flat arrays with bounds ("ragged"); a batch is a few gathers, with no loop
over tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kbench.data import Example, Role
from kbench.errors import KbenchError
from kbench.truncation import Tokens, truncate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Inputs", "Kind", "Layout", "encode"]

_SLOT = "{slot}"
_MENTION = "{mention}"
_PROBES = ("a", "0", ".", "的")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Kind:
    """Where a token comes from."""

    SPECIAL = 0
    TEXT = 1
    INSERTED = 2
    SLOT = 3
    BLANK = 4


@dataclass(frozen=True)
class Layout:
    """How an input is laid out.

    Attributes:
        markers: text set around mentions of a role.
        slot: template of a linked mention such as ``{slot} / {mention}``, or None for no slot.
        max_length: tokens at most, specials included.
        truncate: shorten what is longer; if False it is left whole (a corpus drops it instead).
    """

    markers: Mapping[Role, str]
    slot: str | None = None
    max_length: int = 128
    truncate: bool = True

    @cached_property
    def around(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The template's pieces before and after the mention, ``{slot}`` standing for the slot."""
        if self.slot is None:
            return (), ()
        if self.slot.count(_SLOT) != 1 or self.slot.count(_MENTION) != 1:
            raise KbenchError(
                f"slot template {self.slot!r}: expected {_SLOT} and {_MENTION} once each"
            )
        before, after = self.slot.split(_MENTION)
        return _pieces(before), _pieces(after)


def _pieces(template: str) -> tuple[str, ...]:
    return tuple(p for p in (part.strip() for part in re.split(r"(\{slot\})", template)) if p)


@dataclass(frozen=True)
class Inputs:
    """Encoded examples as flat arrays; example ``i`` owns ``bounds[i]:bounds[i + 1]``.

    Attributes:
        ids: token ids; at a slot the id is a placeholder that is never looked up. ``[tokens]``.
        kinds: a :class:`Kind` each. ``[tokens]``.
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

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example. ``[examples]``."""
        return np.diff(self.bounds)


@dataclass(frozen=True)
class _Affixes:
    """Special tokens that the tokenizer puts before and after one sequence."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def affixes(tokenizer: PreTrainedTokenizerFast) -> _Affixes:
    """Finds what a tokenizer puts around a sequence by looking at what it does to one."""
    for probe in _PROBES:
        bare = tokenizer(probe, add_special_tokens=False)["input_ids"]
        full = tokenizer(probe)["input_ids"]
        # A sign the tokenizer drops without a token would be found before everything.
        for start in range(len(full) - len(bare) + 1 if bare else 0):
            if full[start : start + len(bare)] == bare:
                return _Affixes(tuple(full[:start]), tuple(full[start + len(bare) :]))
    raise KbenchError("the tokenizer changes a text when it adds its special tokens")


def encode(
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
    rows: Sequence[Sequence[int]],
    layout: Layout,
) -> Inputs:
    """Encodes examples.

    Args:
        tokenizer: a fast tokenizer; it is not changed.
        examples: what to encode.
        rows: the knowledge-base row of each mention of each example, -1 where there is none;
            a slot is made for the others if the layout has a slot.
        layout: markers, slot template, length.

    Raises:
        KbenchError: what may not be cut (markers, slots, the ends of every mention, the blank)
            is longer than the layout allows.
    """
    plans = [_plan(e, r, layout) for e, r in zip(examples, rows, strict=True)]
    pieces = _tokenize(tokenizer, plans)
    around = affixes(tokenizer)
    builder = _Builder(_placeholder(tokenizer), tokenizer.mask_token_id)
    for example, row, plan in zip(examples, rows, plans, strict=True):
        tokens = _assemble(builder, around, plan, pieces, len(example.mentions))
        if layout.truncate and len(tokens.ids) > layout.max_length:
            tokens, plan = _fit(builder, around, example, row, plan, pieces, layout)
            builder.shortened += 1
        builder.add(tokens, row, plan)
    return builder.done(tokenizer.pad_token_id or 0)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A run of characters, a literal, a slot (``mention >= 0`` and no text) or the blank."""

    kind: int
    text: str = ""
    mention: int = -1
    inside: tuple[int, ...] = ()


def _plan(
    example: Example, rows: Sequence[int], layout: Layout, muted: frozenset[int] = frozenset()
) -> list[_Piece]:
    """Cuts the text and lays the insertions between the cuts."""
    mentions = example.mentions
    cuts = {0, len(example.text)}
    for mention in mentions:
        cuts |= {mention.start, mention.end}
    if example.blank is not None:
        cuts.add(example.blank)
    # At one offset: inner mentions close first, then the blank, then outer mentions open first.
    opening = sorted(range(len(mentions)), key=lambda m: (mentions[m].start, -mentions[m].end))
    closing = list(reversed(opening))
    plan: list[_Piece] = []
    edges = sorted(cuts)
    for at, end in zip(edges, [*edges[1:], None], strict=True):
        for m in closing:
            if mentions[m].end == at:
                plan += _insert(m, mentions[m].role, rows[m], layout, muted, after=True)
        if example.blank == at:
            plan.append(_Piece(Kind.BLANK))
        for m in opening:
            if mentions[m].start == at:
                plan += _insert(m, mentions[m].role, rows[m], layout, muted, after=False)
        if end is not None and end > at:
            inside = tuple(
                m for m, span in enumerate(mentions) if span.start <= at and end <= span.end
            )
            text = _SURROGATE.sub("\ufffd", example.text[at:end])
            plan.append(_Piece(Kind.TEXT, text, inside=inside))
    return list(_blanks_lead(plan))


def _blanks_lead(plan: list[_Piece]) -> Iterator[_Piece]:
    """Moves blanks at the end of a text piece to the start of the next.

    Byte-level and SentencePiece tokenizers read a blank as part of the word after it; at the end
    of a piece it would be a token of its own. ``[MASK]`` takes the blank before it into itself.
    """
    blanks = ""
    last = max((at for at, piece in enumerate(plan) if piece.kind == Kind.TEXT), default=-1)
    for at, piece in enumerate(plan):
        if piece.kind == Kind.TEXT:
            text = blanks + piece.text
            kept = text if at == last else text.rstrip()
            blanks = text[len(kept) :]
            if kept:
                yield replace(piece, text=kept)
        else:
            blanks = "" if piece.kind == Kind.BLANK else blanks
            yield piece


def _insert(
    mention: int, role: Role, row: int, layout: Layout, muted: frozenset[int], *, after: bool
) -> list[_Piece]:
    pieces: list[_Piece] = []
    if row >= 0 and mention not in muted:
        for piece in layout.around[after]:
            if piece == _SLOT:
                pieces.append(_Piece(Kind.SLOT, mention=mention))
            else:
                pieces.append(_Piece(Kind.INSERTED, f" {piece}", mention))
    marker = layout.markers.get(role)
    if marker:
        edge = _Piece(Kind.INSERTED, f" {marker}", mention)
        return [*pieces, edge] if after else [edge, *pieces]
    return pieces


def _tokenize(
    tokenizer: PreTrainedTokenizerFast, plans: Iterable[list[_Piece]]
) -> dict[str, list[int]]:
    texts = list(dict.fromkeys(piece.text for plan in plans for piece in plan if piece.text))
    if not texts:
        return {}
    encoded: Any = tokenizer(
        texts,
        add_special_tokens=False,
        padding=False,
        truncation=False,
        split_special_tokens=True,  # a text that spells out "[MASK]" is text
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return dict(zip(texts, encoded["input_ids"], strict=True))


def _placeholder(tokenizer: PreTrainedTokenizerFast) -> int:
    # Not the padding id: some models count positions by looking for it.
    for name in ("unk_token_id", "mask_token_id", "eos_token_id"):
        value = getattr(tokenizer, name, None)
        if value is not None:
            return int(value)
    return 0


def _assemble(
    builder: _Builder,
    around: _Affixes,
    plan: list[_Piece],
    pieces: Mapping[str, list[int]],
    mentions: int,
) -> Tokens:
    ids: list[int] = list(around.before)
    kinds: list[int] = [Kind.SPECIAL] * len(ids)
    slots: list[int] = []
    blank = -1
    spans = [[-1, -1] for _ in range(mentions)]
    for piece in plan:
        if piece.kind == Kind.SLOT:
            slots.append(len(ids))
            new = [builder.placeholder]
        elif piece.kind == Kind.BLANK:
            blank = len(ids)
            new = [builder.mask()]
        else:
            new = pieces[piece.text]
            for m in piece.inside if new else ():
                spans[m][0] = len(ids) if spans[m][0] < 0 else spans[m][0]
                spans[m][1] = len(ids) + len(new)
        ids += new
        kinds += [piece.kind] * len(new)
    ids += around.after
    kinds += [Kind.SPECIAL] * len(around.after)
    return Tokens(
        np.array(ids, dtype=np.int64),
        np.array(kinds, dtype=np.uint8),
        np.array(slots, dtype=np.int64),
        # A mention of characters that yield no token has an empty span.
        np.maximum(np.array(spans, dtype=np.int64).reshape(-1, 2), 0),
        blank,
    )


def _fit(
    builder: _Builder,
    around: _Affixes,
    example: Example,
    rows: Sequence[int],
    plan: list[_Piece],
    pieces: Mapping[str, list[int]],
    layout: Layout,
) -> tuple[Tokens, list[_Piece]]:
    """Truncates; where even the essentials are too many, context mentions give way.

    Farthest first they lose their slots, and then their claim to a place. The mentions that the
    task is about lose neither.
    """
    muted: frozenset[int] = frozenset()
    context = _farthest_context_first(example)
    silent = [mention for mention in context if rows[mention] >= 0]
    loose: list[int] = []
    while True:
        tokens = _assemble(builder, around, plan, pieces, len(example.mentions))
        ends = [m for m in range(len(example.mentions)) if m not in loose]
        short = truncate(tokens, layout.max_length, ends)
        if short is not None:
            return short, plan
        if silent:
            muted |= {silent.pop(0)}
            builder.unslotted += 1
            plan = _plan(example, rows, layout, muted)
        elif context:
            loose.append(context.pop(0))
        else:
            raise KbenchError(
                f"example {example.id}: its markers, slots, mention ends and blank alone take more "
                f"than {layout.max_length} tokens; raise max_length"
            )


def _farthest_context_first(example: Example) -> list[int]:
    anchors = [m.start for m in example.mentions if m.role != Role.CONTEXT]
    anchors += [example.blank] if example.blank is not None else []
    anchors = anchors or [0]
    context = [m for m, mention in enumerate(example.mentions) if mention.role == Role.CONTEXT]
    context.sort(key=lambda m: -min(abs(example.mentions[m].start - a) for a in anchors))
    return context


class _Builder:
    """Collects examples into the flat arrays of :class:`Inputs`."""

    def __init__(self, placeholder: int, mask: int | None) -> None:
        self.placeholder = placeholder
        self.unslotted = 0
        self.shortened = 0
        self._mask = mask
        self._tokens: list[Tokens] = []
        self._slot_rows: list[int] = []
        self._span_rows: list[int] = []

    def mask(self) -> int:
        if self._mask is None:
            raise KbenchError("the tokenizer has no mask token, which a blank needs")
        return self._mask

    def add(self, tokens: Tokens, rows: Sequence[int], plan: list[_Piece]) -> None:
        self._tokens.append(tokens)
        self._slot_rows += [rows[piece.mention] for piece in plan if piece.kind == Kind.SLOT]
        self._span_rows += rows

    def done(self, pad: int) -> Inputs:
        many = self._tokens
        return Inputs(
            ids=_flat([t.ids for t in many], np.int64),
            kinds=_flat([t.kinds for t in many], np.uint8),
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
        )


def _flat(arrays: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate(arrays).astype(dtype) if arrays else np.empty(0, dtype=dtype)


def _bounds(counts: list[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
