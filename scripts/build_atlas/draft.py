"""The knowledge base while it is being put together."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field

from scripts.wordnet_text import Name, words_of

RELATIONS = {
    "country": "is in the country",
    "continent": "is on the continent",
    "subregion": "is in the part of the world",
    "timezone": "keeps the time of",
    "currency": "uses the currency",
    "language": "has the main language",
    "borders": "borders on",
    "capital": "has the capital",
    "nation": "belongs to the nation",
    "homeland": "came from the country",
    "birthplace": "was born in",
    "profession": "was by profession",
    "field": "worked in the field of",
    "century": "belongs to the century",
    "people": "is the people of",
    "mythology": "belongs to the mythology of",
    "domain": "is the deity of",
    "gender": "is by gender",
    "conflict": "was part of the war",
    "hemisphere": "is in the hemisphere",
    "serves": "serves the city",
    "kind": "is a kind of place",
}


@dataclass
class Draft:
    """One entity with its facts.

    Attributes:
        id: Stable id, such as `wn:02931417-n`, `geo:2988507` or `country:FR`.
        label: Name in ASCII letters.
        types: Type names, coarse first.
        aliases: Other names.
        facts: Relation -> ids of the objects.
        leaf: Whether this is a rare entity, a subject of the tasks, or a shared hub.
        group: The sort of leaf (`person`, `city`, …); decides patterns and questions.
    """

    id: str
    label: str
    types: list[str]
    aliases: list[str] = field(default_factory=list)
    facts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    leaf: bool = True
    group: str = ""

    @property
    def name(self) -> Name:
        """The label as normalised words."""
        return words_of(self.label)

    def add(self, relation: str, target: str) -> None:
        """Adds a fact once."""
        if relation not in RELATIONS:
            raise ValueError(f"expected one of {', '.join(RELATIONS)}, got {relation!r}")
        if target not in self.facts[relation]:
            self.facts[relation].append(target)


class Atlas:
    """All entities so far; the first entity of a label keeps it."""

    def __init__(self) -> None:
        self.entities: dict[str, Draft] = {}
        self._labels: dict[Name, str] = {}

    def put(self, draft: Draft) -> bool:
        """Adds an entity unless its label is taken; says whether it did."""
        name = draft.name
        if not name or name in self._labels or draft.id in self.entities:
            return False
        self._labels[name] = draft.id
        self.entities[draft.id] = draft
        return True

    def hub(self, id: str, label: str, *types: str) -> str:
        """Adds a hub if it is new, and returns its id."""
        if id not in self.entities:
            draft = Draft(id, label, list(types), leaf=False, group=types[0])
            self.entities[id] = draft
            self._labels.setdefault(draft.name, id)
        return id

    def leaves(self, group: str | None = None) -> list[Draft]:
        """The leaf entities, in order, of one group or of all."""
        return [d for d in self.entities.values() if d.leaf and group in (None, d.group)]

    def label(self, id: str) -> str:
        """The label of an entity."""
        return self.entities[id].label


def plain(text: str) -> str:
    """The text with accents stripped; other letters stay and may make a name unfit."""
    folded = unicodedata.normalize("NFKD", text.replace("’", "'").replace("‘", "'"))
    return "".join(c for c in folded if not unicodedata.combining(c)).strip()


def is_plain(name: str, most_words: int = 4) -> bool:
    """Whether a name is short and of ASCII letters, so that any English model can read it."""
    letters = name.replace(" ", "").replace("-", "").replace("'", "").replace(".", "")
    return letters.isascii() and letters.isalpha() and len(words_of(name)) <= most_words


def order(key: str, seed: int) -> str:
    """A sort key that shuffles reproducibly and does not change when other items come or go."""
    return hashlib.sha256(f"{seed} {key}".encode()).hexdigest()
