"""Texts that entities bring into an input: appended to it, before it, or hung at their mention.

The input itself is never cut for them: they share what room is left. Those that are appended are
one text, as the tokenizer writes a second one: the first begins it, the others go on after a
blank. So are those that stand before it, in a line of their own. What hangs at a mention goes on
after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kbench.data.sentences import sentence_ends
from kbench.encoding.inputs import Branches, TokenKind, Tokens
from kbench.encoding.tokens import affixes, bare_tokens, pair_affixes, placed_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Passage", "Passages", "shares"]


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that an entity brings into an input.

    Attributes:
        text: what is written.
        mention: number of the mention that alone sees it (K-BERT's branch); -1 for a passage
            that is appended to the input for all to see.
    """

    text: str
    mention: int = -1


class Passages:
    """Adds passages to encoded examples.

    Args:
        tokenizer: a fast tokenizer.
        brought: the passages of all examples, so that each text is tokenized once.
        after: the tokens that inputs begin with, where passages stand right after these and the
            input goes on from there; None where they are appended.

    Attributes:
        cut: inputs so far whose passages, standing before them, lost a part for want of room.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        brought: Sequence[Sequence[Passage]],
        after: Sequence[int] | None = None,
    ) -> None:
        self.cut = 0
        begins, goes_on = dict[str, None](), dict[str, None]()
        for several in brought:
            for number, passage in enumerate(several):
                first = number == 0 and passage.mention < 0
                (begins if first else goes_on)[passage.text] = None
        self._begins = _sentences(tokenizer, [*begins], inner=False)
        self._goes_on = _sentences(tokenizer, [*goes_on], inner=True)
        self._after = affixes(tokenizer).after
        self._first = () if after is None else tuple(after)
        self._line = None if after is None else bare_tokens(tokenizer, ["\n"])[0]
        self._pair = pair_affixes(tokenizer) if after is None else None

    def add(self, tokens: Tokens, brought: Sequence[Passage], room: int) -> Tokens:
        """Returns an example with its passages.

        Args:
            tokens: the example, encoded.
            brought: its passages, all appended or all at mentions.
            room: tokens at most, all told.
        """
        appended = [p for p in brought if p.mention < 0]
        hung = [p for p in brought if p.mention >= 0 and tokens.spans[p.mention][1]]
        if appended and self._line is not None:
            return self._prepend(tokens, appended, room, self._line)
        if appended:
            return self._append(tokens, appended, room)
        return self._hang(tokens, hung, room) if hung else tokens

    def _prepend(
        self, tokens: Tokens, brought: Sequence[Passage], room: int, line: Sequence[int]
    ) -> Tokens:
        texts = self._texts(brought)
        pieces = _fitted(texts, room - len(tokens.ids) - len(line))
        self.cut += sum(map(len, pieces)) < sum(len(part) for text in texts for part in text)
        if not any(pieces):
            return tokens
        text = [*(token for piece in pieces for token in piece), *line]
        begun = tuple(tokens.ids[: len(self._first)]) == self._first
        at = len(self._first) if begun else 0
        spans = tokens.spans + len(text)
        spans[tokens.spans[:, 1] == 0] = 0
        return replace(
            tokens,
            ids=_joined(tokens.ids[:at], text, tokens.ids[at:]),
            kinds=_joined(
                tokens.kinds[:at], [TokenKind.PASSAGE] * len(text), tokens.kinds[at:]
            ).astype(np.uint8),
            slots=tokens.slots + len(text),
            spans=spans,
            blank=tokens.blank + len(text) if tokens.blank >= 0 else -1,
        )

    def _texts(self, brought: Sequence[Passage]) -> list[list[Sequence[int]]]:
        return [(self._goes_on if at else self._begins)[p.text] for at, p in enumerate(brought)]

    def _append(self, tokens: Tokens, brought: Sequence[Passage], room: int) -> Tokens:
        assert self._pair is not None
        body = len(tokens.ids) - len(self._after)
        left = room - body - len(self._pair.between) - len(self._pair.after)
        pieces = _fitted(self._texts(brought), left)
        if not any(pieces):
            return tokens
        text = [token for piece in pieces for token in piece]
        return replace(
            tokens,
            ids=_joined(tokens.ids[:body], self._pair.between, text, self._pair.after),
            kinds=_joined(
                tokens.kinds[:body],
                [TokenKind.SPECIAL] * len(self._pair.between),
                # The closing separator belongs to the second segment.
                [TokenKind.PASSAGE] * (len(text) + len(self._pair.after)),
            ).astype(np.uint8),
        )

    def _hang(self, tokens: Tokens, brought: Sequence[Passage], room: int) -> Tokens:
        pieces = _fitted([self._goes_on[p.text] for p in brought], room - len(tokens.ids))
        length = len(tokens.ids)
        positions, numbers = [np.arange(length)], [np.zeros(length, dtype=np.int32)]
        anchors = [np.zeros((length, 2), dtype=np.int32)]
        for number, (passage, piece) in enumerate(zip(brought, pieces, strict=True), 1):
            start, end = tokens.spans[passage.mention]
            positions.append(np.arange(end, end + len(piece)))
            numbers.append(np.full(len(piece), number, dtype=np.int32))
            anchors.append(np.tile(np.array([start, end], dtype=np.int32), (len(piece), 1)))
        text = [token for piece in pieces for token in piece]
        return replace(
            tokens,
            ids=_joined(tokens.ids, text),
            kinds=_joined(tokens.kinds, [TokenKind.PASSAGE] * len(text)).astype(np.uint8),
            branches=Branches(
                np.concatenate(positions), np.concatenate(numbers), np.concatenate(anchors)
            ),
        )


def _sentences(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, inner: bool
) -> dict[str, list[Sequence[int]]]:
    """The tokens of each text, sentence by sentence: the text is tokenized whole."""
    found = {}
    for text, tokens in zip(texts, placed_tokens(tokenizer, texts, inner=inner), strict=True):
        ends = (tokens.within(text, at, len(text))[0] for at in sentence_ends(text))
        cuts = [0, *ends, len(tokens.ids)]
        found[text] = [tokens.ids[a:b] for a, b in pairwise(cuts) if b > a]
    return found


def _fitted(texts: Sequence[Sequence[Sequence[int]]], room: int) -> list[list[int]]:
    """Cuts passages to their shares of the room."""
    wanted = [sum(map(len, sentences)) for sentences in texts]
    return [_cut(s, share) for s, share in zip(texts, shares(wanted, room), strict=True)]


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """Shares room equally; what one does not need goes to the others.

    ``shares([2, 9, 9], 12)`` is ``[2, 5, 5]``.
    """
    given = [0] * len(wanted)
    left = max(0, room)
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    for done, at in enumerate(order):
        given[at] = min(wanted[at], left // (len(order) - done))
        left -= given[at]
    return given


def _cut(sentences: Sequence[Sequence[int]], share: int) -> list[int]:
    """Keeps whole sentences from the first on; of a first one that is too long, its beginning."""
    kept: list[int] = []
    for sentence in sentences:
        if len(kept) + len(sentence) > share:
            break
        kept += sentence
    return kept or [token for sentence in sentences[:1] for token in sentence[:share]]


def _joined(*parts: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
