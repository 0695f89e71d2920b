"""What relation tasks share whose records are lists of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from kbench.data import Example, Mention, Role
from kbench.data.records import Record

__all__ = ["Marked", "deal", "mark"]

Marked = tuple[Role, str | None, int, int]
"""A mention of a token list: its role, its entity, its first token and its last."""


def mark(
    record: Record, tokens: Sequence[str], marked: Iterable[Marked]
) -> tuple[str, tuple[Mention, ...]]:
    """Joins tokens by single blanks and finds the mentions in the text.

    Raises:
        DataError: a mention names tokens that there are not, or has no character.
    """
    starts = list(accumulate((len(token) + 1 for token in tokens), initial=0))
    text = " ".join(tokens)
    mentions = []
    for role, entity, first, last in marked:
        if not 0 <= first <= last < len(tokens):
            raise record.error(f"the {role} is tokens {first} to {last} of {len(tokens)}")
        start, end = starts[first], starts[last] + len(tokens[last])
        record.span(f"the {role}", start, end, text)
        mentions.append(Mention(start, end, entity, role))
    return text, tuple(mentions)


def deal(examples: Sequence[Example], seed: int, tenths: Sequence[int]) -> list[list[Example]]:
    """Shuffles examples and deals each part its tenths of them; what is left over goes first.

    By digests of their ids, not by ``random.shuffle``: the same parts in every version of Python.
    """
    order = sorted(
        examples, key=lambda example: hashlib.sha256(f"{seed}/{example.id}".encode()).digest()
    )
    ends = [-(-len(order) * tenth // 10) for tenth in accumulate(tenths, initial=0)]
    return [order[start:end] for start, end in pairwise(ends)]
