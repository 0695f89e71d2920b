"""A knowledge base without what the tests of tasks hold, for plugs that never saw it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from kbench.data import Example
from kbench.knowledge.base import KnowledgeBase, Sentence
from kbench.knowledge.bundle import Bundle
from kbench.knowledge.leakage import Pairs, fingerprint
from kbench.knowledge.views import View
from kbench.knowledge.writing import write_bundle

__all__ = ["hold_out", "pairs_in_turn"]

_OF_CONTENT = frozenset({"schema", "files", "digest", "counts", "vectors", "published"})
"""Fields of a card that writing a bundle makes anew, or that are of the whole graph alone."""


@final
class _Without(View):
    """A knowledge base that lacks some of its facts."""

    def __init__(self, base: KnowledgeBase, kept: NDArray[np.bool_]) -> None:
        super().__init__(base, base.digest)
        self._kept = kept

    @property
    def triples(self) -> NDArray[np.int32]:
        return self.base.triples[self._kept]


def pairs_in_turn(
    bundle: Bundle, pairs: Sequence[Pairs], find: Callable[[KnowledgeBase], Sequence[Pairs]]
) -> list[Pairs]:
    """Returns the pairs of examples, and those they have when the facts of these are gone.

    Of namesakes the linker ``alias`` takes the one that is in most facts. Without some of its facts
    that may be another, which a run with the new bundle would find, and so on.

    Args:
        bundle: the whole knowledge base.
        pairs: of the examples in it.
        find: returns the pairs of the examples in another.
    """
    every, kept = [*pairs], np.ones(len(bundle.triples), dtype=bool)
    while ((joined := _joined(bundle, every)) & kept).any():
        kept = ~joined
        every += find(_Without(bundle, kept))
    return every


def hold_out(
    bundle: Bundle,
    target: Path,
    examples: Sequence[Example],
    pairs: Sequence[Pairs],
    about: dict[str, object],
) -> tuple[Bundle, dict[str, int]]:
    """Writes a bundle without the facts and sentences of some examples, and without vectors.

    A fact goes if it joins a pair, in either order and whatever its relation; a sentence if it has
    the words of an example. Vectors are left out, for they were made of the facts: train them
    again.

    Args:
        bundle: the whole knowledge base.
        target: where the other goes.
        examples: of tests (and dev splits), whose sentences go.
        pairs: theirs, linked as a run links them (:func:`kbench.knowledge.leakage.pairs_of`); where
            the linker goes by facts, :func:`pairs_in_turn`.
        about: what is recorded of them in the card.

    Returns:
        The new bundle, and how many triples and sentences it lacks.
    """
    kept = ~_joined(bundle, pairs)
    facts = bundle.triples[kept]
    known = {fingerprint(example.text) for example in examples}
    dropped = {"triples": int((~kept).sum()), "sentences": 0}

    def sentences() -> Iterator[Sentence]:
        for sentence in bundle.sentences:
            if fingerprint(sentence.text) in known:
                dropped["sentences"] += 1
            else:
                yield sentence

    def card() -> dict[str, object]:
        own = {key: value for key, value in bundle.card.items() if key not in _OF_CONTENT}
        without = {**about, **dropped, "of": bundle.digest}
        return {**own, "name": f"{bundle.name}-held-out", "held_out": without}

    ids, names = list(bundle.ids), list(bundle.relations)
    triples = ((ids[head], names[kind], ids[tail]) for head, kind, tail in facts.tolist())
    splits = None if bundle.splits is None else bundle.splits[kept].tolist()
    made = write_bundle(
        target, card, bundle.each_entity(), triples, bundle.relations, sentences(), splits=splits
    )
    return made, dropped


def _joined(bundle: Bundle, pairs: Sequence[Pairs]) -> NDArray[np.bool_]:
    """Returns whether each fact joins a pair, in either order. ``[triples]``."""
    size = max(1, len(bundle))
    ends = [(p.head, p.tail) for p in pairs] + [(p.tail, p.head) for p in pairs]
    held = np.concatenate([np.zeros(0, dtype=np.int64), *(one * size + two for one, two in ends)])
    heads, _, tails = bundle.triples.astype(np.int64).T
    return np.isin(heads * size + tails, held)
