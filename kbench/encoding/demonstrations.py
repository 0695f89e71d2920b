"""Demonstrations: examples with their answers that stand before every text to go on with.

Each is encoded like the text itself, with its slots, its mentions and its passages, and once for
all. Between them, and before the text, stands a blank line, where the tokenizer has one. Where
the window is too small for all, the first ones go: never anything of the text, nor its passages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kbench.encoding.inputs import Builder, Inputs, TokenKind, Tokens
from kbench.encoding.tokens import affixes, bare_tokens
from kbench.errors import Unsupported

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Demonstrations", "separator"]

_SEPARATORS = ("\n\n", "\n", ".")
"""What may stand between two texts: a blank line, a new one, else the end of a sentence."""


def separator(tokenizer: PreTrainedTokenizerFast) -> tuple[str, list[int]]:
    """Returns what stands between demonstrations, and its tokens.

    It is a blank line where the tokenizer keeps it, else a new line, else a full stop: WordPiece
    drops all blanks.
    """
    pieces = bare_tokens(tokenizer, _SEPARATORS)
    for text, ids in zip(_SEPARATORS, pieces, strict=True):
        if ids and tokenizer.unk_token_id not in ids:
            return text, ids
    return "", []


class Demonstrations:
    """What is shown before texts.

    Args:
        tokenizer: of the model.
        shown: the demonstrations with their answers, encoded as texts to go on with.

    Attributes:
        dropped: demonstrations that had no room, over all texts that they were put before.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, shown: Inputs) -> None:
        self.dropped = 0
        self._shown = shown
        self._begins = affixes(tokenizer).before
        self._between = separator(tokenizer)[1]
        self._known: dict[tuple[int, ...], tuple[Tokens, list[int], list[int]]] = {}

    def before(
        self, inputs: Inputs, room: int, of: Sequence[Sequence[int]] | None = None
    ) -> Inputs:
        """Returns texts with their demonstrations.

        Args:
            inputs: texts to go on with; the blank of each is its last token.
            room: tokens at most.
            of: the demonstrations of each text, by their numbers; None for all, in their order.

        Raises:
            Unsupported: passages hang at mentions.
        """
        if inputs.branches is not None or self._shown.branches is not None:
            raise Unsupported("passages that hang at a mention have no place beside demonstrations")
        everything = tuple(range(len(self._shown)))
        builder = Builder(inputs.slots_each)
        groups: dict[tuple[tuple[int, ...], int], int] = {}
        beginnings = []
        for number in range(len(inputs)):
            wanted = everything if of is None else tuple(of[number])
            text, spans, slots = _example(inputs, number)
            kept = wanted
            while kept and len(self._joined(kept)[0].ids) + len(text.ids) > room:
                kept = kept[1:]
            self.dropped += len(wanted) - len(kept)
            before, span_rows, slot_rows = self._joined(kept)
            begun = tuple(text.ids[: len(self._begins)].tolist()) == self._begins
            at = len(self._begins) if begun else 0
            # A token of the text is left to be read after it.
            shared = len(before.ids) + min(at, len(text.ids) - 1)
            beginnings.append((shared, groups.setdefault((kept, shared), len(groups))))
            builder.add(_inserted(text, before, at), [*span_rows, *spans], [*slot_rows, *slots])
        builder.shortened, builder.unslotted = inputs.shortened, inputs.unslotted
        done = builder.done(inputs.pad, inputs.unknown)
        return replace(done, beginnings=np.array(beginnings, dtype=np.int64).reshape(-1, 2))

    def _joined(self, chosen: tuple[int, ...]) -> tuple[Tokens, list[int], list[int]]:
        """Demonstrations one behind the other, and the rows of their mentions and slots."""
        if chosen not in self._known:
            whole, span_rows, slot_rows = _NOTHING, list[int](), list[int]()
            for number in chosen:
                text, spans, slots = _example(self._shown, number)
                whole = _inserted(self._bare(text), whole, 0)
                span_rows += spans
                slot_rows += slots
            self._known[chosen] = whole, span_rows, slot_rows
        return self._known[chosen]

    def _bare(self, text: Tokens) -> Tokens:
        """A demonstration without what begins a text, and with what stands behind it."""
        begun = tuple(text.ids[: len(self._begins)].tolist()) == self._begins
        cut = len(self._begins) if begun else 0
        spans = text.spans - cut
        spans[text.spans[:, 1] == 0] = 0
        between = np.full(len(self._between), TokenKind.INSERTED, dtype=np.uint8)
        return replace(
            text,
            ids=np.concatenate([text.ids[cut:], np.array(self._between, dtype=np.int64)]),
            kinds=np.concatenate([text.kinds[cut:], between]),
            slots=text.slots - cut,
            spans=spans,
        )


_NOTHING = Tokens(
    ids=np.empty(0, dtype=np.int64),
    kinds=np.empty(0, dtype=np.uint8),
    slots=np.empty(0, dtype=np.int64),
    spans=np.empty((0, 2), dtype=np.int64),
    blank=-1,
)


def _example(inputs: Inputs, number: int) -> tuple[Tokens, list[int], list[int]]:
    """One of encoded texts, and the rows of its mentions and slots."""
    own = slice(*inputs.bounds[number : number + 2])
    slots = slice(*inputs.slot_bounds[number : number + 2])
    spans = slice(*inputs.span_bounds[number : number + 2])
    tokens = Tokens(
        inputs.ids[own],
        inputs.kinds[own],
        inputs.slots[slots],
        inputs.spans[spans],
        int(inputs.blanks[number]),
    )
    return tokens, inputs.span_rows[spans].tolist(), inputs.slot_rows[slots].tolist()


def _inserted(text: Tokens, before: Tokens, at: int) -> Tokens:
    """A text with other tokens at a place before all that it holds."""
    size = len(before.ids)
    spans = text.spans + size
    spans[text.spans[:, 1] == 0] = 0
    earlier = before.spans + at
    earlier[before.spans[:, 1] == 0] = 0
    return Tokens(
        np.concatenate([text.ids[:at], before.ids, text.ids[at:]]),
        np.concatenate([text.kinds[:at], before.kinds, text.kinds[at:]]),
        np.concatenate([before.slots + at, text.slots + size]),
        np.concatenate([earlier, spans]),
        text.blank + size if text.blank >= 0 else -1,
    )
