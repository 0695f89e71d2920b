"""Persons, deities and events from WordNet's named instances, their facts read from glosses."""

from __future__ import annotations

import re
from collections.abc import Mapping

from scripts.build_atlas.draft import Atlas, Draft, is_plain, plain
from scripts.build_atlas.lists import (
    CONFLICTS,
    DEITY_DOMAINS,
    NATIONS,
    PROFESSIONS,
    SAME_PROFESSION,
)
from scripts.wordnet_text import Synset, words_of

PERSON = "00007846-n"
_STOPS = frozenset(
    [
        "who",
        "whose",
        "noted",
        "known",
        "remembered",
        "that",
        "which",
        "famous",
        "regarded",
        "of",
        "in",
        "from",
        "to",
        "under",
        "with",
        "by",
        "for",
        "at",
        "on",
        "during",
        "as",
        "after",
        "best",
    ]
)
_BRACKETS = re.compile(r"\([^)]*\)")
_YEARS = re.compile(
    r"\((?:born (?:in )?)?(?:circa |\? ?|flourished )?(\d{3,4}|\d{1,3} ?BC|\d{1,3})\??(.{0,30}?)\)"
)
MYTHOLOGIES = [
    "Greek",
    "Roman",
    "Hindu",
    "Norse",
    "Egyptian",
    "Celtic",
    "Teutonic",
    "Babylonian",
    "Sumerian",
    "Akkadian",
    "Phoenician",
    "Semitic",
    "Persian",
    "Anglo-Saxon",
    "Welsh",
    "Irish",
    "Assyrian",
    "Canaanite",
    "Phrygian",
    "Vedic",
    "Avestan",
    "Incan",
    "Aztec",
]


def kinds_above(synset: Synset, synsets: Mapping[str, Synset]) -> set[str]:
    """Ids of every class above a named instance."""
    seen: set[str] = set()
    rest = list(synset.instance_of)
    while rest:
        if (id := rest.pop()) not in seen:
            seen.add(id)
            rest.extend(synsets[id].kinds)
    return seen


def full_name(words: tuple[str, ...]) -> str:
    """The shortest lemma of two words or more; the first lemma where all have one word."""
    longer = [w for w in words if len(w.split()) >= 2 and is_plain(plain(w))]
    return plain(min(longer, key=len) if longer else words[0])


def _head(gloss: str) -> list[str]:
    """The words of a gloss up to the first relative clause, preposition or semicolon."""
    text = _BRACKETS.sub(" ", gloss).replace("United States", "American")
    head: list[str] = []
    for word in re.findall(r"[A-Za-z'-]+|[;:]", text):
        if word.lower() in _STOPS or word in ";:":
            break
        head.append(word)
    return head


def century_of(gloss: str) -> int | None:
    """The century of the first year in brackets; negative before Christ."""
    match = _YEARS.search(gloss)
    if not match:
        return None
    year = int(re.sub(r"\D", "", match[1]))
    before = "BC" in match[1] or "BC" in match[2]
    century = (year - 1) // 100 + 1 if year else 0
    if not 1 <= century <= 21 or (not before and year < 100 and "-" not in match[2]):
        return None
    return -century if before else century


def _professions(synset: Synset, head: list[str], synsets: Mapping[str, Synset]) -> list[str]:
    named = [w.lower() for w in head]
    for kind in synset.instance_of:
        named += [w.lower() for w in synsets[kind].words]
    found = [SAME_PROFESSION.get(w, w) for w in named]
    return [w for w in dict.fromkeys(found) if w in PROFESSIONS]


def _birthplace(gloss: str, countries: Mapping[str, str]) -> str | None:
    match = re.search(r"born in ([A-Z][A-Za-z ]+?)[);,]", gloss)
    return countries.get(match[1].strip()) if match else None


def person(
    synset: Synset, synsets: Mapping[str, Synset], countries: Mapping[str, str]
) -> Draft | None:
    """A person with at least a profession, else nothing."""
    head = _head(synset.gloss)
    professions = _professions(synset, head, synsets)
    if not professions:
        return None
    groups = dict.fromkeys(PROFESSIONS[p][0] for p in professions)
    draft = Draft(f"wn:{synset.id}", full_name(synset.words), ["person", *groups], group="person")
    draft.types += [p for p in professions[:2] if p not in draft.types]
    draft.aliases = [plain(w) for w in synset.words if plain(w) != draft.label]
    for profession in professions[:3]:
        draft.add("profession", f"profession:{profession}")
        draft.add("field", f"field:{PROFESSIONS[profession][1]}")
    nation = next((w.lower() for w in head[:5] if w.lower() in NATIONS), None)
    if nation:
        draft.add("nation", f"nation:{nation}")
        if NATIONS[nation]:
            draft.add("homeland", f"country:{NATIONS[nation]}")
    if century := century_of(synset.gloss):
        draft.add("century", f"century:{century}")
    if place := _birthplace(synset.gloss, countries):
        draft.add("birthplace", place)
    return draft


def deity(synset: Synset, synsets: Mapping[str, Synset], atlas: Atlas) -> Draft | None:
    """A deity or mythical being with its mythology, else nothing."""
    kinds = " ".join(w for k in synset.instance_of for w in synsets[k].words)
    text = f"{kinds} {synset.gloss}"
    found = next((m for m in MYTHOLOGIES if re.search(rf"\b{m}\b", text)), None)
    if not found:
        return None
    draft = Draft(f"wn:{synset.id}", plain(synset.words[0]), ["deity"], group="deity")
    draft.aliases = [plain(w) for w in synset.words[1:]]
    if "being" in kinds or "Titan" in kinds or "giant" in kinds:
        draft.types = ["mythical being"]
    draft.add("mythology", atlas.hub(f"mythology:{found}", f"{found} mythology", "mythology"))
    words = words_of(synset.gloss)
    female = {"goddess", "daughter", "wife", "mother", "queen", "nymph", "sister"} & set(words)
    male = {"god", "son", "king", "father", "husband", "hero", "brother"} & set(words)
    for word, hits in (("female", female), ("male", male)):
        # "goddess; sister of the god …": only one-sided glosses say the gender for certain.
        if hits and not (male if word == "female" else female):
            draft.add("gender", atlas.hub(f"gender:{word}", word, "gender"))
    for word in DEITY_DOMAINS:
        if re.search(rf"god(dess)? of (the )?([a-z]+ and )?(the )?{word}\b", synset.gloss):
            draft.add("domain", atlas.hub(f"domain:{word}", word, "domain"))
    return draft


def event(synset: Synset, countries: Mapping[str, str], atlas: Atlas) -> Draft | None:
    """A battle, siege or war with its century or war, else nothing."""
    draft = Draft(f"wn:{synset.id}", plain(synset.words[0]), ["event", "battle"], group="event")
    draft.aliases = [plain(w) for w in synset.words[1:]]
    years = re.search(r"\((?:in )?(\d{3,4})(?:-\d+)?( BC)?\)", synset.gloss)
    if years:
        century = (int(years[1]) - 1) // 100 + 1
        draft.add("century", f"century:{-century if years[2] else century}")
    for text, label in CONFLICTS.items():
        if re.search(rf"{text}\b", synset.gloss) and words_of(label) != draft.name:
            draft.add("conflict", atlas.hub(f"conflict:{label}", label, "conflict", "event"))
            break
    if place := next((c for n, c in countries.items() if f" {n}" in synset.gloss), None):
        draft.add("country", place)
    return draft if draft.facts else None
