"""The three tasks: typing, relations and questions, with entity-disjoint splits."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from scripts.build_atlas.assemble import Split
from scripts.build_atlas.draft import Atlas, Draft
from scripts.build_atlas.texts import fields, fill, language_of, surface, with_article
from scripts.build_atlas.wordings import (
    QUESTION_HINTS,
    QUESTIONS,
    RELATION_HINTS,
    RELATIONS,
    TYPING,
    TYPING_HINTS,
)
from scripts.wordnet_text import NameIndex

Record = dict[str, Any]
TYPES = [
    "person",
    "artist",
    "writer",
    "musician",
    "performer",
    "scientist",
    "scholar",
    "politician",
    "ruler",
    "soldier",
    "cleric",
    "city",
    "region",
    "landform",
    "mountain",
    "river",
    "island",
    "deity",
    "event",
    "body of water",
]
"""The labels of the typing task."""

SIZES = {"train": 2800, "dev": 400, "test": 1000}
NO_TYPING = frozenset({"airport"})
"""Groups whose labels say the type themselves."""

TYPING_SHARE = {"person": 0.46, "city": 0.14, "region": 0.12}
"""Share of the typing examples; the other groups fill the rest."""

RELATION_SHARE = {
    "city-country": 0.17, "region-country": 0.15, "mountain-country": 0.08,
    "water-country": 0.06, "homeland": 0.12, "birthplace": 0.05, "city-continent": 0.10,
    "region-continent": 0.10, "mountain-continent": 0.04, "nation": 0.08, "mythology": 0.08,
}  # fmt: skip

QUESTION_SHARE = {
    "country": 0.48, "continent": 0.08, "currency": 0.08, "language": 0.04, "nation": 0.11,
    "profession": 0.11, "century": 0.04, "mythology": 0.06,
}  # fmt: skip
HINTED = 0.35
"""Share of examples whose context hints at the label: a model can learn what labels mean."""
MOST_OF_ONE_ANSWER = 0.04
LEAST_OF_ONE_ANSWER = 20
"""Facts of train leaves with an answer below which no question asks for it."""

ANSWER_COUNTRIES = frozenset(
    [
        "IN",
        "BR",
        "DE",
        "RU",
        "CN",
        "FR",
        "IT",
        "MX",
        "JP",
        "AU",
        "ES",
        "PH",
        "CA",
        "TR",
        "IR",
        "PL",
        "BE",
        "AR",
        "CO",
        "PT",
        "MY",
        "NG",
        "ID",
        "HU",
        "CH",
        "FI",
        "MA",
        "PE",
        "GR",
        "SE",
        "CL",
        "EG",
        "AT",
        "IL",
        "DK",
        "CU",
        "IE",
        "NO",
    ]
)
"""Countries that questions ask for: those the pre-training text speaks of most."""


@dataclass(frozen=True)
class Fact:
    """A fact that an example asks for."""

    subject: Draft
    relation: str
    target: str


class Builder:
    """Draws examples for one split after the other.

    Args:
        atlas: The knowledge base.
        split: Leaf id -> part.
        unseen: Names that no train text may hold.
        answers: Words that are one token for the backbones in question.
        seed: Seed of the draws.
    """

    def __init__(
        self, atlas: Atlas, split: Split, unseen: NameIndex, answers: frozenset[str], seed: int
    ) -> None:
        self.atlas, self.split, self.unseen, self.seed = atlas, split, unseen, seed
        counts = Counter(
            surface(atlas, fact.target).lower()
            for draft in atlas.leaves()
            if split[draft.id] == "train"
            for fact in question_facts(atlas, draft)
        )
        self.answers = frozenset(a for a in answers if counts[a] >= LEAST_OF_ONE_ANSWER)

    def _leaves(self, part: str, rng: random.Random) -> list[Draft]:
        found = [d for d in self.atlas.leaves() if self.split[d.id] == part]
        rng.shuffle(found)
        return found

    def _rng(self, task: str, part: str) -> random.Random:
        return random.Random(f"{task} {part} {self.seed}")

    def _finish(self, task: str, part: str, records: Iterable[Record]) -> list[Record]:
        kept = [r for r in records if part != "train" or r["text"] not in self.unseen]
        self._rng(task, part).shuffle(kept)
        return [{"id": f"{task}-{part}-{i}", "split": part, **r} for i, r in enumerate(kept)]

    def typing(self, part: str) -> list[Record]:
        """Typing examples, one an entity."""
        rng, size = self._rng("typing", part), SIZES[part]
        left = Counter({g: round(share * size) for g, share in TYPING_SHARE.items()})
        left["other"] = size - left.total()
        records = []
        for draft in self._leaves(part, rng):
            labels = sorted(set(draft.types) & set(TYPES))
            group = draft.group if draft.group in TYPING_SHARE else "other"
            if not labels or draft.group in NO_TYPING or left[group] <= 0:
                continue
            left[group] -= 1
            text, spans = fill(_typing_pattern(labels, rng), {"s": draft.label})
            mention = _mention(spans["s"], draft.id, "target")
            records.append({"text": text, "mentions": [mention], "label": labels})
        return self._finish("typing", part, records)

    def relations(self, part: str) -> list[Record]:
        """Relation examples, one a fact; the label is the only relation of head and tail."""
        rng = self._rng("relations", part)
        records = []
        for fact in self._draw(part, relation_facts, RELATION_SHARE, rng):
            words = {"h": fact.subject.label, "t": with_article(surface(self.atlas, fact.target))}
            patterns = RELATION_HINTS[fact.relation] if rng.random() < HINTED else RELATIONS
            text, spans = fill(rng.choice(patterns), words)
            head = _mention(spans["h"], fact.subject.id, "head")
            tail = _mention(spans["t"], None, "tail")
            records.append({"text": text, "mentions": [head, tail], "label": fact.relation})
        return self._finish("relations", part, records)

    def questions(self, part: str) -> list[Record]:
        """Questions with one-word answers, one a fact."""
        rng = self._rng("qa", part)
        most = round(MOST_OF_ONE_ANSWER * SIZES[part])
        given: Counter[str] = Counter()
        records = []
        for fact in self._draw(part, question_facts, QUESTION_SHARE, rng, self._answerable):
            answer = surface(self.atlas, fact.target).lower()
            if given[answer] >= most:
                continue
            given[answer] += 1
            hint = self._hint(fact, rng)
            question = rng.choice(QUESTIONS[fact.relation])
            text, spans = fill(question, {"s": fact.subject.label})
            text, blank = hint + text, len(hint) + text.index("_")
            start, end = spans["s"]
            mention = _mention((len(hint) + start, len(hint) + end), fact.subject.id, "target")
            records.append(
                {
                    "text": text.replace("_ ", "").replace("_", ""),
                    "mentions": [mention],
                    "label": [answer],
                    "blank": blank,
                }
            )
        return self._finish("qa", part, records)

    def _hint(self, fact: Fact, rng: random.Random) -> str:
        """A sentence before a question, or nothing; it narrows the answer down."""
        pattern = QUESTION_HINTS.get(fact.relation)
        if pattern is None or rng.random() >= HINTED:
            return ""
        words = {"s": fact.subject.label}
        for field in fields(pattern):
            found = fact.subject.facts[field]
            if len(found) != 1:
                return ""
            words[field] = with_article(surface(self.atlas, found[0]))
        return fill(pattern, words)[0]

    def _answerable(self, fact: Fact) -> bool:
        kind, _, code = fact.target.partition(":")
        known = kind != "country" or code in ANSWER_COUNTRIES
        return known and surface(self.atlas, fact.target).lower() in self.answers

    def _draw(
        self,
        part: str,
        facts: Callable[[Atlas, Draft], Iterator[Fact]],
        share: dict[str, float],
        rng: random.Random,
        fit: Callable[[Fact], bool] = lambda fact: True,
    ) -> list[Fact]:
        """Facts of a split by the shares of their relations; at most two of one entity."""
        left = Counter({r: round(s * SIZES[part]) for r, s in share.items()})
        drawn: list[Fact] = []
        for draft in self._leaves(part, rng):
            options = [f for f in facts(self.atlas, draft) if left[f.relation] > 0 and fit(f)]
            rng.shuffle(options)
            # The rarest first, so that relations with few leaves get theirs.
            for fact in sorted(options, key=lambda f: share[f.relation])[:2]:
                left[fact.relation] -= 1
                drawn.append(fact)
        return drawn


def _typing_pattern(labels: list[str], rng: random.Random) -> str:
    """A neutral context, or one that hints at the rarest kind of label."""
    if rng.random() >= HINTED:
        return rng.choice(TYPING)
    fine = [label for label in labels if label not in ("person", "landform", "body of water")]
    return rng.choice(TYPING_HINTS[rng.choice(fine or labels)])


def _mention(span: tuple[int, int], entity: str | None, role: str) -> Record:
    return {"start": span[0], "end": span[1], "entity": entity, "role": role}


def relation_facts(atlas: Atlas, draft: Draft) -> Iterator[Fact]:
    """The facts of a leaf that are relation examples; none where two share head and tail."""
    found = list(_relation_facts(draft))
    names = Counter(surface(atlas, fact.target) for fact in found)
    # Antarctica is both a country of GeoNames and a continent.
    yield from (fact for fact in found if names[surface(atlas, fact.target)] == 1)


def _relation_facts(draft: Draft) -> Iterator[Fact]:
    kinds = {"city": "city", "region": "region", "mountain": "mountain", "river": "water",
             "lake": "water", "sea": "water"}  # fmt: skip
    facts = draft.facts
    if draft.group in kinds:
        for relation in ("country", "continent"):
            name = f"{kinds[draft.group]}-{relation}"
            if len(facts[relation]) == 1 and name in RELATION_SHARE:
                yield Fact(draft, name, facts[relation][0])
    for relation in ("homeland", "birthplace", "nation", "mythology"):
        yield from (Fact(draft, relation, target) for target in facts[relation])


def question_facts(atlas: Atlas, draft: Draft) -> Iterator[Fact]:
    """The facts of a leaf with an only answer."""
    facts = draft.facts
    place = "location" in draft.types or draft.group == "airport"
    wanted = {
        "country": facts["country"] if place else [],
        "continent": facts["continent"] if place else [],
        "currency": facts["currency"] if draft.group in ("city", "region") else [],
        "language": language_of(atlas, draft) if draft.group in ("city", "region") else [],
        "nation": facts["nation"],
        "profession": facts["profession"],
        "century": facts["century"] if draft.group == "person" else [],
        "mythology": facts["mythology"],
    }
    for relation, targets in wanted.items():
        if len(targets) == 1 and not targets[0].startswith("century:-"):
            yield Fact(draft, relation, targets[0])
