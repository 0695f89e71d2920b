"""Reading exercises for the embedded decoder: facts, then questions that the facts answer.

A text states facts of a few things and then asks for some of them, in the forms in which kbench
asks a decoder: a question, a sentence that the answer ends, the name with `is a`, the relation
of two names. So the network learns to take an answer from what it has read, past other facts.

The things are of two sorts. Those of WordNet come with their kind and their whole, as the
sentences of `wordnet_text` state them. Those that are made up have a name put together from
halves of WordNet's names and facts drawn at random: nothing but the text before the question can
answer what is asked of them. Words for the facts (countries, currencies, professions, ...) are
WordNet's.

A share of the exercises is *bound*: two to four things of one sort, the same facts told of each,
drawn at random for WordNet's things too, and nearly each of them asked for. What is remembered
does not help there, and neither does taking any fact of the right sort: the name alone says which.
Their answers stand between `ANSWER` marks, so that the training can ask more of them.

In two fifths of the exercises there are no sentences: a keyword stands beside the name, as in
`keyed_sentences`. A phrase between `FUSED` marks is one vector to the network, the mean of those
of its pieces.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from scripts.build_atlas.wordings import QUESTION_HINTS, QUESTIONS
from scripts.wordnet_text import NameIndex, Synset, choice, words_of

FUSED = "⟦⟧"
"""What stands before and after a phrase that is one vector."""

ANSWER = "⟪⟫"
"""What stands before and after an answer that a bound exercise asks for."""

Facts = dict[str, str]
"""Relation -> word."""

STATED: dict[str, tuple[str, ...]] = {
    "kind": ("{s} is a kind of place {o} .", "{s} is {a} {o} .", "{s} : {a} {o} ."),
    "country": (
        "{s} is in the country {o} .", "{s} is in {o} .", "{s} belongs to {o} .",
        "in {o} there is {s} .", "{o} has {s} .",
    ),
    "continent": ("{s} is on the continent {o} .", "{s} is in {o} .", "{s} is a part of {o} ."),
    "subregion": ("{s} is in the part of the world {o} .", "{s} is in {o} ."),
    "currency": (
        "{s} uses the currency {o} .", "the currency of {s} is the {o} .",
        "the money in {s} is the {o} .",
    ),
    "language": (
        "{s} has the main language {o} .", "the language of {s} is {o} .",
        "people in {s} speak {o} .",
    ),
    "hemisphere": ("{s} is in the hemisphere {o} hemisphere .",),
    "timezone": ("{s} keeps the time of {o} time .",),
    "nation": ("{s} belongs to the nation {o} .", "{s} was {o} .", "{s} is {o} by birth ."),
    "profession": (
        "{s} was by profession {o} .", "{s} was {a} {o} .", "{s} worked as {a} {o} .",
        "{s} , the {o} .",
    ),
    "century": (
        "{s} belongs to the century {o} century .", "{s} was born in the {o} century .",
        "{s} is of the {o} century .",
    ),
    "birthplace": ("{s} was born in {o} .", "{o} is the birthplace of {s} ."),
    "homeland": ("{s} came from the country {o} .", "{s} came from {o} .", "{s} lived in {o} ."),
    "field": ("{s} worked in the field of {o} .", "{s} is known for {o} ."),
    "mythology": (
        "{s} belongs to the mythology of {o} mythology .", "{s} is of {o} mythology .",
        "{s} is {a} {o} deity .", "in {o} myths there is {s} .",
    ),
    "gender": ("{s} is by gender {o} .", "{s} is {o} ."),
    "domain": ("{s} is the deity of {o} .", "{s} is the god of {o} ."),
    "whole": ("{s} is in {o} .", "{s} belongs to {o} .", "{s} is a part of {o} ."),
}  # fmt: skip
"""How a text states a fact. What comes first is how a triple of `atlas` reads."""

ASKED: dict[str, tuple[str, ...]] = {
    "kind": (
        "what is {s} ? {a} _ .", "{s} is {a} _ .", "what kind of thing is {s} ? {a} _ .",
        "{s} is an example of {a} _ .",
    ),
    "country": (
        *QUESTIONS["country"], "where is {s} ? in _ .", "{s} is in _ .",
        "who travels to {s} travels to _ .", "what country has {s} ? _ .",
    ),
    "continent": (*QUESTIONS["continent"], "on what continent is {s} ? _ ."),
    "currency": (*QUESTIONS["currency"], "what is the money of {s} ? the _ .",
                 "people in {s} pay with the _ ."),
    "language": (*QUESTIONS["language"], "what do people in {s} speak ? _ .",
                 "the language of {s} is _ ."),
    "nation": (*QUESTIONS["nation"], "of what nation was {s} ? _ .", "by birth {s} was _ ."),
    "profession": (
        *QUESTIONS["profession"], "what was {s} ? a _ .", "{s} was {a} _ .",
        "what was the work of {s} ? that of {a} _ .",
    ),
    "century": (*QUESTIONS["century"], "when was {s} born ? in the _ century ."),
    "birthplace": ("where was {s} born ? in _ .", "the birthplace of {s} is _ ."),
    "homeland": ("where did {s} come from ? from _ .", "the homeland of {s} is _ ."),
    "mythology": (*QUESTIONS["mythology"], "of which mythology is {s} ? _ .",
                  "{s} is a deity of the _ ."),
    "domain": ("{s} is the deity of _ .", "what is {s} the god of ? _ ."),
    "whole": ("where is {s} ? in _ .", "what is {s} a part of ? _ .", "{s} is in _ ."),
}  # fmt: skip
"""How a text asks for a fact; `_` is where the answer goes."""

REAL = ("kind", "whole")
"""What is told of the things of WordNet."""

TOLD = {
    "place": "{s} is {ka} {kind} in {country} , {continent} ; its currency is the {currency} .",
    "person": "{s} was {na} {nation} {profession} , born in the {century} century .",
    "deity": "{s} is {ka} {kind} of {mythology} mythology .",
}
"""One sentence for all, by the sort of the thing."""

PASSING = (
    "we read of {s} in the paper .", "{s} is the next word .", "she told me about {s} .",
    "the lesson was on {s} .", "who has not heard of {s} ?", "a picture of {s} hangs there .",
    "{s} was what they talked of .", "the answer is {s} .", "he knows {s} well .",
    "there is a page on {s} in this book .", "they saw {s} .", "{s} comes first in the list .",
)  # fmt: skip
"""Contexts that say nothing of a thing."""

PAIRS = (
    "{h} and {t} stand on one page .", "she thought of {h} and of {t} .", "{h} , {t} .",
    "he wrote {h} beside {t} .", "what has {h} to do with {t} ?", "{h} is listed with {t} .",
)  # fmt: skip
"""Contexts that say nothing of the relation of two names."""

_CENTURIES = """
first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth
fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
"""
_PLACES = """
city town region river lake mountain island airport sea village desert port state bay
"""
CENTURIES = tuple(_CENTURIES.split())
PLACES = tuple(_PLACES.split())
CONTINENTS = (
    "Africa", "Antarctica", "Asia", "Australia", "Europe", "North America", "South America",
)  # fmt: skip
SIDES = ("northern", "southern", "eastern", "western")
_NATION = re.compile(r"of or (?:relating|pertaining) to .*(?:people|inhabitants|language|culture)")


@dataclass(frozen=True)
class Thing:
    """What an exercise speaks of."""

    name: str
    sort: str
    facts: Facts


def _under(synsets: dict[str, Synset], root: str) -> list[Synset]:
    """All synsets below one, in the order of WordNet."""
    below: dict[str, list[str]] = {}
    for synset in synsets.values():
        for kind in synset.kinds + synset.instance_of:
            below.setdefault(kind, []).append(synset.id)
    found: dict[str, None] = {}
    waiting = [root]
    while waiting:
        for id in below.get(waiting.pop(), ()):
            if id not in found:
                found[id] = None
                waiting.append(id)
    return [synset for synset in synsets.values() if synset.id in found]


@dataclass
class Words:
    """Words for facts, by relation, and what names are made from: all of WordNet.

    Attributes:
        synsets: All synsets.
        common: Words that a fact may be made of.
    """

    synsets: dict[str, Synset]
    common: frozenset[str]
    by_relation: dict[str, list[str]] = field(init=False)
    halves: list[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        synsets = self.synsets
        instances = [s for s in synsets.values() if s.instance_of]
        kinds = Counter(
            synsets[id].words[0] for s in instances if s.lexfile == 18 for id in s.instance_of
        )
        countries = [s.words[0] for s in _under(synsets, "08544813-n") if s.instance_of]
        gods = [kind.split()[0] for kind in kinds if re.fullmatch("[A-Z][a-z]+ deity", kind)]
        found = {
            "kind": list(PLACES),
            "country": countries,
            "birthplace": countries,
            "homeland": countries,
            "continent": list(CONTINENTS),
            "subregion": [f"{side} {land}" for side in SIDES for land in CONTINENTS],
            "currency": _plain(_under(synsets, "13604718-n")),
            "language": _names(_under(synsets, "06904171-n")),
            "hemisphere": list(SIDES),
            "timezone": _names(s for s in instances if "national capital" in _kinds(s, synsets)),
            "nation": _names(s for s in synsets.values() if _NATION.match(s.definition)),
            "profession": [k for k, n in kinds.items() if n >= 4 and k.isalpha() and k.islower()],
            "century": list(CENTURIES),
            "field": _plain(_under(synsets, "05996646-n")),
            "mythology": gods,
            "gender": ["male", "female"],
            "domain": _plain(_under(synsets, "00029378-n")),
        }
        self.by_relation = {
            relation: [word for word in words if self.common.issuperset(words_of(word))]
            for relation, words in found.items()
        }
        words = {w for s in instances for name in s.words for w in name.split()}
        long = sorted(w for w in words if w.isalpha() and 5 <= len(w) <= 10 and w[0].isupper())
        self.halves = [(w[: len(w) // 2 + 1], w[len(w) // 2 :]) for w in long]

    def name(self, rng: random.Random) -> str:
        """A made-up name of one to three words."""
        parts = rng.choices((1, 2, 3), (12, 6, 1))[0]
        return " ".join(rng.choice(self.halves)[0] + rng.choice(self.halves)[1]
                        for _ in range(parts))  # fmt: skip

    def thing(self, rng: random.Random, sort: str = "") -> Thing:
        """A made-up thing with facts, of a sort that is given or drawn."""
        sort = sort or rng.choices(tuple(_SORTS), (6, 4, 1))[0]
        facts = {relation: rng.choice(self.by_relation[relation]) for relation in _SORTS[sort]}
        if sort == "deity":
            facts["kind"] = rng.choice(("deity", "goddess", "god"))
        return Thing(self.name(rng), sort, facts)


_SORTS = {
    "place": ("kind", "country", "continent", "subregion", "currency", "language", "hemisphere",
              "timezone"),
    "person": ("nation", "profession", "century", "birthplace", "homeland", "field"),
    "deity": ("mythology", "gender", "domain"),
}  # fmt: skip


def _kinds(synset: Synset, synsets: dict[str, Synset]) -> list[str]:
    return [synsets[id].words[0] for id in synset.instance_of]


def _plain(found: Iterable[Synset]) -> list[str]:
    """First words that are one word in small letters, each once."""
    return list(dict.fromkeys(s.words[0] for s in found if re.fullmatch("[a-z]+", s.words[0])))


def _names(found: Iterable[Synset]) -> list[str]:
    """First words that are one word with a capital letter, each once."""
    return list(dict.fromkeys(s.words[0] for s in found if re.fullmatch("[A-Z][a-z]+", s.words[0])))


def article(word: str) -> str:
    """The article before a word."""
    return "an" if word.lstrip(ANSWER)[:1].lower() in "aeiou" else "a"


def facts_of(synset: Synset, synsets: dict[str, Synset]) -> Facts:
    """The kind and the whole of a noun, as the sentences of `wordnet_text` state them."""
    kinds = synset.instance_of or synset.kinds
    firsts = {"kind": kinds[:1], "whole": synset.wholes[:1]}
    return {relation: synsets[id].words[0] for relation, ids in firsts.items() for id in ids}


def state(pattern: str, name: str, word: str) -> str:
    """A pattern with a name and a word in it."""
    return pattern.format(s=name, o=word, a=article(word))


def ask(pattern: str, name: str, word: str) -> str:
    """A question with its answer."""
    return pattern.replace("_", "{o}").format(s=name, o=word, a=article(word))


class Exercises:
    """Draws exercises.

    Args:
        words: Words for facts and names.
        things: Things of WordNet that may be spoken of.
        seed: Seed of the draws.
        real: Share of the exercises that speak of them.
        bound: Share of bound exercises.
    """

    def __init__(
        self,
        words: Words,
        things: Sequence[Thing],
        seed: int,
        real: float = 0.3,
        bound: float = 0.0,
    ) -> None:
        self.words, self.things, self.real, self.bound = words, things, real, bound
        self.rng = random.Random(f"exercises {seed}")
        facts = [(of, word) for thing in things for of, word in thing.facts.items()]
        self.facts = {of: [word for other, word in facts if other == of] for of in REAL}

    def draw(self) -> str:
        """One exercise."""
        rng = self.rng
        if self.bound and rng.random() < self.bound:
            return self._bound()
        real = rng.random() < self.real
        count = rng.choice((2, 3, 4)) if real else rng.choice((1, 1, 2, 2, 3))
        things = [rng.choice(self.things) if real else self.words.thing(rng) for _ in range(count)]
        if rng.random() < 0.4:
            return self._keyed(things[0])
        told = [(thing, self._told(thing)) for thing in things]
        lines = [line for thing, relations in told for line in self._lines(thing, relations)]
        if count > 1 and rng.random() < 0.5:
            rng.shuffle(lines)
        lead = "Background: " if rng.random() < 0.25 else ""
        return lead + " ".join([*lines, *self._asks(told)])

    def _bound(self) -> str:
        """The same facts of several things, drawn at random, and questions on most of them."""
        rng = self.rng
        count = rng.choice((1, 2, 3, 4, 4, 4))
        things = self._drawn(count) if rng.random() < self.real else self._made(count)
        relations = sorted(set(things[0].facts) & ASKED.keys())
        relations = rng.sample(relations, min(len(relations), 2, rng.randint(1, 6 // count)))
        options = [(thing, relation) for thing in things for relation in relations]
        patterns = {of: STATED[of][1 if of == "kind" else 0 :] for of in relations}
        if rng.random() < 0.4:  # all told in the same words
            patterns = {of: (rng.choice(some),) for of, some in patterns.items()}
        lines = [state(rng.choice(patterns[of]), t.name, t.facts[of]) for t, of in options]
        if rng.random() < 0.3:
            rng.shuffle(lines)
        asked = rng.sample(options, min(len(options), rng.randint(2, 5)))
        lead = "Background: " if rng.random() < 0.25 else ""
        return lead + " ".join([*lines, *(self._marked(t, of) for t, of in asked)])

    def _drawn(self, count: int) -> list[Thing]:
        """Things of WordNet with facts of others."""
        rng = self.rng
        words = {of: _distinct(rng, some, count) for of, some in self.facts.items()}
        names = [thing.name for thing in rng.sample(self.things, count)]
        return [
            Thing(name, "real", {of: some[i] for of, some in words.items()})
            for i, name in enumerate(names)
        ]

    def _made(self, count: int) -> list[Thing]:
        """Made-up things of one sort."""
        first = self.words.thing(self.rng)
        return [first, *(self.words.thing(self.rng, first.sort) for _ in range(count - 1))]

    def _marked(self, thing: Thing, relation: str) -> str:
        """A question whose answer is marked."""
        rng, word = self.rng, f"{ANSWER[0]}{thing.facts[relation]}{ANSWER[1]}"
        if relation in ("kind", "profession") and rng.random() < 0.15:
            passing = rng.choice(PASSING).format(s=thing.name)
            return f"{passing} {thing.name} is {article(word)} {word} ."
        return ask(rng.choice(ASKED[relation]), thing.name, word)

    def _told(self, thing: Thing) -> list[str]:
        """The relations that a text states."""
        most = len(thing.facts)
        return self.rng.sample(sorted(thing.facts), self.rng.randint(min(2, most), min(5, most)))

    def _lines(self, thing: Thing, relations: list[str]) -> list[str]:
        """The facts of a thing as sentences, as triples, or in one sentence."""
        rng, facts = self.rng, thing.facts
        style = rng.choice(("triples", "sentences", "sentences", "description"))
        if style == "description" and (pattern := TOLD.get(thing.sort)):
            more = {"ka": article(facts.get("kind", "")), "na": article(facts.get("nation", ""))}
            lead = f"{thing.name} : " if rng.random() < 0.3 else ""
            named = set(re.findall(r"{(\w+)}", pattern)) & facts.keys()
            relations[:] = sorted(named)
            return [lead + pattern.format(s=thing.name, **facts, **more)]
        first = style == "triples" and thing.sort != "real"
        patterns = ((STATED[r][0] if first else rng.choice(STATED[r][:]), r) for r in relations)
        return [
            state("{s} is {a} {o} ." if r == "kind" and "kind of place" in p
                  and thing.sort != "place" else p, thing.name, facts[r])
            for p, r in patterns
        ]  # fmt: skip

    def _asks(self, told: list[tuple[Thing, list[str]]]) -> Iterator[str]:
        """One to four questions, each about something that the text states."""
        rng = self.rng
        options = [(t, r) for t, relations in told for r in relations if r in ASKED]
        rng.shuffle(options)
        for thing, relation in options[: rng.choice((1, 2, 3, 4))]:
            yield self._ask(thing, relation, thing.name)

    def _ask(self, thing: Thing, relation: str, name: str) -> str:
        rng, word, turn = self.rng, thing.facts[relation], self.rng.random()
        if turn < 0.15 and relation in ("kind", "profession"):
            return f"{rng.choice(PASSING).format(s=name)} {name} is {article(word)} {word} ."
        if turn < 0.12 and relation not in ("kind", "profession"):
            pair = rng.choice(PAIRS).format(h=name, t=word)
            kind = thing.facts.get("kind", "") if thing.sort == "place" else ""
            label = f"{kind} {relation}".strip()
            return f"{pair} the relation between {name} and {word} is {label} ."
        hint = QUESTION_HINTS.get(relation, "")
        needs = set(re.findall(r"{(\w+)}", hint)) - {"s"}
        if not hint or not needs <= thing.facts.keys() or rng.random() < 0.85:
            hint = ""
        return hint.format(s=name, **thing.facts) + ask(rng.choice(ASKED[relation]), name, word)

    def _keyed(self, thing: Thing) -> str:
        """A question on a name with keywords beside it, and no sentence before."""
        rng = self.rng
        relation = rng.choice([r for r in sorted(thing.facts) if r in ASKED])
        others = [r for r in sorted(thing.facts) if r != relation]
        keys = [relation, *rng.sample(others, min(len(others), rng.choice((0, 0, 1, 2))))]
        rng.shuffle(keys)
        key = " ".join(thing.facts[r] for r in keys)
        if rng.random() < (0.3 if len(keys) == 1 else 0.7):
            key = f"{FUSED[0]}{key}{FUSED[1]}"
        elif len(keys) > 1:
            key = " / ".join(thing.facts[r] for r in keys)
        name = f"{thing.name} ( {key} )" if rng.random() < 0.3 else f"{key} / {thing.name}"
        return self._ask(thing, relation, name)


def _distinct(rng: random.Random, words: Sequence[str], count: int) -> list[str]:
    """So many words, each another."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[rng.choice(words)] = None
    return list(found)


def real_things(synsets: dict[str, Synset], held: bool) -> list[Thing]:
    """Nouns with their facts: of what is trained on, or of what is held out."""
    return [
        Thing(s.words[0], "real", facts)
        for s in synsets.values()
        if s.id.endswith("n") and (choice(f"held out {s.id}", 100) == 0) == held
        if (facts := facts_of(s, synsets))
        and (held or s.instance_of or choice(f"told {s.id}", 4) == 0)
    ]


def build_exercises(
    synsets: dict[str, Synset],
    common: frozenset[str],
    names: Iterable[str],
    count: int,
    seed: int,
    real: float = 0.3,
    bound: float = 0.0,
) -> list[str]:
    """Exercises that hold none of the names.

    Args:
        synsets: All synsets.
        common: Words that a made-up fact may be made of.
        names: Names to leave out.
        count: How many are drawn; a few less come out.
        seed: Seed of the draws.
        real: Share of those that speak of things of WordNet.
        bound: Share of bound exercises.
    """
    index = NameIndex(names)
    words, things = Words(synsets, common), real_things(synsets, held=False)
    exercises = Exercises(words, things, seed, real, bound)
    drawn = (exercises.draw() for _ in range(count))
    return [text for text in drawn if text not in index]


def common_words(sentences: Iterable[str], least: int = 8) -> frozenset[str]:
    """The words that a text holds at least `least` times."""
    counts = Counter(word for sentence in sentences for word in words_of(sentence))
    return frozenset(word for word, count in counts.items() if count >= least)


_KEY = re.compile(r"([A-Za-z]+) /|\( ([A-Za-z' -]+) \)")


def fused(sentence: str) -> str:
    """A sentence with its first keyword marked as one vector."""

    def marked(found: re.Match[str]) -> str:
        key = found[1] or found[2]
        return found[0].replace(key, f"{FUSED[0]}{key}{FUSED[1]}", 1)

    return _KEY.sub(marked, sentence, count=1)
