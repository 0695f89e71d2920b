"""Where entities occur in a knowledge base's own texts, each occurrence with its mention masked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kbench.data import Example
from kbench.knowledge import KnowledgeBase, Rows, first_place

__all__ = ["Draw", "Occurrences", "Wanted", "draw", "occurrences"]


@dataclass(frozen=True)
class Occurrences:
    """Mentions of entities in sentences and descriptions, those of an entity together.

    Attributes:
        texts: each once.
        rows: the entity of each, rising. ``[occurrences]``.
        places: number of the text, first character of the mention and the one after its last.
            ``[occurrences, 3]``.
        repeated: occurrences left out because their text recurs.
        unnamed: descriptions left out because no name of their entity stands in them.
    """

    texts: list[str]
    rows: Rows
    places: NDArray[np.int64]
    repeated: int
    unnamed: int = 0

    def masked(self, at: int) -> Example:
        """Returns an occurrence with one blank in the place of the whole mention."""
        text, start, end = self.places[at].tolist()
        whole = self.texts[text]
        return Example(str(at), whole[:start] + whole[end:], (), "", blank=start)

    def blocks(self, size: int) -> Iterator[NDArray[np.int64]]:
        """Yields the occurrences in blocks of about ``size`` that part no entity."""
        ends = np.append(np.flatnonzero(np.diff(self.rows)) + 1, len(self.rows))
        start = 0
        while start < len(self.rows):
            at = min(int(np.searchsorted(ends, start + size)), len(ends) - 1)
            yield np.arange(start, ends[at])
            start = int(ends[at])


def occurrences(knowledge: KnowledgeBase, *, descriptions: bool) -> Occurrences:
    """Finds the occurrences of entities in linked sentences.

    Args:
        knowledge: the texts are its true ones, whatever the control.
        descriptions: count the entity's own description too where a name of the entity stands in
            it; the first such place is the mention (:func:`kbench.knowledge.first_place`).
    """
    true = knowledge.unbroken
    numbers: dict[str, int] = {}
    places: list[tuple[int, int, int]] = []
    ids: list[str | None] = []
    for sentence in true.sentences:
        number = numbers.setdefault(sentence.text, len(numbers))
        places += [(number, mention.start, mention.end) for mention in sentence.mentions]
        ids += [mention.entity for mention in sentence.mentions]
    rows = true.rows(ids).tolist()
    everyone = np.arange(len(true) if descriptions else 0, dtype=np.int64)
    unnamed = 0
    for row in everyone[true.has_description(everyone)].tolist():
        entity = true.entity(row)
        place = first_place(entity.names, entity.description)
        if place is None:
            unnamed += 1
            continue
        number = numbers.setdefault(entity.description, len(numbers))
        places.append((number, *place))
        rows.append(row)
    every = np.column_stack(
        [np.array(rows, dtype=np.int64), np.array(places, dtype=np.int64).reshape(-1, 3)]
    )
    linked = every[every[:, 0] >= 0]
    kept = np.unique(linked, axis=0)
    return Occurrences(list(numbers), kept[:, 0], kept[:, 1:], len(linked) - len(kept), unnamed)


@dataclass(frozen=True)
class Wanted:
    """Which occurrences of an entity are read.

    Attributes:
        most: of one entity.
        shortest: tokens without specials, the mention counting as one.
        longest: likewise.
    """

    most: int
    shortest: int
    longest: int


@dataclass(frozen=True)
class Draw:
    """What was drawn of some entities' occurrences.

    Attributes:
        chosen: indices of those that are read.
        counts: what was left out, and for want of what.
    """

    chosen: NDArray[np.int64]
    counts: dict[str, int]


def draw(
    rows: Rows, lengths: NDArray[np.int64], priority: NDArray[np.int64], wanted: Wanted
) -> Draw:
    """Draws occurrences of wanted length, at most so many an entity.

    An entity that has none of wanted length keeps those of other lengths: it must not lose its
    vector by the tokenizer.

    Args:
        rows: the entity of each occurrence, rising. ``[n]``.
        lengths: its tokens. ``[n]``.
        priority: those with the smallest are drawn; random numbers, all different. ``[n]``.
        wanted: lengths and number.
    """
    short, long = lengths < wanted.shortest, lengths > wanted.longest
    _, entity, counts = np.unique(rows, return_inverse=True, return_counts=True)
    fit = ~(short | long)
    without = np.bincount(entity, weights=fit) == 0
    usable = fit | without[entity]
    order = np.lexsort((priority, ~usable, entity))
    rank = np.arange(len(rows)) - (np.cumsum(counts) - counts)[entity[order]]
    chosen = order[usable[order] & (rank < wanted.most)]
    return Draw(
        np.sort(chosen),
        {
            "corpus_occurrences_too_short": int((short & ~usable).sum()),
            "corpus_occurrences_too_long": int((long & ~usable).sum()),
            "corpus_occurrences_not_drawn": int(usable.sum()) - len(chosen),
            "corpus_occurrences_read": len(chosen),
            "corpus_entities": len(counts),
            "corpus_entities_of_other_length": int(without.sum()),
        },
    )
