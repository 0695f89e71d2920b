"""Texts that entities bring into an input: appended to it, or hung at their mention.

The input itself is never cut for them: they share what room is left.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kbench.encoding.inputs import Branches, TokenKind, Tokens
from kbench.encoding.tokens import affixes, bare_tokens, pair_affixes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Passage", "Passages", "shares"]

# A full stop after one or two letters is that of an initial or a title: "J. R.", "St.", "U.S.".
_SENTENCE_END = re.compile(r"(?<=[.!?;])(?<!\b\w\.)(?<!\b\w\w\.)\s+")


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
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, brought: Sequence[Sequence[Passage]]
    ) -> None:
        texts = {p.text: _SENTENCE_END.split(p.text) for several in brought for p in several}
        sentences = list(dict.fromkeys(s for several in texts.values() for s in several))
        tokens = bare_tokens(tokenizer, [f" {s}" for s in sentences])
        ids = dict(zip(sentences, tokens, strict=True))
        self._texts = {text: [ids[s] for s in several] for text, several in texts.items()}
        self._after = affixes(tokenizer).after
        self._pair = pair_affixes(tokenizer)

    def add(self, tokens: Tokens, brought: Sequence[Passage], room: int) -> Tokens:
        """Returns an example with its passages.

        Args:
            tokens: the example, encoded.
            brought: its passages, all appended or all at mentions.
            room: tokens at most, all told.
        """
        appended = [p for p in brought if p.mention < 0]
        hung = [p for p in brought if p.mention >= 0 and tokens.spans[p.mention][1]]
        if appended:
            return self._append(tokens, appended, room)
        return self._hang(tokens, hung, room) if hung else tokens

    def _append(self, tokens: Tokens, brought: Sequence[Passage], room: int) -> Tokens:
        body = len(tokens.ids) - len(self._after)
        left = room - body - len(self._pair.between) - len(self._pair.after)
        pieces = self._fitted(brought, left)
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
        pieces = self._fitted(brought, room - len(tokens.ids))
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

    def _fitted(self, brought: Sequence[Passage], room: int) -> list[list[int]]:
        """Cuts passages to their shares of the room."""
        texts = [self._texts[passage.text] for passage in brought]
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
    return kept or list(sentences[0][:share])


def _joined(*parts: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
