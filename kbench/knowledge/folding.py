"""Texts without what makes no other name: form of the characters, case, blanks, marks.

One name is typed in many ways: é as one character or as two, a no-break blank, an apostrophe or a
right quotation mark, full-width letters. Two names are the same if their folded texts are. In a
folded text characters are in normal form (NFKC) and in lower case, a run of blanks is one blank,
apostrophes, quotation marks and hyphens are those of ASCII, and what is no sign of its own is gone
(soft hyphens, joiners, marks of direction, the Arabic stroke that widens a word). Accents stay:
Zürich is not Zurich.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Folded", "folded", "is_mark"]

_UNSEEN = (
    "\u00ad\u034f\u061c\u0640\ufeff"
    + "".join(map(chr, (*range(0x180B, 0x180F), *range(0x200B, 0x2010), *range(0x202A, 0x202F))))
    + "".join(map(chr, (*range(0x2060, 0x2070), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bb\u02bc\u02b9\u2032\u00b4`\uff07", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\uff02", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d", "-"),
        **dict.fromkeys(_UNSEEN),
    }
)
_BLANKS = re.compile(r"\s+")
_CONTINUES = re.compile(
    "[\u0e33\u0eb3\u1160-\u11ff\u314f-\u3163\uff9e\uff9f\uffa0\uffc2-\uffdc\ud7b0-\ud7fb]"
)
"""What is no mark by its category and is written with, or joined to, what stands before it."""
_PARTS = re.compile(r"[!-~]+|\s+|.", re.DOTALL)


def folded(text: str) -> str:
    """Returns a text as it is compared with others where both are names."""
    if text.isascii():
        if "`" in text:
            text = text.replace("`", "'")
        # Of ASCII only the blank is a blank that can be printed.
        blank = "  " in text or not text.isprintable()
        return (_BLANKS.sub(" ", text) if blank else text).lower()
    # There are blanks in normal forms, too: that of a lone cedilla is one with a mark.
    return _BLANKS.sub(" ", _normal(text.translate(_PLAIN)))


def _normal(text: str) -> str:
    lower = unicodedata.normalize("NFKC", text).casefold()
    # There are marks in normal forms: an apostrophe (ŉ), primes, the dash of upright text.
    return unicodedata.normalize("NFKC", lower).translate(_PLAIN)


@dataclass(frozen=True, slots=True)
class Folded:
    """A folded text, and where its characters stand in the text as it was.

    Attributes:
        text: the folded text, as :func:`folded` returns it.
        starts: of each of its characters, where what it was made of begins; None where nothing
            has moved.
        ends: likewise the end.
    """

    text: str
    starts: Sequence[int] | None = None
    ends: Sequence[int] | None = None

    @classmethod
    def of(cls, text: str) -> Folded:
        """Folds a text."""
        if (plain := _in_place(text)) is not None:
            return cls(plain)
        pieces: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        for start, end in _clusters(text):
            piece = _normal(text[start:end].translate(_PLAIN))
            if text[start].isspace():
                piece = " "
                if pieces and pieces[-1] == " " and text[starts[-1]].isspace():
                    ends[-1] = end  # nothing but what is not seen stood between them
                    continue
            elif piece.startswith(" ") and pieces and pieces[-1] == " ":
                piece = piece[1:]
            pieces.append(piece)
            if len(piece) == end - start and piece.isascii():
                starts += range(start, end)
                ends += range(start + 1, end + 1)
            else:
                starts += [start] * len(piece)
                ends += [end] * len(piece)
        return cls("".join(pieces), starts, ends)

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """Returns where a part of the folded text stands in the text as it was.

        None if the part begins or ends inside of what was one character.
        """
        if self.starts is None or self.ends is None:
            return start, end
        first, last = self.starts[start], self.ends[end - 1]
        inside = (start > 0 and self.starts[start - 1] == first) or (
            end < len(self.text) and self.ends[end] == last
        )
        return None if inside else (first, last)


def _in_place(text: str) -> str | None:
    """Returns the folded text if all its characters stand where they stood, else None."""
    plain = _BLANKS.sub(" ", text.translate(_PLAIN))
    if len(plain) == len(text) and unicodedata.is_normalized("NFKC", plain):
        lower = plain.casefold()
        if len(lower) == len(text) and unicodedata.is_normalized("NFKC", lower):
            return lower
    return None


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Yields runs of ASCII, runs of blanks, and single characters, each with its marks.

    No normal form joins characters of two of them, so that each may be folded alone.
    """
    start, end = 0, 0  # what is not yielded yet: its last character may get marks
    for part in _PARTS.finditer(text):
        first, last = part.span()
        if last - first == 1 and (sign := text[first]) > "~":
            if is_mark(sign) and not text[max(0, end - 1) : end].isspace():
                if end - start > 1 and text[end - 1] <= "~":
                    yield start, end - 1  # a run whose last character alone has the mark
                    start = end - 1
                end = last
                continue
            if sign in _UNSEEN:
                continue
        if end > start:
            yield start, end
        start, end = first, last
    if end > start:
        yield start, end


@lru_cache(maxsize=1 << 14)
def is_mark(sign: str) -> bool:
    """Whether a character is a part of the one before it: an accent, a vowel sign, a jamo."""
    return unicodedata.category(sign)[0] == "M" or bool(_CONTINUES.match(sign))
