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
from typing import TYPE_CHECKING

import numpy as np

from kbench.data import Example, Role
from kbench.encoding.inputs import Builder, Inputs, TokenKind, Tokens
from kbench.encoding.passages import Passage, Passages
from kbench.encoding.tokens import Affixes, affixes, bare_tokens
from kbench.encoding.truncation import truncate
from kbench.errors import InputError, KbenchError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Layout", "encode"]

_SLOT = "{slot}"
_MENTION = "{mention}"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Layout:
    """How an input is laid out.

    Attributes:
        markers: text set around mentions of a role.
        slot: template of a linked mention such as ``{slot} / {mention}``; ``{slot}`` alone stands
            in the place of the mention; None for no slot.
        max_length: tokens at most, specials included.
        truncate: shorten what is longer; if False it is left whole (a corpus drops it instead).
        room: tokens at most together with passages.
    """

    markers: Mapping[Role, str]
    slot: str | None = None
    max_length: int = 128
    truncate: bool = True
    room: int = 0

    @property
    def replaces(self) -> bool:
        """Whether a slot stands in the place of its mention."""
        return self.slot is not None and _MENTION not in self.slot

    @cached_property
    def around(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The template's pieces before and after the mention, ``{slot}`` standing for the slot."""
        if self.slot is None:
            return (), ()
        if self.slot.count(_SLOT) != 1 or self.slot.count(_MENTION) > 1:
            raise KbenchError(
                f"slot template {self.slot!r}: expected {_SLOT} once and {_MENTION} at most once"
            )
        before, _, after = self.slot.partition(_MENTION)
        return _pieces(before), _pieces(after)


def _pieces(template: str) -> tuple[str, ...]:
    return tuple(p for p in (part.strip() for part in re.split(r"(\{slot\})", template)) if p)


def encode(
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
    rows: Sequence[Sequence[int]],
    layout: Layout,
    passages: Sequence[Sequence[Passage]] = (),
) -> Inputs:
    """Encodes examples.

    Args:
        tokenizer: a fast tokenizer; it is not changed.
        examples: what to encode.
        rows: the knowledge-base row of each mention of each example, -1 where there is none;
            a slot is made for the others if the layout has a slot.
        layout: markers, slot template, lengths.
        passages: texts that come with each example, if any.

    Raises:
        InputError: what may not be cut (markers, slots, the ends of every mention, the blank)
            is longer than the layout allows.
    """
    plans = [_plan(e, r, layout) for e, r in zip(examples, rows, strict=True)]
    words = _Words(
        _tokenize(tokenizer, plans),
        affixes(tokenizer),
        _placeholder(tokenizer),
        tokenizer.mask_token_id,
    )
    bring = Passages(tokenizer, passages) if passages else None
    builder = Builder()
    for number, (example, row, plan) in enumerate(zip(examples, rows, plans, strict=True)):
        tokens = _assemble(words, plan, len(example.mentions))
        if layout.truncate and len(tokens.ids) > layout.max_length:
            tokens, plan, lost = _fit(words, example, row, plan, layout)
            builder.shortened += 1
            builder.unslotted += lost
        if bring:
            tokens = bring.add(tokens, passages[number], layout.room)
        slots = [row[piece.mention] for piece in plan if piece.kind == TokenKind.SLOT]
        builder.add(tokens, row, slots)
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
    # At one offset: inner mentions close first, then the blank, then outer mentions open first.
    opening = sorted(range(len(mentions)), key=lambda m: (mentions[m].start, -mentions[m].end))
    closing = list(reversed(opening))
    replaced = {m for m, row in enumerate(rows) if layout.replaces and row >= 0 and m not in muted}
    plan: list[_Piece] = []
    edges = sorted(_edges(example))
    for at, end in zip(edges, [*edges[1:], None], strict=True):
        for m in closing:
            if mentions[m].end == at:
                plan += _insert(m, mentions[m].role, rows[m], layout, muted, after=True)
        if example.blank == at:
            plan.append(_Piece(TokenKind.BLANK))
        for m in opening:
            if mentions[m].start == at:
                plan += _insert(m, mentions[m].role, rows[m], layout, muted, after=False)
        if end is not None and end > at:
            inside = tuple(
                m for m, span in enumerate(mentions) if span.start <= at and end <= span.end
            )
            if replaced.isdisjoint(inside):
                text = _SURROGATE.sub("\ufffd", example.text[at:end])
                plan.append(_Piece(TokenKind.TEXT, text, inside=inside))
    return list(_blanks_lead(plan))


def _edges(example: Example) -> set[int]:
    """Returns the offsets at which the text is cut."""
    blank = set() if example.blank is None else {example.blank}
    ends = {at for mention in example.mentions for at in (mention.start, mention.end)}
    return {0, len(example.text)} | ends | blank


def _blanks_lead(plan: list[_Piece]) -> Iterator[_Piece]:
    """Moves blanks at the end of a text piece to the start of the next.

    Byte-level and SentencePiece tokenizers read a blank as part of the word after it; at the end
    of a piece it would be a token of its own. ``[MASK]`` takes the blank before it into itself.
    """
    blanks = ""
    last = max((at for at, piece in enumerate(plan) if piece.kind == TokenKind.TEXT), default=-1)
    for at, piece in enumerate(plan):
        if piece.kind == TokenKind.TEXT:
            text = blanks + piece.text
            kept = text if at == last else text.rstrip()
            blanks = text[len(kept) :]
            if kept:
                yield replace(piece, text=kept)
        else:
            blanks = "" if piece.kind == TokenKind.BLANK else blanks
            yield piece


def _insert(
    mention: int, role: Role, row: int, layout: Layout, muted: frozenset[int], *, after: bool
) -> list[_Piece]:
    pieces: list[_Piece] = []
    if row >= 0 and mention not in muted:
        for piece in layout.around[after]:
            if piece == _SLOT:
                # A slot in the place of its mention is what is left of it.
                inside = (mention,) if layout.replaces else ()
                pieces.append(_Piece(TokenKind.SLOT, mention=mention, inside=inside))
            else:
                pieces.append(_Piece(TokenKind.INSERTED, f" {piece}", mention))
    marker = layout.markers.get(role)
    if marker:
        edge = _Piece(TokenKind.INSERTED, f" {marker}", mention)
        return [*pieces, edge] if after else [edge, *pieces]
    return pieces


def _tokenize(
    tokenizer: PreTrainedTokenizerFast, plans: Iterable[list[_Piece]]
) -> dict[str, list[int]]:
    texts = list(dict.fromkeys(piece.text for plan in plans for piece in plan if piece.text))
    return dict(zip(texts, bare_tokens(tokenizer, texts), strict=True))


@dataclass(frozen=True)
class _Words:
    """Token ids of everything that a plan may hold."""

    pieces: Mapping[str, list[int]]
    around: Affixes
    placeholder: int
    mask: int | None

    def of(self, piece: _Piece) -> list[int]:
        if piece.kind == TokenKind.SLOT:
            return [self.placeholder]
        if piece.kind == TokenKind.BLANK:
            if self.mask is None:
                raise KbenchError("the tokenizer has no mask token, which a blank needs")
            return [self.mask]
        return self.pieces[piece.text]


def _placeholder(tokenizer: PreTrainedTokenizerFast) -> int:
    # Not the padding id: some models count positions by looking for it.
    for name in ("unk_token_id", "mask_token_id", "eos_token_id"):
        value = getattr(tokenizer, name, None)
        if value is not None:
            return int(value)
    return 0


def _assemble(words: _Words, plan: list[_Piece], mentions: int) -> Tokens:
    ids: list[int] = list(words.around.before)
    kinds: list[int] = [TokenKind.SPECIAL] * len(ids)
    slots: list[int] = []
    blank = -1
    spans = [[-1, -1] for _ in range(mentions)]
    for piece in plan:
        new = words.of(piece)
        if piece.kind == TokenKind.SLOT:
            slots.append(len(ids))
        elif piece.kind == TokenKind.BLANK:
            blank = len(ids)
        for m in piece.inside if new else ():
            spans[m][0] = len(ids) if spans[m][0] < 0 else spans[m][0]
            spans[m][1] = len(ids) + len(new)
        ids += new
        kinds += [piece.kind] * len(new)
    ids += words.around.after
    kinds += [TokenKind.SPECIAL] * len(words.around.after)
    return Tokens(
        np.array(ids, dtype=np.int64),
        np.array(kinds, dtype=np.uint8),
        np.array(slots, dtype=np.int64),
        # A mention of characters that yield no token has an empty span.
        np.maximum(np.array(spans, dtype=np.int64).reshape(-1, 2), 0),
        blank,
    )


def _fit(
    words: _Words, example: Example, rows: Sequence[int], plan: list[_Piece], layout: Layout
) -> tuple[Tokens, list[_Piece], int]:
    """Truncates; where even the essentials are too many, context mentions give way.

    Farthest first they lose their slots, and then their claim to a place. The mentions that the
    task is about lose neither. Returns the number of lost slots beside tokens and plan.
    """
    muted: frozenset[int] = frozenset()
    context = _farthest_context_first(example)
    silent = [mention for mention in context if rows[mention] >= 0]
    loose: list[int] = []
    while True:
        tokens = _assemble(words, plan, len(example.mentions))
        ends = [m for m in range(len(example.mentions)) if m not in loose]
        short = truncate(tokens, layout.max_length, ends)
        if short is not None:
            return short, plan, len(muted)
        if silent:
            muted |= {silent.pop(0)}
            plan = _plan(example, rows, layout, muted)
        elif context:
            loose.append(context.pop(0))
        else:
            raise InputError(
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
