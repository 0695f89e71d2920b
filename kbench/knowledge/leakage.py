"""How much of a test set is in the knowledge base already.

A vector trained on the very fact that a test sentence expresses, or a plug trained on the very
sentence, may tell the answer instead of helping to find it. That is no fault of a method, and on
some tasks it is the point; but whoever reads a gain must know. So every result with knowledge
counts the test examples whose marked pair, whose fact or whose sentence the knowledge base holds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from kbench.data import Example, Role
from kbench.knowledge.base import KnowledgeBase, Rows
from kbench.knowledge.folding import folded

__all__ = ["fingerprint", "leakage", "marked_rows"]

_NO_WORD = re.compile(r"[\W_]+")


def leakage(examples: Sequence[Example], knowledge: KnowledgeBase) -> dict[str, int]:
    """Counts the examples that a knowledge base knows something of that it better did not.

    Args:
        examples: of a test split.
        knowledge: the true one.

    Returns:
        ``test_pairs_in_knowledge``: a triple joins the example's head and tail, in either order.
        ``test_facts_in_knowledge``: a triple says that head and tail have the very relation that
        is the example's label. ``test_sentences_in_corpus``: the text is a sentence of the
        corpus, punctuation, case and blanks apart.
    """
    held = _held(knowledge)
    heads, tails = marked_rows(examples, knowledge)
    relation = {name: number for number, name in enumerate(knowledge.relations)}
    labels = np.array(
        [relation.get(str(example.label), -1) for example in examples], dtype=np.int64
    )
    linked = (heads >= 0) & (tails >= 0)
    pairs = held.joins(heads, tails) | held.joins(tails, heads)
    return {
        "test_pairs_in_knowledge": int((linked & pairs).sum()),
        "test_facts_in_knowledge": int((linked & held.states(heads, labels, tails)).sum()),
        "test_sentences_in_corpus": sum(fingerprint(e.text) in held.sentences for e in examples),
    }


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


def marked_rows(examples: Sequence[Example], knowledge: KnowledgeBase) -> tuple[Rows, Rows]:
    """Returns the rows of head and tail; -1 where there is no such mention or no link."""
    # Of several mentions of a role the first counts.
    marked = [{m.role: m.entity for m in reversed(example.mentions)} for example in examples]
    heads, tails = ([ends.get(role) for ends in marked] for role in (Role.HEAD, Role.TAIL))
    return knowledge.rows(heads), knowledge.rows(tails)


def fingerprint(text: str) -> bytes:
    """Returns eight bytes that stand for the words of a sentence, whatever is between them."""
    words = " ".join(_NO_WORD.sub(" ", folded(text)).split())
    return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).digest()


_known: WeakKeyDictionary[KnowledgeBase, _Held] = WeakKeyDictionary()


def _held(knowledge: KnowledgeBase) -> _Held:
    if knowledge not in _known:
        _known[knowledge] = _Held(knowledge)
    return _known[knowledge]
