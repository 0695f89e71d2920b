"""Texts on entities of a small knowledge base, for tests of methods that read facts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Inputs, Layout, encode, inner_tokens
from kbench.knowledge import KnowledgeBase
from kbench.model import LanguageModel


def some_rows(knowledge: KnowledgeBase) -> list[int]:
    """Three entities with names that are heads of several facts, of unlike number."""
    counts = np.bincount(knowledge.triples[:, 0], minlength=len(knowledge))
    named = [row for row in range(len(knowledge)) if knowledge.labels[row] and counts[row] > 1]
    named.sort(key=lambda row: (counts[row], row))
    return [named[0], named[len(named) // 2], named[-1]]


def standard(vector: Tensor) -> Tensor:
    """A vector with mean 0 and variance 1."""
    return (vector - vector.mean()) / (vector.var(unbiased=False) + 1e-5).sqrt()


def words(lm: LanguageModel, text: str) -> Tensor:
    """The mean input vector of a text's tokens, standardised."""
    ids = inner_tokens(lm.tokenizer, [text])[0]
    return standard(lm.word_vectors[ids].mean(0)) if ids else torch.zeros(lm.slot_width)


def entity_of(knowledge: KnowledgeBase, lm: LanguageModel, source: str, row: int) -> Tensor:
    """What an entity of a fact is made of."""
    if source == "words":
        return words(lm, knowledge.name_of(row))
    if not knowledge.has_vector(np.array([row]))[0]:
        return torch.zeros(knowledge.dimension)
    return standard(torch.from_numpy(knowledge.vectors(np.array([row])))[0])


def inputs_of(
    lm: LanguageModel, knowledge: KnowledgeBase, slot: str | None = None, slots: int = 1
) -> tuple[Inputs, list[list[int]]]:
    """Three texts on one entity, on two and on nobody; and the rows of each."""
    one, two, three = some_rows(knowledge)
    texts = [[one], [two, three], []]
    examples = []
    for number, rows in enumerate(texts):
        text, mentions = "well " * number + "we saw it", []
        for row in rows:
            text += f" near {knowledge.labels[row]}"
            start = len(text) - len(knowledge.labels[row])
            mentions.append(Mention(start, len(text), knowledge.ids[row], Role.CONTEXT))
        blank = len(text) if lm.left_to_right else None
        examples.append(Example(str(number), text, tuple(mentions), "", blank=blank))
    layout = Layout({}, slot=slot, slots=slots, left_to_right=lm.left_to_right, room=60)
    return encode(lm.tokenizer, examples, texts, layout), texts
