"""What gold labels, types and facts say of entities: what a control that misleads must not bring.

A plug is right for the wrong reason if the entity whose knowledge it gets in place of the true one
has the same answer. So it is known of each entity which labels the examples of a task have that
ask about it, in any split, and which of these the knowledge base tells of it besides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from kbench.data import Example, Role
from kbench.knowledge.base import KnowledgeBase, Marks, Rows
from kbench.knowledge.folding import folded
from kbench.knowledge.linked import anyone, linked
from kbench.knowledge.linking import Covers

__all__ = [
    "Asked",
    "Gold",
    "Relations",
    "answers_of",
    "asked_about",
    "called",
    "has",
    "marks_of",
    "united",
]


@dataclass(frozen=True)
class Asked:
    """Examples with the entities that they ask about.

    Attributes:
        example: number of the example, rising; once for each such entity. ``[pairs]``.
        row: of the entity. ``[pairs]``.
    """

    example: Rows
    row: Rows


def asked_about(
    examples: Sequence[Example],
    knowledge: KnowledgeBase,
    linker: str,
    covers: Covers | None = None,
) -> Asked:
    """Returns the entities that examples ask about: in a role; of a question all that are linked.

    Args:
        examples: as a task gives them.
        knowledge: the true one.
        linker: of the run.
        covers: whether something can be said of each row; default: of all.
    """
    texts, links = linked(examples, knowledge, linker, covers or anyone)
    found = []
    for number, (text, rows) in enumerate(zip(texts, links.rows, strict=True)):
        roles = any(mention.role != Role.CONTEXT for mention in text.mentions)
        about = {
            row
            for mention, row in zip(text.mentions, rows, strict=True)
            if row >= 0 and (mention.role != Role.CONTEXT or not roles)
        }
        found += [(number, row) for row in sorted(about)]
    return Asked(*np.array(found, dtype=np.int64).reshape(-1, 2).T)


@final
class Gold:
    """The gold labels and types of entities, and who else would tell them: their marks.

    A type that is called as a label is one mark with it. A type that every entity has of which any
    is known says nothing, and is left out; so are a label of all that are asked about, and labels
    that say that nothing holds.

    Args:
        knowledge: the true one.
        examples: of all splits.
        linker: of the run.
        null: labels that say that nothing holds.
    """

    def __init__(
        self,
        knowledge: KnowledgeBase,
        examples: Sequence[Example] = (),
        linker: str = "gold",
        null: Collection[str] = (),
    ) -> None:
        self._knowledge = knowledge
        self._examples = [*examples, *_supports(examples)]
        self._linker = linker
        self._null = frozenset(null)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The number of each mark, by its folded name: types, then labels as examples have them.

        Partners are drawn by numbers, so they must not hang on what was asked for first, nor on
        the order of a set: else a control is another one after other runs in the same process.
        """
        labels = (label for e in self._examples for label in e.labels)
        names = (*self._knowledge.types.names, *(name for name in labels if name not in self._null))
        return {name: at for at, name in enumerate(dict.fromkeys(map(folded, names)))}

    @cached_property
    def types(self) -> Marks:
        """The types of all entities."""
        types = self._knowledge.types
        numbers = np.array([self._number(name) for name in types.names], dtype=np.int64)
        everyone = int(np.count_nonzero(np.diff(types.row, prepend=-1)))
        return self._marks(*_telling(types.row, numbers[types.number], everyone))

    @cached_property
    def labels(self) -> Marks:
        """The gold labels of the entities that examples ask about."""
        everyone = len({row for _, row in self._pairs})
        return self._marks(*_telling(*self._asked, everyone))

    @cached_property
    def told(self) -> Marks:
        """The gold labels that the knowledge of each entity would tell.

        Its own; where a label names a relation, those of the facts that it is in; where it is the
        answer to a question, those of whom it shares a fact with, and of itself.
        """
        head, relation, tail = self._knowledge.triples.astype(np.int64).T
        fact, label = _looked_up(*self._of_relations, relation)
        rows = [self.labels.row, head[fact], tail[fact]]
        numbers = [self.labels.number, label, label]
        answer, named = self._of_answers
        for one, other in ((head, tail), (tail, head)):
            fact, label = _looked_up(answer, named, other)
            rows.append(one[fact])
            numbers.append(label)
        every = np.concatenate([*rows, answer]), np.concatenate([*numbers, named])
        kept = np.isin(every[1], self.labels.number)
        return self._marks(*_distinct(every[0][kept], every[1][kept]))

    @cached_property
    def answers(self) -> Mapping[int, Collection[str]]:
        """The folded answers to the questions about each entity, for texts that may name them."""
        answers: dict[int, set[str]] = defaultdict(set)
        for example, row in self._pairs:
            answers[row].update(map(folded, answers_of(self._examples[example])))
        return answers

    def of(self, example: Example) -> NDArray[np.int64]:
        """Returns the labels of an example, by their numbers in :attr:`labels`."""
        numbers = [self._number(label) for label in example.labels if label not in self._null]
        return np.array(numbers, dtype=np.int64)

    @cached_property
    def _pairs(self) -> list[tuple[int, int]]:
        asked = asked_about(self._examples, self._knowledge, self._linker)
        return [*zip(asked.example.tolist(), asked.row.tolist(), strict=True)]

    @cached_property
    def _asked(self) -> tuple[Rows, Rows]:
        """Entities and their labels, as often as examples have them."""
        own = [self.of(example) for example in self._examples]
        found = [(row, number) for at, row in self._pairs for number in own[at].tolist()]
        rows, numbers = np.array(found, dtype=np.int64).reshape(-1, 2).T
        return rows, numbers

    @cached_property
    def _of_relations(self) -> tuple[Rows, Rows]:
        """Relations, rising, and the labels that name them."""
        named, relations = set[tuple[int, int]](), Relations(self._knowledge)
        for label in {e.label for e in self._examples if isinstance(e.label, str)} - self._null:
            named |= {(relation, self._number(label)) for relation in relations.of(label)}
        kinds, numbers = np.array(sorted(named), dtype=np.int64).reshape(-1, 2).T
        return kinds, numbers

    @cached_property
    def _of_answers(self) -> tuple[Rows, Rows]:
        """Entities that are called as an answer is, rising, and the answer."""
        answers = {answer for example in self._examples for answer in answers_of(example)}
        found = called(answers, self._knowledge)
        named = {(row, self._number(name)) for name, rows in found.items() for row in rows}
        rows, numbers = np.array(sorted(named), dtype=np.int64).reshape(-1, 2).T
        return rows, numbers

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(folded(name), len(self._numbers))

    def _marks(self, rows: Rows, numbers: Rows) -> Marks:
        return Marks(rows, numbers, [*self._numbers])


def marks_of(marks: Marks, rows: Rows) -> tuple[Rows, Rows]:
    """Returns the place in ``rows`` and the number, for every mark of each row."""
    return _looked_up(marks.row, marks.number, rows)


def has(marks: Marks, rows: Rows, numbers: Rows) -> NDArray[np.bool_]:
    """Returns whether each row has the mark beside it; marks are rising, as of :class:`Gold`."""
    width = 1 + max(int(marks.number.max(initial=0)), int(numbers.max(initial=0)))
    known, asked = marks.row * width + marks.number, rows * width + numbers
    place = np.searchsorted(known, asked)
    found = np.zeros(len(asked), dtype=bool)
    inside = place < len(known)
    found[inside] = known[place[inside]] == asked[inside]
    return found


def united(one: Marks, other: Marks) -> Marks:
    """Returns the marks that entities have in one or the other, of the same numbers."""
    rows, numbers = np.append(one.row, other.row), np.append(one.number, other.number)
    return Marks(*_distinct(rows, numbers), other.names)


def answers_of(example: Example) -> Collection[str]:
    """Returns the answers of a question; nothing else has any."""
    if example.blank is None:
        return ()
    return example.labels


def called(names: Iterable[str], knowledge: KnowledgeBase) -> Mapping[str, Sequence[int]]:
    """Returns all entities that have one of some names, by the folded name."""
    wanted = {folded(name) for name in names if name.strip()}
    found: dict[str, list[int]] = defaultdict(list)
    for row, name, _ in knowledge.named(wanted) if wanted else ():
        if row not in (rows := found[folded(name)]):
            rows.append(row)
    return found


@final
class Relations:
    """Relations by their ids, else by their texts, which several may share."""

    def __init__(self, knowledge: KnowledgeBase) -> None:
        self._ids = {name: [number] for number, name in enumerate(knowledge.relations)}
        self._texts: dict[str, list[int]] = defaultdict(list)
        for number, text in enumerate(knowledge.relations.values()):
            self._texts[folded(text)].append(number)

    def of(self, label: object) -> list[int]:
        """Returns the numbers of the relations that a label names; none if it names no one."""
        if not isinstance(label, str) or not label:
            return []
        return self._ids.get(label) or self._texts.get(folded(label), [])


def _supports(examples: Iterable[Example]) -> Iterator[Example]:
    """Yields the labelled examples that stand beside few-shot ones, each once."""
    known: set[str] = set()
    for example in examples:
        for candidate in example.candidates:
            for support in candidate.support:
                if support.id not in known:
                    known.add(support.id)
                    yield support


def _telling(rows: Rows, numbers: Rows, everyone: int) -> tuple[Rows, Rows]:
    """Leaves out what each of two and more entities has; each pair once, rising."""
    rows, numbers = _distinct(rows, numbers)
    kinds, often = np.unique(numbers, return_counts=True)
    kept = ~np.isin(numbers, kinds[often == everyone]) if everyone > 1 else slice(None)
    return rows[kept], numbers[kept]


def _distinct(rows: Rows, numbers: Rows) -> tuple[Rows, Rows]:
    """Returns each pair once, rising; by sorting, for a table of hashes is many times slower."""
    width = int(numbers.max(initial=0)) + 1
    pairs = np.sort(rows * width + numbers)
    new = np.ones(len(pairs), dtype=bool)
    new[1:] = pairs[1:] != pairs[:-1]
    return np.divmod(pairs[new], width)


def _looked_up(keys: Rows, values: Rows, asked: Rows) -> tuple[Rows, Rows]:
    """Returns the place in ``asked`` and the value, for every value of each key that is asked."""
    start, end = (np.searchsorted(keys, asked, side) for side in ("left", "right"))
    several = end - start
    at = np.repeat(np.arange(len(asked)), several)
    own = np.arange(len(at)) - np.repeat(np.cumsum(several) - several, several)
    return at, values[start[at] + own]
