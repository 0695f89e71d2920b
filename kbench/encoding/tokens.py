"""Texts without special tokens, and the special tokens that a tokenizer puts around them.

The latter are found by looking at what it does.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from kbench.errors import KbenchError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Affixes", "PairAffixes", "affixes", "bare_tokens", "pair_affixes"]

_PROBES = ("a", "0", ".", "的")
_HELD = 1 << 19
"""Texts remembered at most, of all tokenizers: some 100 MB."""
_PIECES: dict[str, dict[str, array[int]]] = {}
"""Token ids of texts, by the name of the tokenizer."""
_NAMES: WeakKeyDictionary[Any, tuple[int, str]] = WeakKeyDictionary()
"""How many tokens a tokenizer knew, and its name."""


@dataclass(frozen=True)
class Affixes:
    """Special tokens before and after one text."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class PairAffixes:
    """Special tokens between two texts, and after them."""

    between: tuple[int, ...]
    after: tuple[int, ...]


def bare_tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Returns the token ids of texts as they stand: no specials around, none inside.

    A text that spells out ``[MASK]`` is text. New texts are tokenized in one call, and remembered:
    methods, settings and controls of a grid read the same pieces.
    """
    known = _PIECES.setdefault(_named(tokenizer), {})
    new = [text for text in dict.fromkeys(texts) if text not in known]
    tokenized = dict(zip(new, _tokenized(tokenizer, new), strict=True)) if new else {}
    ids = [tokenized[text] if text in tokenized else known[text].tolist() for text in texts]
    if sum(map(len, _PIECES.values())) + len(new) > _HELD:
        for pieces in _PIECES.values():
            pieces.clear()
    if len(new) <= _HELD:
        known.update((text, array("i", tokens)) for text, tokens in tokenized.items())
    return ids


def _named(tokenizer: PreTrainedTokenizerFast) -> str:
    """A digest of all that a tokenizer does: a backbone is loaded anew for each model."""
    own = _NAMES.get(tokenizer)
    if own is None or own[0] != len(tokenizer):
        value = f"{type(tokenizer).__name__} {tokenizer.backend_tokenizer.to_str()}"
        own = _NAMES[tokenizer] = (len(tokenizer), hashlib.sha256(value.encode()).hexdigest())
    return own[1]


def _tokenized(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    encoded: Any = tokenizer(
        list(texts),
        add_special_tokens=False,
        padding=False,
        truncation=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def affixes(tokenizer: PreTrainedTokenizerFast) -> Affixes:
    """Finds what a tokenizer puts around a text.

    Raises:
        KbenchError: it changes the text itself.
    """
    for probe in _PROBES:
        bare = tokenizer(probe, add_special_tokens=False)["input_ids"]
        full = tokenizer(probe)["input_ids"]
        start = _find(bare, full, 0)
        if start is not None:
            return Affixes(tuple(full[:start]), tuple(full[start + len(bare) :]))
    raise KbenchError("the tokenizer changes a text when it adds its special tokens")


def pair_affixes(tokenizer: PreTrainedTokenizerFast) -> PairAffixes:
    """Finds what a tokenizer puts between two texts and after them.

    Raises:
        KbenchError: it changes the texts themselves.
    """
    for probe in _PROBES:
        bare = tokenizer(probe, add_special_tokens=False)["input_ids"]
        full = tokenizer(probe, probe)["input_ids"]
        first = _find(bare, full, 0)
        second = None if first is None else _find(bare, full, first + len(bare))
        if first is not None and second is not None:
            end = second + len(bare)
            return PairAffixes(tuple(full[first + len(bare) : second]), tuple(full[end:]))
    raise KbenchError("the tokenizer changes two texts when it sets them apart")


def _find(wanted: list[int], tokens: list[int], start: int) -> int | None:
    # A sign that the tokenizer drops without a token would be found before everything.
    for at in range(start, len(tokens) - len(wanted) + 1 if wanted else 0):
        if tokens[at : at + len(wanted)] == wanted:
            return at
    return None
