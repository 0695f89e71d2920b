"""Examples to token arrays: markers, entity slots and mentions as explicit positions.

**The written text** is the text with all that the task adds, with and without knowledge: markers
as words beside the mentions they mark, and the tokenizer's mask token at the blank. It is
tokenized whole (one batched call for all texts), so that its tokens are those that the tokenizer
writes; a mention alone, with nothing inserted at it, changes none of them. Mentions are found by
the characters that tokens stand for. What a method inserts goes between two of these tokens:
before the one that holds the first character of the mention, or after the one that holds its
last. So an input with knowledge differs from that without in what is inserted alone, and nothing
is ever added to a tokenizer.

All examples live in flat arrays with bounds ("ragged"); a batch is a few gathers, with no loop
over tokens.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from kbench.data import Example, Role
from kbench.encoding.chat import around_message
from kbench.encoding.inputs import Builder, Inputs, TokenKind, Tokens
from kbench.encoding.passages import Passage, Passages
from kbench.encoding.tokens import (
    Affixes,
    PlacedTokens,
    affixes,
    inner_tokens,
    is_known,
    known_words,
    name_of,
    placed_tokens,
)
from kbench.encoding.truncation import kept, truncate
from kbench.encoding.written import Written, written
from kbench.errors import InputError, Unsupported

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Layout", "encode", "known_markers"]

_SLOT = "{slot}"
_MENTION = "{mention}"


@dataclass(frozen=True)
class Layout:
    """How an input is laid out.

    Attributes:
        markers: words set around mentions of a role.
        slot: template of a linked mention such as ``{slot} / {mention}``; ``{slot}`` alone stands
            in the place of the mention; None for no slot.
        max_length: tokens at most, specials included.
        truncate: shorten what is longer; if False it is left whole (a corpus drops it instead).
        room: tokens at most together with passages.
        left_to_right: whether the text is one to go on with: an example with a blank ends there,
            its answer is what comes after the last token, and passages stand before the text.
        chat: whether such a text is put as a message, by the tokenizer's chat template.
        slots: input vectors of an entity, and so tokens that ``{slot}`` stands for, one after
            another.
    """

    markers: Mapping[Role, str]
    slot: str | None = None
    max_length: int = 128
    truncate: bool = True
    room: int = 0
    left_to_right: bool = False
    chat: bool = False
    slots: int = 1

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
            raise InputError(
                f"slot template {self.slot!r}: expected {_SLOT} once and {_MENTION} at most once; "
                "several slots of an entity are said by their number, `slots`"
            )
        if self.slots < 1:
            raise InputError(f"an entity has {self.slots} slots; expected 1 at least")
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
        InputError: what may not be cut (markers, slots, the ends of mentions that are marked or
            have a slot, the blank) is longer than the layout allows; or the tokenizer does not
            know a marker, cannot tell two of them apart, or has no mask token for a blank.
        Unsupported: it does not know a word of the slot template.
    """
    words = _words(tokenizer, layout)
    texts = [_written(example, layout, words) for example in examples]
    placed = placed_tokens(tokenizer, [t.text for t in texts], [t.blank for t in texts])
    first = words.around.before if layout.left_to_right else None
    bring = Passages(tokenizer, passages, first) if passages else None
    builder = Builder(layout.slots)
    for number, (example, row) in enumerate(zip(examples, rows, strict=True)):
        text = _Text(example, row, layout, words, texts[number], placed[number])
        tokens, slots = text.assembled()
        if layout.truncate and len(tokens.ids) > layout.max_length:
            tokens, slots, lost = _fit(text)
            builder.shortened += 1
            builder.unslotted += lost
        if bring:
            tokens = bring.add(tokens, passages[number], layout.room)
        builder.add(tokens, row, [row[m] for m in slots for _ in range(layout.slots)])
    if bring:
        builder.cut = bring.cut
    unknown = tokenizer.unk_token_id
    return builder.done(tokenizer.pad_token_id or 0, -1 if unknown is None else unknown)


def _written(example: Example, layout: Layout, words: _Words) -> Written:
    if layout.left_to_right and example.blank is not None:
        # The answer comes after all that is written.
        cut = replace(example, text=example.text[: example.blank].rstrip(), blank=None)
        return written(cut, layout.markers, None)
    return written(example, layout.markers, words.mask)


@dataclass(frozen=True)
class _Words:
    """What goes around and between the tokens of a text.

    Attributes:
        template: token ids of each word of the slot template.
        around: special tokens.
        placeholder: token id at a slot.
        mask: the mask token as it is written, if there is one.
        start: token id that begins a text, else that ends one; None if there is neither.
    """

    template: Mapping[str, list[int]]
    around: Affixes
    placeholder: int
    mask: str | None
    start: int | None


def _words(tokenizer: PreTrainedTokenizerFast, layout: Layout) -> _Words:
    _check_markers(tokenizer, layout.markers)
    literals = [piece for side in layout.around for piece in side if piece != _SLOT]
    for literal in literals:
        if not is_known(tokenizer, literal):
            raise Unsupported(
                f"the slot template {layout.slot!r} holds {literal!r}, which the backbone's "
                f"tokenizer ({name_of(tokenizer)}) does not know; use another backbone"
            )
    template = dict(zip(literals, inner_tokens(tokenizer, literals), strict=True))
    mask = tokenizer.mask_token
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return _Words(
        template,
        around_message(tokenizer) if layout.chat else affixes(tokenizer),
        _placeholder(tokenizer),
        None if mask is None else str(mask),
        start,
    )


_PAIR = {Role.HEAD, Role.TAIL}
_SIGNS = "#$*&%^~@|+=/<>[]{}_:;!?-\"'(),."
"""What may mark a mention where a vocabulary lacks the usual sign, what is rare in texts first."""


def known_markers(
    tokenizer: PreTrainedTokenizerFast, markers: Mapping[Role, str]
) -> dict[Role, str]:
    """Returns markers that a tokenizer knows and tells apart, for the same roles.

    Those given stay where it knows them. For another it is the first sign of
    ``# $ * & % ^ ~ @ | + = / < > [ ] { } _ : ; ! ? - " ' ( ) , .`` that it knows and that marks no
    other role; where it knows none, the marker stays as it is, and :func:`encode` refuses it.

    Args:
        tokenizer: of the backbone.
        markers: word set around mentions of a role.
    """
    known = known_words(tokenizer, dict.fromkeys([*markers.values(), *_SIGNS]))
    free = [sign for sign in known if sign in _SIGNS and sign not in markers.values()]
    return {
        role: marker if not marker or marker in known or not free else free.pop(0)
        for role, marker in markers.items()
    }


def _check_markers(tokenizer: PreTrainedTokenizerFast, markers: Mapping[Role, str]) -> None:
    """Refuses markers that would not be told from others, or from any unknown word."""
    if markers.get(Role.CONTEXT):
        raise InputError(
            "markers are for target, head and tail: a linker adds mentions of context, which a run "
            "without knowledge does not know"
        )
    said: dict[tuple[int, ...], Role] = {}
    for role, marker in markers.items():
        if not marker:
            continue
        tokens = tuple(inner_tokens(tokenizer, [marker])[0])
        other = said.setdefault(tokens, role)
        # Head and tail stand in one text; a target stands alone, whatever marks it.
        alike = other != role and (markers[other] != marker or {other, role} == _PAIR)
        if is_known(tokenizer, marker) and not alike:
            continue
        both = f"markers {markers[other]!r} of {other} and {marker!r} of {role} are one to"
        problem = both if alike else f"marker {marker!r} of {role} is unknown to"
        known = " ".join(known_words(tokenizer, _SIGNS)[:8]) or "none of the usual signs"
        raise InputError(
            f"{problem} the backbone's tokenizer ({name_of(tokenizer)}); expected markers that it "
            f"knows and tells apart: give others, such as {known} (`markers` in card.yaml of your "
            "own data), or use another backbone"
        )


def _placeholder(tokenizer: PreTrainedTokenizerFast) -> int:
    # Not the padding id: some models count positions by looking for it.
    for name in ("unk_token_id", "mask_token_id", "eos_token_id"):
        value = getattr(tokenizer, name, None)
        if value is not None:
            return int(value)
    return 0


@dataclass(frozen=True, slots=True)
class _Text:
    """An example with the tokens of its written text, to be assembled with what is inserted."""

    example: Example
    rows: Sequence[int]
    layout: Layout
    words: _Words
    written: Written
    placed: PlacedTokens

    def assembled(self, muted: frozenset[int] = frozenset()) -> tuple[Tokens, list[int]]:
        """Puts the tokens together; returns the mentions of the slots, in their order, too.

        Args:
            muted: mentions that get no slot.
        """
        before, after = self.words.around.before, self.words.around.after
        goes_on = self.layout.left_to_right and self.example.blank is not None
        if goes_on:
            before, after = before or self._start(), after if self.layout.chat else ()
        places = [self._within(span) for span in self.written.spans]
        slotted = [m for m in self.slotted() if m not in muted]
        ids, at = [*before], 0
        kinds: list[int] = [TokenKind.SPECIAL] * len(before)
        own, slots = self._kinds(), dict[int, int]()
        cuts, moved = list[int](), [len(before)]
        for upto, mention, piece in self._insertions(places, slotted):
            ids += self.placed.ids[at:upto]
            kinds += own[at:upto]
            at = upto
            if piece == _SLOT:
                slots[mention] = len(ids)
            new = self.words.template.get(piece, [self.words.placeholder] * self.layout.slots)
            ids += new
            kinds += [TokenKind.SLOT if piece == _SLOT else TokenKind.INSERTED] * len(new)
            cuts.append(upto)
            moved.append(moved[-1] + len(new))
        ids += [*self.placed.ids[at:], *after]
        # What stands right before the answer is what is near to it, not a mere end.
        last_kind = TokenKind.INSERTED if goes_on else TokenKind.SPECIAL
        kinds += [*own[at:], *[last_kind] * len(after)]

        def new_place(token: int) -> int:
            return token + moved[bisect_right(cuts, token)]

        # A mention of characters that yield no token has an empty span.
        spans = [(new_place(a), new_place(b - 1) + 1) if b > a else (0, 0) for a, b in places]
        blank = self.written.blank
        last = len(ids) - 1 if goes_on else -1
        several = range(self.layout.slots)
        tokens = Tokens(
            np.array(ids, dtype=np.int64),
            np.array(kinds, dtype=np.uint8),
            np.array([at + n for at in slots.values() for n in several], dtype=np.int64),
            np.array(spans, dtype=np.int64).reshape(-1, 2),
            new_place(bisect_right(self.placed.ends, blank)) if blank >= 0 else last,
        )
        return self._replaced(tokens, slots) if self.layout.replaces else tokens, [*slots]

    def _start(self) -> tuple[int, ...]:
        """What an answer comes after where nothing else stands before it.

        Raises:
            InputError: the tokenizer has nothing to begin a text with.
        """
        if self.placed.ids:
            return ()
        if self.words.start is None:
            raise InputError(
                f"example {self.example.id}: nothing stands before its answer, and the tokenizer "
                "has no token that begins or ends a text; expected a text, or a tokenizer with one"
            )
        return (self.words.start,)

    def slotted(self) -> list[int]:
        """Returns the mentions that are to have a slot."""
        if self.layout.slot is None:
            return []
        return [mention for mention, row in enumerate(self.rows) if row >= 0]

    def _within(self, span: tuple[int, int]) -> tuple[int, int]:
        return self.placed.within(self.written.text, *span)

    def _kinds(self) -> list[int]:
        """The kinds of the written text's own tokens."""
        kinds: list[int] = [TokenKind.TEXT] * len(self.placed.ids)
        for span in self.written.markers:
            first, last = self._within(span)
            kinds[first:last] = [TokenKind.INSERTED] * (last - first)
        if self.written.blank >= 0:
            kinds[bisect_right(self.placed.ends, self.written.blank)] = TokenKind.BLANK
        return kinds

    def _insertions(
        self, places: Sequence[tuple[int, int]], slotted: Sequence[int]
    ) -> list[tuple[int, int, str]]:
        """What is inserted: before which token, at which mention, which piece; in their order."""
        if not slotted:
            return []
        text, spans, order = self.written.text, self.written.spans, self.written.order
        rank = {mention: number for number, mention in enumerate(order)}
        edges: list[tuple[int, int, int, int, int]] = []
        for m in slotted:
            (first, last), (start, end) = places[m], spans[m]
            name = text[start:end]
            start, end = end - len(name.lstrip()), start + len(name.rstrip())
            # Where one ends and another begins, the one ends first.
            edges.append((last, end, 0, -rank[m], m))
            edges.append((first, start, 1, rank[m], m))
        return [
            (upto, m, piece)
            for upto, _, opens, _, m in sorted(edges)
            for piece in self.layout.around[not opens]
        ]

    def _replaced(self, tokens: Tokens, slots: Mapping[int, int]) -> Tokens:
        """Takes the mentions out that a slot stands for."""
        keep = np.ones(len(tokens.ids), dtype=bool)
        spans = tokens.spans.copy()
        for mention in slots:
            keep[slice(*spans[mention])] = False
        keep |= tokens.kinds != TokenKind.TEXT
        for mention, slot in slots.items():
            spans[mention] = slot, slot + self.layout.slots
        return kept(replace(tokens, spans=spans), keep)


def _fit(text: _Text) -> tuple[Tokens, list[int], int]:
    """Truncates; where even the essentials are too many, context mentions give way.

    Farthest first they lose their slots, and with them their claim to a place: a context mention
    at which nothing is inserted has none, for a run without knowledge may not know it. The mentions
    that the task is about lose neither. Returns the mentions of the slots and the number of lost
    slots beside the tokens.
    """
    example, layout = text.example, text.layout
    claims = [m for m, mention in enumerate(example.mentions) if mention.role != Role.CONTEXT]
    slotted = text.slotted()
    silent = [m for m in _farthest_context_first(example) if m in slotted]
    for lost in range(len(silent) + 1):
        tokens, slots = text.assembled(frozenset(silent[:lost]))
        short = truncate(tokens, layout.max_length, [*claims, *silent[lost:]])
        if short is not None:
            return short, slots, lost
    raise InputError(
        f"example {example.id}: its markers, slots, mention ends and blank alone take more than "
        f"{layout.max_length} tokens; raise max_length"
    )


def _farthest_context_first(example: Example) -> list[int]:
    anchors = [m.start for m in example.mentions if m.role != Role.CONTEXT]
    anchors += [example.blank] if example.blank is not None else []
    anchors = anchors or [0]
    context = [m for m, mention in enumerate(example.mentions) if mention.role == Role.CONTEXT]
    context.sort(key=lambda m: -min(abs(example.mentions[m].start - a) for a in anchors))
    return context
