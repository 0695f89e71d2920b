"""Puts the knowledge base together and splits its leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from scripts.build_atlas import hubs, persons, places
from scripts.build_atlas.draft import Atlas, Draft, is_plain, order
from scripts.wordnet_text import Name, Synset, occurrences, words_of

CITIES_A_COUNTRY = (44, 7)
REGIONS_A_COUNTRY = 9
AIRPORTS_A_COUNTRY = 5
MOST_COLLISIONS = 4
"""A name that more pre-training sentences hold is an ordinary word: its entity goes to train."""

Split = dict[str, str]
"""Leaf id -> `train`, `dev` or `test`."""


def _from_wordnet(atlas: Atlas, synsets: Mapping[str, Synset]) -> None:
    countries = places.country_names(atlas)
    classes = places.natural_classes(synsets)
    named = {id: s for id, s in synsets.items() if s.instance_of}
    events = {id for id, s in synsets.items() if s.words[0] in ("battle", "war", "siege")}
    for synset in named.values():
        above = persons.kinds_above(synset, synsets)
        words = {w for id in above for w in synsets[id].words}
        draft: Draft | None = None
        if persons.PERSON in above and not words & {"fictional character", "spiritual being"}:
            draft = persons.person(synset, synsets, countries)
        elif words & {"deity", "mythical being"}:
            draft = persons.deity(synset, synsets, atlas)
        elif above & events:
            draft = persons.event(synset, countries, atlas)
        else:
            draft = places.natural(synset, above, atlas, countries, classes)
        if draft and is_plain(draft.label, 5) and draft.label[0].isupper():
            atlas.put(draft)


def assemble(synsets: Mapping[str, Synset], sources: Path, seed: int) -> Atlas:
    """The whole knowledge base, without split and texts."""
    atlas = Atlas()
    hubs.add_hubs(atlas, sources)
    countries = hubs.load_countries(sources)
    for draft in places.capitals(atlas, countries):
        atlas.put(draft)
    _from_wordnet(atlas, synsets)
    for draft in places.cities(atlas, sources, CITIES_A_COUNTRY, seed):
        atlas.put(draft)
    for code, record in places.factbook(sources, countries):
        for draft in places.peaks(atlas, code, record):
            atlas.put(draft)
        for draft in places.regions(atlas, code, record, REGIONS_A_COUNTRY):
            atlas.put(draft)
    for draft in places.airports(atlas, sources, AIRPORTS_A_COUNTRY, seed):
        atlas.put(draft)
    _drop_dangling(atlas)
    hubs.prune_hubs(atlas)
    return atlas


def _drop_dangling(atlas: Atlas) -> None:
    """Facts whose object lost its label to another entity are left out."""
    for draft in atlas.entities.values():
        for relation, targets in draft.facts.items():
            draft.facts[relation] = [t for t in targets if t in atlas.entities]


def _shared_names(atlas: Atlas) -> set[Name]:
    """Names that are a part of, or the same as, another entity's label or alias."""
    runs: Counter[Name] = Counter()
    for draft in atlas.entities.values():
        own: set[Name] = set()
        for text in (draft.label, *draft.aliases):
            words = words_of(text)
            own |= {words[i:j] for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
        runs.update(own)
    return {run for run, count in runs.items() if count > 1}


def _home(draft: Draft) -> str:
    return draft.id.removeprefix("wn:") if draft.id.startswith("wn:") else ""


def split_leaves(atlas: Atlas, synsets: dict[str, Synset], seed: int) -> Split:
    """Assigns leaves to train, dev and test, and drops aliases of dev and test that collide.

    Only a leaf whose name is no ordinary word and no part of another name can be in dev or
    test, so that its name can be kept out of all training text.
    """
    homes = {text: _home(d) for d in atlas.leaves() for text in (d.label, *d.aliases)}
    counts = occurrences(synsets, homes)
    shared = _shared_names(atlas)

    def fit(text: str) -> bool:
        name = words_of(text)
        short = sum(map(len, name)) < 4
        return bool(name) and counts[name] <= MOST_COLLISIONS and name not in shared and not short

    split = {d.id: "train" for d in atlas.leaves()}
    for group in dict.fromkeys(d.group for d in atlas.leaves()):
        members = sorted(atlas.leaves(group), key=lambda d: order(d.id, seed))
        able = [d for d in members if fit(d.label)]
        unseen = round(0.3 * len(members))
        for place, draft in enumerate(able[:unseen]):
            # Interleaved, so that a group with few fit names has both parts.
            split[draft.id] = "dev" if place % 3 == 2 else "test"
    for draft in atlas.leaves():
        if split[draft.id] != "train":
            draft.aliases = [a for a in draft.aliases if fit(a) and len(words_of(a)) > 1]
    return split


def unseen_names(atlas: Atlas, split: Split) -> list[str]:
    """Labels and aliases of all dev and test leaves."""
    unseen = [d for d in atlas.leaves() if split[d.id] != "train"]
    return sorted({name for d in unseen for name in (d.label, *d.aliases)})
