"""Mentions found by name: an Aho-Corasick dictionary of a knowledge base's labels and aliases.

For data without links. It is a simple linker and says so: case does not count, the longest name
wins, and of several entities of one name the most popular, that is the one in most facts. How
many mentions were ambiguous is in every result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import final
from weakref import WeakKeyDictionary

import numpy as np

from kbench.data import Example, Mention, Role
from kbench.knowledge.base import KnowledgeBase

__all__ = ["Aliases", "NameMatch", "aliases_of"]

_SHORTEST = 3
"""Characters of a name that is looked for in running text: shorter ones are mostly other words."""


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
class Aliases:
    """The names of a knowledge base.

    Args:
        knowledge: gives labels, aliases and facts.
    """

    def __init__(self, knowledge: KnowledgeBase) -> None:
        import ahocorasick

        popularity = knowledge.degrees.tolist()
        self._known: dict[str, tuple[int, bool]] = {}
        names = enumerate(zip(knowledge.labels, knowledge.aliases, strict=True))
        for row, (label, aliases) in names:
            for name in {_folded(name) for name in chain([label], aliases) if name.strip()}:
                best, ambiguous = self._known.get(name, (row, False))
                # Of equals the first row stays.
                better = popularity[row] > popularity[best]
                self._known[name] = (row if better else best, ambiguous or best != row)
        self._automaton = ahocorasick.Automaton()
        for name in self._known:
            if len(name) >= _SHORTEST:
                self._automaton.add_word(name, name)
        self._automaton.make_automaton()

    def lookup(self, name: str) -> tuple[int, bool]:
        """Returns the entity of a name, -1 if nobody is called so, and whether others share it."""
        return self._known.get(_folded(name), (-1, False))

    def find(self, text: str) -> list[NameMatch]:
        """Returns the names in a text that stand as whole words, the longest of what overlaps."""
        if not len(self._automaton):
            return []
        spans = sorted(self._spans(_folded(text)), key=lambda span: (span[0] - span[1], span[0]))
        taken = np.zeros(len(text), dtype=bool)
        matches = []
        for start, end, name in spans:
            if not taken[start:end].any():
                taken[start:end] = True
                matches.append(NameMatch(start, end, *self._known[name]))
        return sorted(matches, key=lambda match: match.start)

    def _spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        for last, name in self._automaton.iter(text):
            start, end = last + 1 - len(name), last + 1
            if not (text[max(0, start - 1) : start].isalnum() or text[end : end + 1].isalnum()):
                yield start, end, name

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


def _folded(text: str) -> str:
    """The text without regard to case, sign for sign: lower case may be longer (İ, ß)."""
    return "".join(lower if len(lower := sign.casefold()) == 1 else sign for sign in text)


_made: WeakKeyDictionary[KnowledgeBase, Aliases] = WeakKeyDictionary()


def aliases_of(knowledge: KnowledgeBase) -> Aliases:
    """Returns the names of a knowledge base, collected once."""
    if knowledge not in _made:
        _made[knowledge] = Aliases(knowledge)
    return _made[knowledge]
