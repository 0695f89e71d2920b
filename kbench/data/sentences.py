"""Where the sentences of a text end."""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["sentence_ends", "sentences_of"]

# A full stop after one or two letters is that of an initial or a title: "J. R.", "St.", "U.S.".
# Scripts without blanks between words have none between sentences.
_SENTENCE_END = re.compile(
    r"(?<=[.!?;؟۔؛।॥።։།။។])(?<!\b\w\.)(?<!\b\w\w\.)\s+"
    r"|(?<=[。！？；｡])(?![。！？；｡」』”])\s*"
)


def sentences_of(text: str) -> list[str]:
    """Returns a text sentence by sentence, each with the blanks behind it; facts are sentences."""
    cuts = [0, *sentence_ends(text), len(text)]
    return [text[start:end] for start, end in pairwise(cuts)]


def sentence_ends(text: str) -> list[int]:
    """Returns where the sentences of a text but the last end, with the blanks behind them."""
    return [m.end() for m in _SENTENCE_END.finditer(text) if m.end() < len(text)]
