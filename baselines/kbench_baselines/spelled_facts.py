"""Relation classification over the facts that sentences spell out: K-Adapter's factual objective.

A sentence that links the head and the tail of a triple is an example of its relation, once for
each such pair of mentions. Markers stand around both, ``@ head @`` and ``# tail #``, and the
relation is read from a marker of each: its own, also where one of the two lies within the other.
It is the first, as published; in a backbone that reads from left to right, where that has not seen
its mention, the second. For a sign that the vocabulary lacks another takes its place
(:func:`kbench.encoding.known_markers`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.data import Example, Mention, Role
from kbench.encoding import Batch, Inputs, Layout, encode, known_markers, known_words
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase, Spelled
from kbench.model import LanguageModel

__all__ = ["FactHead", "SpelledFacts", "fact_counts", "spelled_facts"]

_MARKERS: Mapping[Role, str] = {Role.HEAD: "@", Role.TAIL: "#"}


@dataclass(frozen=True)
class SpelledFacts:
    """Facts in sentences, as training data.

    Attributes:
        inputs: a sentence for each fact of a kept relation, its mentions head and tail. All of them
            may be read: what is too long, or whose mentions have no token, is none of them.
        targets: class of each fact's relation. ``[inputs]``.
        relations: number of classes.
        counts: what was kept and dropped.
    """

    inputs: Inputs
    targets: NDArray[np.int64]
    relations: int
    counts: dict[str, int]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each fact. ``[inputs]``."""
        return self.inputs.lengths

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a padded batch with targets; its mentions are head and tail by turns."""
        return self.inputs.collate(chosen, self.targets)


def fact_counts(knowledge: KnowledgeBase, without: Collection[str] = ()) -> NDArray[np.int64]:
    """Returns how many facts of each relation a knowledge base's sentences spell out.

    Args:
        knowledge: gives the facts.
        without: ids of relations that do not count.

    Raises:
        Unsupported: there are no facts of two relations to tell apart.
    """
    spelled = knowledge.spelled
    often = np.bincount(spelled.relation, minlength=len(knowledge.relations))
    often[[relation in without for relation in knowledge.relations]] = 0
    if np.count_nonzero(often) < 2:
        raise Unsupported(
            "factual pre-training needs triples and sentences with linked mentions that spell out "
            f"facts of two relations; knowledge base {knowledge.name} spells out {len(spelled)} "
            f"facts of {np.count_nonzero(often)}"
        )
    return often


def spelled_facts(
    lm: LanguageModel,
    knowledge: KnowledgeBase,
    *,
    max_length: int,
    least: int,
    without: Collection[str] = (),
) -> SpelledFacts:
    """Encodes the facts that a knowledge base's sentences spell out.

    Args:
        lm: its tokenizer is used.
        knowledge: gives the facts.
        max_length: longest usable input in tokens, specials and markers included.
        least: relations with fewer facts are dropped; where only one relation or none has as
            many, those are kept that have as many as the second most frequent.
        without: ids of relations that are dropped in any case.

    Raises:
        Unsupported: there are no facts of two relations to tell apart, or the tokenizer knows no
            two markers.
    """
    spelled = knowledge.spelled
    often = fact_counts(knowledge, without)
    second = int(np.sort(often)[-2])
    kept = often >= min(least, second)
    chosen = np.flatnonzero(kept[spelled.relation])
    inputs = _encoded(lm, knowledge, spelled, chosen, max_length)
    fits = inputs.lengths <= max_length
    usable = fits & (inputs.spans[:, 1].reshape(-1, 2) > 0).all(1)
    if not usable.any():
        raise Unsupported(
            f"knowledge base {knowledge.name} has no usable sentence: all {len(chosen)} that spell "
            f"out a fact are longer than {max_length} tokens"
        )
    counts = {
        "corpus_facts": len(spelled),
        "corpus_facts_of_rare_relations": len(spelled) - len(chosen),
        "corpus_facts_too_long": int((~fits).sum()),
        "corpus_relations": int(kept.sum()),
    }
    if not usable.all():
        chosen = chosen[usable]
        inputs = _encoded(lm, knowledge, spelled, chosen, max_length)
    targets = np.cumsum(kept)[spelled.relation[chosen]] - 1
    return SpelledFacts(inputs, targets, counts["corpus_relations"], counts)


def _encoded(
    lm: LanguageModel,
    knowledge: KnowledgeBase,
    spelled: Spelled,
    chosen: NDArray[np.int64],
    max_length: int,
) -> Inputs:
    corpus = knowledge.sentences
    examples = []
    for fact in chosen.tolist():
        sentence = corpus[int(spelled.sentence[fact])]
        ends = ((Role.HEAD, spelled.head[fact]), (Role.TAIL, spelled.tail[fact]))
        mentions = [(sentence.mentions[int(number)], role) for role, number in ends]
        pair = tuple(Mention(m.start, m.end, m.entity, role) for m, role in mentions)
        examples.append(Example(str(fact), sentence.text, pair, ""))
    markers = known_markers(lm.tokenizer, _MARKERS)
    if len(known_words(lm.tokenizer, markers.values())) < len(markers):
        raise Unsupported(
            "factual pre-training needs two markers, and the backbone's tokenizer knows no two "
            "signs that could be"
        )
    layout = Layout(markers=markers, max_length=max_length, truncate=False)
    return encode(lm.tokenizer, examples, [(-1, -1)] * len(examples), layout)


@final
class FactHead(nn.Module):
    """Dense, dropout, and logits of relations; it is thrown away with the objective.

    Args:
        width: ``H``, of a token's features.
        relations: classes.
        dropout: rate.
    """

    def __init__(self, width: int, relations: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, relations)

    def loss(self, lm: LanguageModel, features: Tensor, batch: Batch) -> Tensor:
        """Returns the cross-entropy of the relations, a scalar.

        Args:
            lm: says at which of its markers a mention is read.
            features: of every token, ``[batch, tokens, H]``.
            batch: of :class:`SpelledFacts`.
        """
        assert batch.targets is not None
        logits = self.logits(lm, features, batch)
        return F.cross_entropy(logits.float(), batch.targets)

    def logits(self, lm: LanguageModel, features: Tensor, batch: Batch) -> Tensor:
        """Reads a marker of each mention, its own. ``[batch, relations]``.

        A mention begins after its own marker and ends before it, and the markers of one within it
        are part of it.
        """
        markers = lm.telling_markers(batch.mentions)
        pair = features.flatten(0, 1)[markers].view(len(batch.ids), -1)
        logits: Tensor = self.out(self.dropout(self.dense(pair)))
        return logits
