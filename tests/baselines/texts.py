"""Texts on entities of a small knowledge base, for tests of methods that read facts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Inputs, Layout, encode, inner_tokens
from kbench.knowledge import KnowledgeBase
from kbench.method import Plug
from kbench.model import LanguageModel, digest
from kbench.model.huggingface import load_folder
from tests.architectures import write, write_decoder

ROOM = 160
"""Positions of the networks that read whole texts of entities."""


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


def reader(folder: Path, name: str) -> LanguageModel:
    """A random network of an architecture with room for the texts of entities."""
    if name == "bert":
        return load_folder(write(folder, name, max_position_embeddings=ROOM))
    positions = "n_positions" if name == "gpt2" else "max_position_embeddings"
    return load_folder(write_decoder(folder, name, **{positions: ROOM}))


def check_slots_alone(
    lm: LanguageModel, knowledge: KnowledgeBase, plug: Plug, slot: str, slots: int
) -> None:
    """Holds that a plug with slots changes texts that have some and no other, nor for long."""
    inputs, texts = inputs_of(lm, knowledge, slot, slots)
    plain, _ = inputs_of(lm, knowledge)
    nobody = np.array([2])
    base, weights = lm(plain.collate(nobody)), digest(lm)
    batch = inputs.collate(np.arange(3))
    assert len(batch.slot_rows) == slots * sum(map(len, texts))
    with plug.attach(lm):
        assert torch.equal(lm(inputs.collate(nobody)), base)
        together = lm(batch)
        for row in range(3):
            alone = lm(inputs.collate(np.array([row])))[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, rtol=1e-4, atol=1e-4)
        assert not lm.looks_ahead
    assert torch.equal(lm(plain.collate(nobody)), base)
    assert digest(lm) == weights
