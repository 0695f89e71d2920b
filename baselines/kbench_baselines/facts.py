"""The facts of a knowledge base as arrays, and as texts whose values are asked for.

What several methods share that read facts and not texts: which facts an entity has, what is known
of heads, relations and tails as vectors, and an objective without a task (:func:`told_facts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kbench.corpus import MaskedMentions, NextMentions, check_masked_lm
from kbench.data import Example, Mention, Role
from kbench.encoding import Inputs, Layout, TokenKind, encode, inner_tokens, ragged, sent
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase, Rows, Vectors
from kbench.model import LanguageModel
from kbench_baselines.row_table import RowTable

__all__ = [
    "FactTable",
    "FactVectors",
    "asked_tails",
    "drawn_facts",
    "entity_width",
    "fact_texts",
    "has_facts",
    "mean_words",
    "seats",
    "tail_tokens",
    "told_facts",
]

_BLOCK = 1 << 14
"""Texts that are split into tokens at once."""


def has_facts(knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
    """Returns whether each row is the head of a fact, with names or not. ``[rows]``."""
    known: NDArray[np.bool_] = np.isin(rows, knowledge.triples[:, 0])
    return known


@final
class FactTable:
    """The facts of a knowledge base in the order of their heads.

    Args:
        knowledge: whose they are.

    Attributes:
        facts: head row, relation number, tail row. ``[facts, 3]``.
        bounds: where those of each entity begin. ``[entities + 1]``.
    """

    def __init__(self, knowledge: KnowledgeBase) -> None:
        facts = knowledge.triples
        heads = facts[:, 0]
        if not (heads[1:] >= heads[:-1]).all():  # those of a bundle are so on disk
            facts = facts[np.argsort(heads, kind="stable")]
        self.facts = facts
        counts = np.bincount(heads, minlength=len(knowledge))
        self.bounds = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])

    def __len__(self) -> int:
        return len(self.facts)

    def of(self, rows: Rows) -> tuple[Rows, Rows]:
        """Returns the numbers of the facts of entities, and the place in ``rows`` of each one's."""
        return ragged(self.bounds, rows)


def seats(owner: Rows, count: int) -> tuple[Rows, Rows]:
    """Returns which of its owner's facts each one is, and how many each owner has.

    Args:
        owner: of each fact, rising. ``[facts]``.
        count: of owners.

    Returns:
        ``[facts]``, from 0; and ``[count]``.
    """
    counts = np.bincount(owner, minlength=count)
    return np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner], counts


@final
class FactVectors:
    """What the heads, relations and tails of facts are made of, before a plug maps it.

    An entity's is its vector (``kge``), or the mean input vector of the tokens of its name
    (``words``). A relation's is that of the tokens of its label in either case: a knowledge base
    has no vectors of relations. Each is brought to mean 0 and variance 1; what there is nothing of
    has zeros. Input vectors are those of the network as it is now, also while it is tuned.

    Args:
        lm: whose input vectors of tokens they are.
        knowledge: has the facts.
        source: ``kge`` or ``words``.
        device: where the vectors go.

    Attributes:
        table: the facts.
    """

    def __init__(
        self, lm: LanguageModel, knowledge: KnowledgeBase, source: str, device: torch.device
    ) -> None:
        self.table = FactTable(knowledge)
        self._knowledge, self._device = knowledge, device
        labels, table = _labels(knowledge), lm.word_embeddings
        self._relations = RowTable(
            len(labels), partial(_named, lm, labels.__getitem__, device), table
        )
        self._names: RowTable | None = None
        if source == "words":
            named = partial(_named, lm, knowledge.name_of, device)
            self._names = RowTable(len(knowledge), named, table)

    def relations(self, numbers: Rows) -> Tensor:
        """``w`` of relations. ``[n] -> [n, W]``."""
        return self._relations.of(numbers)

    def heads(self, rows: Rows) -> Tensor:
        """``x`` of entities that facts are about, through the control. ``[n] -> [n, s]``."""
        if self._names is not None:
            return self._names.of(rows)
        return self._normed(self._knowledge.vectors_or_zeros(rows))

    def tails(self, rows: Rows) -> Tensor:
        """``x`` of entities that facts name as values, each its own. ``[n] -> [n, s]``."""
        if self._names is not None:
            return self._names.of(rows)
        return self._normed(self._knowledge.value_vectors(rows))

    def _normed(self, vectors: Vectors) -> Tensor:
        return _normed(sent(torch.from_numpy(vectors), self._device))


def _named(
    lm: LanguageModel, name_of: Callable[[int], str], device: torch.device, rows: Rows
) -> Tensor:
    return mean_words(lm, [name_of(row) for row in rows.tolist()]).to(device)


def _labels(knowledge: KnowledgeBase) -> list[str]:
    """What relations are called, by number: their label, or else their id."""
    return [label.strip() or own for own, label in knowledge.relations.items()]


def entity_width(lm: LanguageModel, knowledge: KnowledgeBase, source: str) -> int:
    """Returns ``s``, the width of :meth:`FactVectors.heads`."""
    return knowledge.dimension if source == "kge" else lm.slot_width


def mean_words(lm: LanguageModel, texts: Sequence[str]) -> Tensor:
    """Returns the mean input vector of each text's tokens, of mean 0 and variance 1.

    Args:
        lm: whose vectors of tokens they are.
        texts: as they stand after other words; one without a token has zeros.

    Returns:
        ``[texts, W]``, ``W`` being :attr:`~kbench.model.LanguageModel.slot_width`.
    """
    table = lm.word_vectors.detach().float()
    means = [table.new_zeros(0, table.shape[1])]
    for start in range(0, len(texts), _BLOCK):
        pieces = inner_tokens(lm.tokenizer, texts[start : start + _BLOCK])
        lengths = torch.tensor([0, *map(len, pieces)])
        ids = torch.tensor([token for own in pieces for token in own], dtype=torch.int64)
        starts = sent(lengths.cumsum(0)[:-1], table.device)
        means.append(F.embedding_bag(sent(ids, table.device), table, starts, mode="mean"))
    return _normed(torch.cat(means))


def _normed(vectors: Tensor) -> Tensor:
    return F.layer_norm(vectors, vectors.shape[1:])


def told_facts(
    lm: LanguageModel,
    knowledge: KnowledgeBase,
    slot: str | None,
    max_length: int,
    *,
    most: int,
    seed: int,
    slots: int = 1,
) -> MaskedMentions | NextMentions:
    """Makes texts ``head relation tail`` whose heads are linked, and whose tails are asked for.

    The tail is not linked: what is known of it says nothing here. It is masked, or what comes next,
    as the model reads; the loss is :func:`~kbench.corpus.mention_loss`. Facts come through the
    control, so that under a false one text and knowledge still agree: what is learned is to read.

    Args:
        lm: its tokenizer is used; one that reads both ways must have a masked-LM head.
        knowledge: gives the facts.
        slot: the method's slot template, or None.
        max_length: longest kept input in tokens, specials and slots included.
        most: facts; of more so many are drawn.
        seed: of what is drawn.
        slots: input vectors of an entity.

    Raises:
        Unsupported: the backbone has no masked-LM head, or no fact is usable.
    """
    chosen = drawn_facts(lm, knowledge, most, seed)
    examples, rows = fact_texts(knowledge, chosen)
    asked = asked_tails(lm, examples, rows, slot, max_length, slots=slots)
    if asked is None:
        raise Unsupported(
            f"knowledge base {knowledge.name} has no usable fact: of {len(knowledge.triples)}, "
            f"{len(chosen)} can be told, none in {max_length} tokens"
            + (f" beside {slots} slots" if slot else "")
        )
    counts = {
        "corpus_facts": len(knowledge.triples),
        "corpus_facts_too_long": len(chosen) - len(asked.sentence),
        "corpus_instances": len(asked.sentence),
    }
    return replace(asked, dropped=counts)


def drawn_facts(
    lm: LanguageModel, knowledge: KnowledgeBase, most: int, seed: int
) -> NDArray[np.int32]:
    """Returns facts whose heads and tails have names. ``[facts, 3]``; of more so many are drawn.

    Raises:
        Unsupported: the backbone reads both ways, and has no masked-LM head.
    """
    if not lm.left_to_right:
        check_masked_lm(lm)
    named = knowledge.has_name(np.arange(len(knowledge), dtype=np.int64))
    chosen = np.flatnonzero(named[knowledge.triples[:, 0]] & named[knowledge.triples[:, 2]])
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, size=most, replace=False))
    return knowledge.triples[chosen]


def asked_tails(
    lm: LanguageModel,
    examples: Sequence[Example],
    rows: Sequence[Sequence[int]],
    slot: str | None,
    max_length: int,
    *,
    slots: int = 1,
) -> MaskedMentions | NextMentions | None:
    """Encodes texts of two mentions, of which the tokens of the second are asked for.

    They are masked, or what comes next, as the model reads.

    Args:
        lm: its tokenizer is used.
        examples: the texts.
        rows: of the knowledge base, of the mentions of each.
        slot: the method's slot template, or None.
        max_length: longest kept input in tokens, specials and slots included.
        slots: input vectors of an entity.

    Returns:
        An instance for each text that is kept; None if there is none.
    """
    left = lm.left_to_right
    layout = Layout({}, slot, max_length, truncate=False, left_to_right=left, slots=slots)
    inputs = encode(lm.tokenizer, examples, rows, layout)
    usable = np.flatnonzero((inputs.lengths <= max_length) & (inputs.spans[1::2, 1] > 0))
    if not len(usable):
        return None
    asked = [tail_tokens(inputs, number) for number in usable.tolist()]
    places, bounds = np.concatenate(asked), np.cumsum([0, *map(len, asked)])
    if left:
        return NextMentions(inputs, usable, places, bounds, {})
    return MaskedMentions(inputs, usable, places, bounds, {}, int(lm.tokenizer.mask_token_id))


def tail_tokens(inputs: Inputs, number: int) -> Rows:
    """Returns where the own tokens of a text's second mention are, in the text. ``[asked]``."""
    first, end = inputs.spans[2 * number + 1].tolist()
    start = int(inputs.bounds[number])
    found: Rows = first + np.flatnonzero(
        inputs.kinds[start + first : start + end] == TokenKind.TEXT
    )
    return found


def fact_texts(
    knowledge: KnowledgeBase, facts: NDArray[np.int32]
) -> tuple[list[Example], list[tuple[int, int]]]:
    """Returns facts as texts, and the rows of their two mentions: the tail's is -1.

    Args:
        knowledge: gives the names.
        facts: head row, relation number, tail row. ``[facts, 3]``.
    """
    named = _labels(knowledge)
    examples, rows = [], []
    for number, (head, relation, tail) in enumerate(facts.tolist()):
        subject, value = knowledge.name_of(head), knowledge.name_of(tail)
        text = f"{subject} {named[relation]} {value}"
        mentions = (
            Mention(0, len(subject), None, Role.HEAD),
            Mention(len(text) - len(value), len(text), None, Role.TAIL),
        )
        examples.append(Example(str(number), text, mentions, ""))
        rows.append((head, -1))
    return examples, rows
