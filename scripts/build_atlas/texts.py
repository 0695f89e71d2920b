"""Fills patterns with names and keeps track of where they land."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from kbench.data import Mention, Role
from kbench.knowledge import Sentence
from scripts.build_atlas.draft import Atlas, Draft
from scripts.build_atlas.wordings import CORPUS

_FIELD = re.compile(r"\{([a-z]+)\}")
_ARTICLE = re.compile(r"(^| )a $")
_THE = re.compile(
    r"^(United |Netherlands|Philippines|Bahamas|Gambia|Maldives|Seychelles|Vatican|Isle of)"
    r"|Republic|Islands$|Territor|^Caribbean$| Wars?$|^American (Civil|Rev)|^Wars of"
)
UNLINKED = 0.45
"""Share of object mentions whose link a linker is said to have missed."""
KIND_WORDS = {
    "city": ("city", "town"), "region": ("region", "province"), "airport": ("airport",),
    "mountain": ("mountain", "peak"), "river": ("river",), "lake": ("lake",), "sea": ("sea",),
    "island": ("island",), "desert": ("area",), "deity": ("deity", "god"), "event": ("battle",),
    "mythical being": ("being", "creature"),
}  # fmt: skip
"""Type -> words for it in a sentence."""


def surface(atlas: Atlas, id: str) -> str:
    """The words that a sentence uses for a hub or leaf, without an article."""
    label = re.sub(r" (mythology|language|century( BC)?|hemisphere)$", "", atlas.label(id))
    return label.removeprefix("The ")


def with_article(word: str) -> str:
    """A name as it stands in a sentence: "the United States", but "France"."""
    return f"the {word}" if _THE.search(word) else word


def fill(pattern: str, words: Mapping[str, str]) -> tuple[str, dict[str, tuple[int, int]]]:
    """The text of a pattern and the span of each field, without "the" before a name."""
    spans: dict[str, tuple[int, int]] = {}
    text, last = "", 0
    for match in _FIELD.finditer(pattern):
        text += pattern[last : match.start()]
        word = words[match[1]]
        if _ARTICLE.search(text) and word[0].lower() in "aeio":
            text = f"{text[:-1]}n "
        text += word
        spans[match[1]] = (len(text) - len(word.removeprefix("the ")), len(text))
        last = match.end()
    return text + pattern[last:], spans


def fields(pattern: str) -> list[str]:
    """The object fields of a pattern."""
    return [name for name in _FIELD.findall(pattern) if name != "s"]


def kind_of(draft: Draft) -> str:
    """The type that has words of its own, or an empty string."""
    return next((t for t in reversed(draft.types) if t in KIND_WORDS), "")


def pattern_set(draft: Draft) -> Sequence[str]:
    """The corpus patterns for a leaf or country."""
    if draft.group in CORPUS:
        return CORPUS[draft.group]
    if not draft.leaf:
        return CORPUS["hub"]
    towns = draft.group in ("city", "region")
    return (*CORPUS["place"], *CORPUS["town"]) if towns else CORPUS["place"]


def language_of(atlas: Atlas, draft: Draft) -> list[str]:
    """The main language of an only country."""
    countries = draft.facts["country"]
    return atlas.entities[countries[0]].facts["language"] if len(countries) == 1 else []


def objects(atlas: Atlas, draft: Draft, field: str) -> list[str]:
    """Ids that may fill a field; for `kind` the words themselves."""
    if field == "kind":
        return list(KIND_WORDS.get(kind_of(draft), ()))
    if field == "language" and draft.leaf:
        return language_of(atlas, draft)
    found = draft.facts[field]
    # "nineteenth century BC" would need words of its own; leave it to the triples.
    return [id for id in found if not id.startswith("century:-")]


def sentence(atlas: Atlas, draft: Draft, pattern: str, rng: random.Random) -> Sentence | None:
    """One sentence of the corpus, or nothing where the leaf lacks a fact of the pattern."""
    name = draft.label if draft.leaf else with_article(surface(atlas, draft.id))
    words, links = {"s": name}, {"s": draft.id}
    for field in fields(pattern):
        options = objects(atlas, draft, field)
        if not options:
            return None
        choice = rng.choice(options)
        if field == "kind":
            words[field] = choice
        else:
            words[field], links[field] = with_article(surface(atlas, choice)), choice
    text, spans = fill(pattern, words)
    unlinked = rng.random() < UNLINKED
    mentions = [
        Mention(start, end, None if unlinked and name != "s" else links.get(name), Role.CONTEXT)
        for name, (start, end) in sorted(spans.items(), key=lambda item: item[1])
    ]
    return Sentence(text, tuple(mentions))
