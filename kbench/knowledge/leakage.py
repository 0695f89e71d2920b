"""How much of a test set is in the knowledge base already.

A vector trained on the very fact that a test sentence expresses, or a plug trained on the very
sentence, may tell the answer instead of helping to find it. That is no fault of a method, and on
some tasks it is the point; but whoever reads a gain must know. So every result with knowledge
counts the test examples whose pair, whose fact or whose sentence the knowledge base holds.

Which pair that is, is known once an example is linked, by the linker of the run. Where a head and
a tail are marked it is these two. A question asks about the entities it links, and its answers are
names: each entity of such a name makes a pair with each that the question links.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from kbench.data import Example, Role
from kbench.knowledge.base import KnowledgeBase, Rows
from kbench.knowledge.folding import folded
from kbench.knowledge.gold import Relations, answers_of, called
from kbench.knowledge.linked import anyone, linked

__all__ = ["Pairs", "fingerprint", "leakage", "pairs_of"]

_NO_WORD = re.compile(r"[\W_]+")
_ANY, _NONE = -1, -2
"""In the place of a relation's number: any would tell the label; the knowledge base has none."""


@dataclass(frozen=True)
class Pairs:
    """Entities of which a fact that joins them may tell an example's label.

    Attributes:
        example: number of the example of each pair. ``[pairs]``.
        head: row of its head, or of what a question asks about. ``[pairs]``.
        tail: row of its tail, or of an entity called as an answer is. ``[pairs]``.
        relation: number of the relation that the label names; -1 for any, where a question does
            not say which it asks for; -2 where the knowledge base has none such. ``[pairs]``.
    """

    example: Rows
    head: Rows
    tail: Rows
    relation: Rows

    def __len__(self) -> int:
        return len(self.example)

    @property
    def examples(self) -> int:
        """How many examples have a pair."""
        return len(np.unique(self.example))


def leakage(
    examples: Sequence[Example], knowledge: KnowledgeBase, linker: str = "gold"
) -> dict[str, int]:
    """Counts the examples that a knowledge base knows something of that it better did not.

    Args:
        examples: of a test split.
        knowledge: the true one.
        linker: of the run.

    Returns:
        ``test_pairs_known``: examples with a pair of entities that a fact could join, see
        :func:`pairs_of`; of the others nothing can be said. ``test_pairs_in_knowledge``: a triple
        joins such a pair, in either order. ``test_facts_in_knowledge``: a triple says that head
        and tail have the very relation that is the example's label (by id, else by its text). A
        question's is its stratum, where that names a relation; else any triple that joins the
        pair tells the answer. ``test_sentences_in_corpus``: the text is a sentence of the
        corpus, punctuation, case and blanks apart.
    """
    held, pairs = _held(knowledge), pairs_of(examples, knowledge, linker)
    head, tail, relation = pairs.head, pairs.tail, pairs.relation
    joined = held.joins(head, tail) | held.joins(tail, head)
    stated = np.where(relation == _ANY, joined, held.states(head, relation, tail))
    return {
        "test_pairs_known": pairs.examples,
        "test_pairs_in_knowledge": len(np.unique(pairs.example[joined])),
        "test_facts_in_knowledge": len(np.unique(pairs.example[stated])),
        "test_sentences_in_corpus": sum(fingerprint(e.text) in held.sentences for e in examples),
    }


def pairs_of(examples: Sequence[Example], knowledge: KnowledgeBase, linker: str) -> Pairs:
    """Returns the pairs of entities whose facts may tell the labels of examples.

    An example may have none: its mentions find no entity, no entity is called as its answer is,
    or it asks for neither a relation nor an answer (typing).

    Args:
        examples: as a task gives them.
        knowledge: the true one.
        linker: of the run.

    Raises:
        UsageError: no such linker.
    """
    texts, links = linked(examples, knowledge, linker, anyone)
    asked = {answer for example in examples for answer in answers_of(example)}
    named, relations = called(asked, knowledge), Relations(knowledge)
    found: set[tuple[int, int, int, int]] = set()
    for number, (example, rows) in enumerate(zip(texts, links.rows, strict=True)):
        for head, tail, names in chain(
            _marked(example, rows, relations), _asked(example, rows, named, relations)
        ):
            found.update((number, head, tail, name) for name in names)
    return Pairs(*np.array(sorted(found), dtype=np.int64).reshape(-1, 4).T)


_Found = Iterator[tuple[int, int, Sequence[int]]]


def _marked(example: Example, rows: Sequence[int], relations: Relations) -> _Found:
    """Yields the heads and tails that an example marks: of several of a role each counts."""
    heads, tails = (
        {row for m, row in zip(example.mentions, rows, strict=True) if m.role == role and row >= 0}
        for role in (Role.HEAD, Role.TAIL)
    )
    names = relations.of(example.label) or [_NONE]
    yield from ((head, tail, names) for head in heads for tail in tails)


def _asked(
    example: Example,
    rows: Sequence[int],
    named: Mapping[str, Sequence[int]],
    relations: Relations,
) -> _Found:
    """Yields what a question links, with each entity that is called as an answer is."""
    names = relations.of(example.stratum) or [_ANY]
    for subject in {row for row in rows if row >= 0}:
        for answer in answers_of(example):
            yield from ((subject, row, names) for row in named.get(folded(answer), ()))


@final
class _Held:
    """What a knowledge base holds, for quick looking up."""

    def __init__(self, knowledge: KnowledgeBase) -> None:
        heads, relations, tails = knowledge.triples.astype(np.int64).T
        self._size, self._kinds = max(1, len(knowledge)), max(1, len(knowledge.relations))
        self._pairs = np.unique(heads * self._size + tails)
        self._facts = np.unique((heads * self._kinds + relations) * self._size + tails)
        self.sentences = {fingerprint(sentence.text) for sentence in knowledge.sentences}

    def joins(self, heads: NDArray[np.int64], tails: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.isin(heads * self._size + tails, self._pairs)

    def states(
        self, heads: NDArray[np.int64], relations: NDArray[np.int64], tails: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        facts = (heads * self._kinds + relations) * self._size + tails
        known: NDArray[np.bool_] = np.isin(facts, self._facts)
        return known & (relations >= 0)


def fingerprint(text: str) -> bytes:
    """Returns eight bytes that stand for the words of a sentence, whatever is between them."""
    words = " ".join(_NO_WORD.sub(" ", folded(text)).split())
    return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).digest()


_known: WeakKeyDictionary[KnowledgeBase, _Held] = WeakKeyDictionary()


def _held(knowledge: KnowledgeBase) -> _Held:
    if knowledge not in _known:
        _known[knowledge] = _Held(knowledge)
    return _known[knowledge]
