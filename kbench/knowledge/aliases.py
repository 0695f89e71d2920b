"""Mentions found by name: an Aho-Corasick dictionary of the names in a knowledge base.

For data without links. It is a simple linker and says so: names are compared folded
(:mod:`kbench.knowledge.folding`), the longest wins, and of several entities of one name the most
popular, that is the one in most facts. A name of two or three capitals (EU, USA) is found where it
is written so, for mostly it is another word: CAN is Canada, can is not. How many mentions were
ambiguous is in every result.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import final
from weakref import WeakKeyDictionary

import numpy as np

from kbench.data import Example, Mention, Role
from kbench.knowledge.base import KnowledgeBase
from kbench.knowledge.folding import Folded, folded
from kbench.knowledge.names import is_capitals, shortest, stands

__all__ = ["Aliases", "Dictionary", "NameMatch", "aliases_of"]

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


@dataclass(frozen=True, slots=True)
class NameMatch:
    """A name in a text.

    Attributes:
        start: first character.
        end: character after the last.
        row: the entity, the most popular of that name.
        ambiguous: whether others have the name too.
    """

    start: int
    end: int
    row: int
    ambiguous: bool


@final
class Dictionary:
    """Names looked for in a text all at once, however many they are (Aho and Corasick, 1975).

    Args:
        names: folded.
    """

    def __init__(self, names: Iterable[str]) -> None:
        import ahocorasick

        self._automaton = ahocorasick.Automaton()
        for name in names:
            self._automaton.add_word(name, name)
        self._automaton.make_automaton()

    def find(self, text: str) -> Iterator[tuple[str, int, int, tuple[int, int]]]:
        """Yields the names that stand as whole words, also in each other.

        Args:
            text: as it was written.

        Yields:
            Each name, where it begins and ends in the folded text, and in the text as it was.
        """
        if not len(self._automaton):
            return
        whole = Folded.of(text)
        folds = whole.text
        for last, name in self._automaton.iter(folds):
            start, end = last + 1 - len(name), last + 1
            # Most are parts of longer words, which shows at a glance in ASCII.
            if start and folds[start - 1] in _PLAIN and name[0] in _PLAIN:
                continue
            if folds[end : end + 1] in _PLAIN and name[-1] in _PLAIN:
                continue
            if stands(folds, start, end) and (place := whole.span(start, end)):
                yield name, start, end, place


@final
class Aliases:
    """The names of a knowledge base.

    Args:
        knowledge: gives labels, aliases and facts.
    """

    def __init__(self, knowledge: KnowledgeBase) -> None:
        popularity = knowledge.degrees.tolist()
        self._known: dict[str, tuple[int, bool]] = {}
        self._written: dict[str, tuple[int, bool]] = {}
        self._capitals: dict[str, tuple[int, bool]] = {}
        for row, names in enumerate(knowledge.each_name()):
            keys = {name: folded(name) for name in names}
            for key in {*keys.values()}:
                _add(self._known, key, row, popularity)
            for key in {key for name, key in keys.items() if not is_capitals(name)}:
                if len(key) >= shortest(key):
                    _add(self._written, key, row, popularity)
            for name in filter(is_capitals, names):
                _add(self._capitals, _composed(name), row, popularity)
        self._in_capitals = {*map(folded, self._capitals)}
        self._names = Dictionary(chain(self._written, self._in_capitals))

    def lookup(self, name: str) -> tuple[int, bool]:
        """Returns the entity of a name, -1 if nobody is called so, and whether others share it."""
        return self._known.get(folded(name.strip()), (-1, False))

    def find(self, text: str) -> list[NameMatch]:
        """Returns the names in a text that stand as whole words, the longest of what overlaps."""
        spans = sorted(self._spans(text), key=lambda span: (span[0] - span[1], span[0]))
        taken = np.zeros(max((span[1] for span in spans), default=0), dtype=bool)
        matches = []
        for start, end, place, entity in spans:
            if not taken[start:end].any():
                taken[start:end] = True
                matches.append(NameMatch(*place, *entity))
        return sorted(matches, key=lambda match: match.start)

    def _spans(self, text: str) -> Iterator[tuple[int, int, tuple[int, int], tuple[int, bool]]]:
        """Yields where names stand in a folded text and in the text, and whose they are."""
        for name, start, end, place in self._names.find(text):
            entity = self._written.get(name)
            if name in self._in_capitals:  # else what is written is looked at for nothing
                entity = self._capitals.get(_composed(text[slice(*place)]), entity)
            if entity:
                yield start, end, place, entity

    def linked(
        self, examples: Sequence[Example], knowledge: KnowledgeBase
    ) -> tuple[list[Example], int]:
        """Links mentions without an id by their text, and adds the names that no mention covers.

        Args:
            examples: the examples; mentions that have an id keep it.
            knowledge: whose names these are.

        Returns:
            The examples with their links, what was added as context; and how many of the links
            made here are ambiguous.
        """
        done, ambiguous = [], 0
        for example in examples:
            mentions = list(example.mentions)
            for at, mention in enumerate(mentions):
                if mention.entity is not None:
                    continue
                row, several = self.lookup(example.text[mention.start : mention.end])
                if row >= 0:
                    mentions[at] = replace(mention, entity=knowledge.entity(row).id)
                    ambiguous += several
            for name in self.find(example.text):
                if not _covered(name, example.mentions, example.blank):
                    entity = knowledge.entity(name.row).id
                    mentions.append(Mention(name.start, name.end, entity, Role.CONTEXT))
                    ambiguous += name.ambiguous
            done.append(replace(example, mentions=tuple(mentions)))
        return done, ambiguous


def _covered(name: NameMatch, mentions: Iterable[Mention], blank: int | None) -> bool:
    """Whether a name overlaps a mention, or the place of the answer parts it."""
    within = blank is not None and name.start < blank < name.end
    return within or any(m.start < name.end and name.start < m.end for m in mentions)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFKC", name)


def _add(
    known: dict[str, tuple[int, bool]], name: str, row: int, popularity: Sequence[int]
) -> None:
    """Adds an entity of a name; of several the most popular stays, of equals the first."""
    best, ambiguous = known.get(name, (row, False))
    better = popularity[row] > popularity[best]
    known[name] = (row if better else best, ambiguous or best != row)


_made: WeakKeyDictionary[KnowledgeBase, Aliases] = WeakKeyDictionary()


def aliases_of(knowledge: KnowledgeBase) -> Aliases:
    """Returns the names of a knowledge base, collected once."""
    if knowledge not in _made:
        _made[knowledge] = Aliases(knowledge)
    return _made[knowledge]
