"""The general corpus and the descriptions: sentences about train leaves and hubs."""

from __future__ import annotations

import random
from collections.abc import Iterator

from kbench.knowledge import Sentence
from scripts.build_atlas.assemble import Split
from scripts.build_atlas.draft import Atlas, Draft
from scripts.build_atlas.texts import (
    KIND_WORDS,
    kind_of,
    pattern_set,
    sentence,
    surface,
    with_article,
)
from scripts.wordnet_text import NameIndex

SENTENCES_A_LEAF = 2
SENTENCES_A_COUNTRY = 6


def _of_one(atlas: Atlas, draft: Draft, most: int, rng: random.Random) -> Iterator[Sentence]:
    patterns = list(pattern_set(draft))
    rng.shuffle(patterns)
    for pattern in patterns:
        if most and (found := sentence(atlas, draft, pattern, rng)):
            most -= 1
            yield found


def corpus(atlas: Atlas, split: Split, unseen: NameIndex, seed: int) -> list[Sentence]:
    """Sentences about train leaves and countries, in random order.

    Args:
        atlas: The knowledge base.
        split: Leaf id -> part.
        unseen: Names of dev and test leaves; a sentence that holds one is left out.
        seed: Seed of patterns and order.
    """
    rng = random.Random(f"corpus {seed}")
    found: list[Sentence] = []
    for draft in atlas.entities.values():
        if draft.leaf and split[draft.id] == "train":
            found += _of_one(atlas, draft, SENTENCES_A_LEAF, rng)
        elif draft.group == "country":
            found += _of_one(atlas, draft, SENTENCES_A_COUNTRY, rng)
    rng.shuffle(found)
    hubs = {d.id for d in atlas.entities.values() if not d.leaf}
    allowed = hubs | {id for id, part in split.items() if part == "train"}
    return [
        s
        for s in found
        if s.text not in unseen and all(m.entity in allowed for m in s.mentions if m.entity)
    ]


def _a(text: str) -> str:
    return f"an {text}" if text[:1].lower() in "aeio" else f"a {text}"


def _the(atlas: Atlas, id: str) -> str:
    return with_article(surface(atlas, id))


def _person(atlas: Atlas, draft: Draft) -> str:
    nation = " ".join(surface(atlas, id) for id in draft.facts["nation"])
    work = " and ".join(surface(atlas, id) for id in draft.facts["profession"])
    text = f"{draft.label} was {_a(f'{nation} {work}'.strip())}"
    if centuries := draft.facts["century"]:
        text += f", born in the {atlas.label(centuries[0])}"
    if places := draft.facts["birthplace"]:
        text += f" in {_the(atlas, places[0])}"
    return f"{text}."


def _place(atlas: Atlas, draft: Draft) -> str:
    facts = draft.facts
    kind = KIND_WORDS.get(kind_of(draft), ("place",))[0]
    text = f"{draft.label} is {_a(kind)}"
    if facts["country"]:
        text += " in " + " and ".join(_the(atlas, id) for id in facts["country"])
    if facts["continent"]:
        text += f", {atlas.label(facts['continent'][0])}"
    if facts["currency"]:
        text += f"; its currency is the {atlas.label(facts['currency'][0])}"
    return f"{text}."


def _other(atlas: Atlas, draft: Draft) -> str:
    kind = KIND_WORDS.get(kind_of(draft), (draft.types[0],))[0]
    text = f"{draft.label} is {_a(kind)}" if draft.leaf else f"{draft.label} is {_a(draft.group)}"
    known = {
        "mythology": "of", "domain": "of", "conflict": "of", "century": "of the",
        "country": "in", "continent": "in", "field": "in the field of", "people": "of",
    }  # fmt: skip
    for relation, word in known.items():
        if draft.facts[relation]:
            text += f" {word} {_the(atlas, draft.facts[relation][0])}"
    if draft.facts["currency"]:
        text += f"; its currency is the {atlas.label(draft.facts['currency'][0])}"
    if draft.facts["language"]:
        text += f"; its language is the {atlas.label(draft.facts['language'][0])}"
    return f"{text}."


def description(atlas: Atlas, draft: Draft) -> str:
    """One sentence that states the facts of an entity."""
    if draft.group == "person":
        return _person(atlas, draft)
    return (
        _place(atlas, draft) if "location" in draft.types and draft.leaf else _other(atlas, draft)
    )
