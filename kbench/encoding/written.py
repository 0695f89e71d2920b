"""The written text of an example: what a task has its model read, with and without knowledge.

Markers are words of it, with a blank on either side, and the tokenizer's mask token stands at the
blank that is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kbench.data import Example, Role
from kbench.errors import KbenchError

__all__ = ["Written", "written"]

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Written:
    """The text of an example with all that the task adds, and where its parts are in it.

    Attributes:
        text: as it is tokenized.
        spans: first character of each mention and the one after its last: all that stands
            between its markers, those of a mention within it among it.
        markers: of each marker, likewise.
        blank: first character of the mask token; -1 for none.
        order: the mentions by where they open, the outer of two first.
    """

    text: str
    spans: list[tuple[int, int]]
    markers: list[tuple[int, int]]
    blank: int
    order: list[int]


def written(example: Example, markers: Mapping[Role, str], mask: str | None) -> Written:
    """Writes markers and the mask token into a text.

    Args:
        example: whose text it is.
        markers: word set around mentions of a role; empty for none.
        mask: the tokenizer's mask token, if it has one.

    Raises:
        KbenchError: the example has a blank, and there is no mask token.
    """
    mentions = example.mentions
    # At one offset: inner mentions close first, then the blank, then outer mentions open first.
    order = sorted(range(len(mentions)), key=lambda m: (mentions[m].start, -mentions[m].end))
    text = _SURROGATE.sub("\ufffd", example.text)
    words = [markers.get(mention.role, "") for mention in mentions]
    if any(words) or example.blank is not None:
        if example.blank is not None and mask is None:
            raise KbenchError("the tokenizer has no mask token, which a blank needs")
        return _put_together(_Writer(text), example, order, words, mask or "")
    return Written(text, [(m.start, m.end) for m in mentions], [], -1, order)


def _put_together(
    writer: _Writer, example: Example, order: list[int], words: list[str], mask: str
) -> Written:
    mentions, blank = example.mentions, -1
    starts, ends = [0] * len(mentions), [0] * len(mentions)
    edges = {at for mention in mentions for at in (mention.start, mention.end)}
    for at in sorted(edges if example.blank is None else {*edges, example.blank}):
        writer.text_to(at)
        for m in reversed(order):
            if mentions[m].end == at:
                ends[m] = writer.length
                writer.word(words[m])
        if example.blank == at:
            blank = writer.mask(mask)
        for m in order:
            if mentions[m].start == at:
                writer.word(words[m])
                starts[m] = writer.length
    writer.text_to(len(example.text))
    spans = list(zip(starts, ends, strict=True))
    return Written(writer.done(), spans, writer.words, blank, order)


class _Writer:
    """Puts a text together; markers are words of it, with a blank on either side."""

    def __init__(self, text: str) -> None:
        self.length = 0
        self.words: list[tuple[int, int]] = []
        self._text = text
        self._at = 0
        self._parts: list[str] = []
        self._apart = False

    def text_to(self, at: int) -> None:
        """Adds the characters up to an offset."""
        if at > self._at:
            self._add(self._text[self._at : at])
            self._at = at

    def word(self, word: str) -> None:
        """Adds a word, if it is one."""
        if not word:
            return
        self._apart = bool(self._parts) and not self._parts[-1][-1].isspace()
        self._add(word)
        self._apart = True
        self.words.append((self.length - len(word), self.length))

    def mask(self, mask: str) -> int:
        """Adds the mask token; returns its first character."""
        self._add(mask)
        return self.length - len(mask)

    def done(self) -> str:
        """Returns all that was written."""
        return "".join(self._parts)

    def _add(self, text: str) -> None:
        if self._apart and not text[0].isspace():
            self._parts.append(" ")
            self.length += 1
        self._apart = False
        self._parts.append(text)
        self.length += len(text)
