"""Texts as their tokens, the places of these in the text, and the special tokens around them.

A text is always tokenized whole: a tokenizer may write a piece of a text otherwise than the same
characters within it (``▁`` at its beginning). What it does at a text's beginning, inside it and
around it is found by looking.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from kbench.errors import KbenchError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "Affixes",
    "PairAffixes",
    "PlacedTokens",
    "affixes",
    "bare_tokens",
    "inner_tokens",
    "is_known",
    "joined_tokens",
    "known_words",
    "name_of",
    "pair_affixes",
    "placed_tokens",
]

_PROBES = ("a", "0", ".", "的")
_SIGNS = ("\n", "(")
"""What words are joined to, to see what they are inside a text; the first that does."""
_HELD = 1 << 23
"""Tokens remembered at most, of all tokenizers: some 100 MB."""
_NAMES: WeakKeyDictionary[Any, tuple[int, str]] = WeakKeyDictionary()
"""How many tokens a tokenizer knew, and its name."""
_LEADS: dict[str, str] = {}
"""What stands before a word inside a text, by the name of the tokenizer."""


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


@dataclass(frozen=True, slots=True)
class PlacedTokens:
    """The tokens of a text, and which of its characters each stands for.

    Attributes:
        ids: of the tokens.
        starts: first character of each.
        ends: character after the last of each.
    """

    ids: Sequence[int]
    starts: Sequence[int]
    ends: Sequence[int]

    def within(self, text: str, start: int, end: int) -> tuple[int, int]:
        """Returns the tokens that hold some of the characters from ``start`` to before ``end``.

        A token that reaches beyond them counts: a tokenizer may join them with what stands
        beside. Blanks at either end do not count, but for a token that is nothing but blanks
        before the first character: it is part of the word it leads.

        Returns:
            The first token and the one after the last; equal where no token holds them. What is
            inserted before or after them goes before these.
        """
        while start < end and text[end - 1].isspace():
            end -= 1
        while start < end and text[start].isspace():
            start += 1
        before = start
        while before and text[before - 1].isspace():
            before -= 1
        first = min(bisect_right(self.ends, start), bisect_left(self.starts, before))
        last = bisect_left(self.starts, end)
        if start == end or last <= bisect_right(self.ends, start):
            return first, first
        return first, last

    def after(self, length: int, drop: bool) -> PlacedTokens:
        """Returns them for the text without its first characters, counted from the rest.

        Args:
            length: how many.
            drop: whether tokens of theirs alone go too.
        """
        first = bisect_right(self.ends, length - 1) if drop else 0
        starts = array("i", [max(0, at - length) for at in self.starts[first:]])
        ends = array("i", [max(0, at - length) for at in self.ends[first:]])
        return PlacedTokens(self.ids[first:], starts, ends)


class _Memory:
    """What was made of texts, as long as it is not too much."""

    def __init__(self) -> None:
        self._known: dict[str, dict[Any, Any]] = {}
        self._held = 0

    def of(self, tokenizer: PreTrainedTokenizerFast) -> dict[Any, Any]:
        return self._known.setdefault(_named(tokenizer), {})

    def add(self, tokenizer: PreTrainedTokenizerFast, new: Mapping[Any, Any], tokens: int) -> None:
        """Keeps what is new, and forgets all that was known where it would be too much."""
        if self._held + tokens > _HELD:
            self.clear()
        if tokens <= _HELD:
            self.of(tokenizer).update(new)
            self._held += tokens

    def clear(self) -> None:
        self._known.clear()
        self._held = 0


_BARE, _PLACED = _Memory(), _Memory()


def bare_tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Returns the token ids of texts as they stand: no specials around, none inside.

    A text that spells out ``[MASK]`` is text. New texts are tokenized in one call, and remembered:
    methods, settings and controls of a grid read the same texts.
    """
    known = _BARE.of(tokenizer)
    new = [text for text in dict.fromkeys(texts) if text not in known]
    tokenized = dict(zip(new, (made.ids for made in _tokenized(tokenizer, new)), strict=True))
    ids = [tokenized[text] if text in tokenized else known[text].tolist() for text in texts]
    kept = {text: array("i", tokens) for text, tokens in tokenized.items()}
    _BARE.add(tokenizer, kept, sum(map(len, kept.values())) + len(kept))
    return ids


def inner_tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Returns the token ids that texts have after other words and a blank, not at a beginning."""
    lead = _lead(tokenizer)
    if not lead.strip():
        return bare_tokens(tokenizer, [f"{lead}{text}" for text in texts])
    before, *pieces = bare_tokens(tokenizer, [lead, *(f"{lead} {text}" for text in texts)])
    return [ids[len(before) :] for ids in pieces]


def joined_tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Returns the token ids that texts have right behind others, without a blank between.

    Each is looked at behind a sign that is a token by itself; where none is, as it stands.
    """
    found = bare_tokens(tokenizer, texts)
    for sign in reversed(_SIGNS):
        first, *pieces = bare_tokens(tokenizer, [sign, *(sign + text for text in texts)])
        for number, ids in enumerate(pieces):
            if first and ids[: len(first)] == first:
                found[number] = ids[len(first) :]
    return found


def _lead(tokenizer: PreTrainedTokenizerFast) -> str:
    """What a text must begin with to be read as one that goes on; a word's tokens are cut off.

    A blank for most; nothing where a tokenizer adds one even to that.
    """
    name = _named(tokenizer)
    if name not in _LEADS:
        _LEADS[name] = _found_lead(tokenizer)
    return _LEADS[name]


def _found_lead(tokenizer: PreTrainedTokenizerFast) -> str:
    wanted, anchor = [], ""
    for probe in _PROBES:
        words = [f"{probe} {word}" for word in _PROBES]
        start, *several = bare_tokens(tokenizer, [probe, *words])
        if start and all(ids[: len(start)] == start for ids in several):
            anchor, wanted = probe, [ids[len(start) :] for ids in several]
            break
    for lead in (" ", ""):
        if not anchor or bare_tokens(tokenizer, [f"{lead}{word}" for word in _PROBES]) == wanted:
            return lead
    return anchor


def placed_tokens(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    blanks: Sequence[int] = (),
    *,
    inner: bool = False,
) -> list[PlacedTokens]:
    """Returns the tokens of whole texts with their places, and remembers them.

    Args:
        tokenizer: a fast tokenizer.
        texts: as they stand, in those with a blank the tokenizer's mask token among them.
        blanks: of each text, where that begins; -1 for none. None at all if left out.
        inner: the texts go on after other words, as in :func:`inner_tokens`.
    """
    lead = _lead(tokenizer) if inner else ""
    lead = f"{lead} " if lead.strip() else lead
    keys = [(f"{lead}{text}", at) for text, at in zip(texts, blanks or repeat(-1), strict=False)]
    known = _PLACED.of(tokenizer)
    new = [key for key in dict.fromkeys(keys) if key not in known]
    plain = [key for key in new if key[1] < 0]
    blank = [key for key in new if key[1] >= 0]
    made = dict(zip(plain, _placed(tokenizer, [text for text, _ in plain]), strict=True))
    made |= zip(blank, _with_mask(tokenizer, blank), strict=True)
    found = [made[key] if key in made else known[key] for key in keys]
    _PLACED.add(tokenizer, made, 3 * sum(len(tokens.ids) for tokens in made.values()) + len(made))
    return [tokens.after(len(lead), bool(lead.strip())) for tokens in found] if lead else found


def _placed(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, specials: bool = False
) -> list[PlacedTokens]:
    places = []
    for made in _tokenized(tokenizer, texts, specials=specials):
        flat = array("i", chain.from_iterable(made.offsets))
        places.append(PlacedTokens(array("i", made.ids), flat[::2], flat[1::2]))
    return places


def _with_mask(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[tuple[str, int]]
) -> list[PlacedTokens]:
    """The tokens of texts that hold the mask token once for real.

    A text that spells out a special beside it is read in two parts, the way that a tokenizer
    itself reads what stands before and after a special.
    """
    places = _placed(tokenizer, [text for text, _ in texts], specials=True)
    special, unknown = {*tokenizer.all_special_ids}, tokenizer.unk_token
    special.discard(tokenizer.unk_token_id)
    for number, (text, blank) in enumerate(texts):
        found = [token for token in places[number].ids if token in special]
        if found != [tokenizer.mask_token_id] or (unknown and str(unknown) in text):
            places[number] = _in_two(tokenizer, text, blank)
    return places


def _in_two(tokenizer: PreTrainedTokenizerFast, text: str, blank: int) -> PlacedTokens:
    mask = str(tokenizer.mask_token)
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()[tokenizer.mask_token_id]
    after = blank + len(mask)
    left, right = text[:blank], text[after:]
    left = left.rstrip() if added.lstrip else left
    right = right.lstrip() if added.rstrip else right
    one, two = _placed(tokenizer, [left, right])
    moved = len(text) - len(right)
    return PlacedTokens(
        array("i", [*one.ids, tokenizer.mask_token_id, *two.ids]),
        array("i", [*one.starts, blank, *(moved + at for at in two.starts)]),
        array("i", [*one.ends, after, *(moved + at for at in two.ends)]),
    )


def _named(tokenizer: PreTrainedTokenizerFast) -> str:
    """A digest of all that a tokenizer does: a backbone is loaded anew for each model."""
    own = _NAMES.get(tokenizer)
    if own is None or own[0] != len(tokenizer):
        value = f"{type(tokenizer).__name__} {tokenizer.backend_tokenizer.to_str()}"
        own = _NAMES[tokenizer] = (len(tokenizer), hashlib.sha256(value.encode()).hexdigest())
    return own[1]


def _tokenized(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, specials: bool = False
) -> list[Any]:
    """What the tokenizer's own core makes of whole texts, in one call.

    Args:
        tokenizer: is left as it was.
        texts: as they stand.
        specials: whether special tokens that a text spells out are such; else they are text.
    """
    if not texts:
        return []
    core = tokenizer.backend_tokenizer
    kept = core.truncation, core.padding, core.encode_special_tokens
    core.no_truncation()
    core.no_padding()
    core.encode_special_tokens = not specials
    try:
        return list(core.encode_batch(texts, add_special_tokens=False))
    finally:
        truncation, padding, core.encode_special_tokens = kept
        if truncation:
            core.enable_truncation(**truncation)
        if padding:
            core.enable_padding(**padding)


def is_known(tokenizer: PreTrainedTokenizerFast, word: str) -> bool:
    """Returns whether a word has tokens, and each of its characters one that is not ``[UNK]``."""
    tokens = placed_tokens(tokenizer, [word])[0]
    held = set(chain.from_iterable(map(range, tokens.starts, tokens.ends)))
    whole = all(at in held for at, sign in enumerate(word) if not sign.isspace())
    return bool(word.strip()) and whole and tokenizer.unk_token_id not in tokens.ids


def known_words(tokenizer: PreTrainedTokenizerFast, words: Iterable[str]) -> list[str]:
    """Returns the words that a tokenizer knows, none that has the same tokens as one before."""
    known = [word for word in words if is_known(tokenizer, word)]
    tokens = map(tuple, inner_tokens(tokenizer, known))
    first: dict[tuple[int, ...], str] = {}
    for word, ids in zip(known, tokens, strict=True):
        first.setdefault(ids, word)
    return list(first.values())


def name_of(tokenizer: PreTrainedTokenizerFast) -> str:
    """Returns what a tokenizer may be called in an error: its kind and how many tokens it knows."""
    return f"{type(tokenizer).__name__} of {len(tokenizer):,} tokens"


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
