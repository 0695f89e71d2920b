"""A small knowledge base with shared names and sentences with several links, and slow attention.

Nothing here shares code with the methods it is the truth for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kbench.data import Example, Mention
from kbench.encoding import Batch, Inputs, Layout, encode
from kbench.knowledge import Bundle, Entity, Sentence, write_bundle, write_vectors
from kbench.knowledge.linking import link
from kbench.model import LanguageModel
from kbench_baselines.attention import Attention, Block

ENTITIES = [
    Entity("Q0", "balike"),
    Entity("Q1", "vozuba"),
    Entity("Q2", "Keste"),
    Entity("Q3", "trivo"),
    Entity("Q4", "moli", aliases=("trivo",)),
    Entity("Q5", "stevo", aliases=("keste", "KESTE")),
    Entity("Q6", "zupra", aliases=("Balike", "keste")),
    Entity("Q7", "nothing known"),
    Entity("Q8", "keste"),  # without a vector
]
TRIPLES = [
    ("Q0", "r", "Q2"),
    ("Q5", "r", "Q2"),
    ("Q5", "r", "Q5"),
    ("Q6", "r", "Q1"),
    ("Q8", "r", "Q6"),
]
TEXTS: list[tuple[str, list[tuple[str, str | None]]]] = [
    ("we saw balike near vozuba today , it rained", [("balike", "Q0"), ("vozuba", "Q1")]),
    ("Keste is a red thing", [("Keste", "Q2"), ("red", None)]),
    ("nobody was there", [("nobody", None)]),
    ("the color of trivo , moli and balike is GREEN", [("trivo", "Q3"), ("balike", "Q0")]),
    ("balike balike", [("balike", "Q6")]),
    ("they spoke of stevo", [("stevo", "Q8")]),
    ("near keste , vozuba and stevo", [("keste", "Q2"), ("vozuba", "Q1"), ("stevo", "Q5")]),
]


def write_linked(folder: Path, dimension: int = 6, copies: int = 1) -> Bundle:
    """Writes the bundle: nine entities of which eight have vectors, and the texts as a corpus."""
    card = {"name": "linked", "version": "1", "licence": "none", "source": "test"}
    sentences = [Sentence(text, _mentions(text, names)) for text, names in TEXTS] * copies
    write_bundle(folder, card, ENTITIES, TRIPLES, {"r": "relates to"}, sentences)
    vectors = np.random.default_rng(0).standard_normal((len(ENTITIES), dimension))
    vectors[8] = np.nan
    return write_vectors(folder, vectors.astype(np.float32), {"model": "random"})


def _mentions(text: str, names: Sequence[tuple[str, str | None]]) -> tuple[Mention, ...]:
    return tuple(
        Mention(text.index(name), text.index(name) + len(name), entity) for name, entity in names
    )


def texts(lm: LanguageModel, knowledge: Bundle) -> Inputs:
    """Encodes the texts without markers or slots."""
    examples = [
        Example(str(number), text, _mentions(text, names), "")
        for number, (text, names) in enumerate(TEXTS)
    ]
    return encode(lm.tokenizer, examples, link(examples, knowledge).rows, Layout({}))


def whole(inputs: Inputs) -> Batch:
    """All examples in one padded batch."""
    return inputs.collate(np.arange(len(inputs)))


def links(inputs: Inputs, number: int) -> list[tuple[int, int, int]]:
    """Start, end and row of the linked mentions of an example."""
    owned = range(inputs.span_bounds[number], inputs.span_bounds[number + 1])
    return [
        (int(inputs.spans[at, 0]), int(inputs.spans[at, 1]), int(inputs.span_rows[at]))
        for at in owned
        if inputs.span_rows[at] >= 0
    ]


def ids(inputs: Inputs, number: int) -> Tensor:
    """Token ids of an example. ``[1, tokens]``."""
    return torch.from_numpy(inputs.ids[inputs.bounds[number] : inputs.bounds[number + 1]])[None]


def shaken(module: nn.Module, seed: int = 0) -> None:
    """Gives every parameter a random value, so that nothing is zero or one by chance of a start."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))


def attend(attention: Attention, queries: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """Attention, one query, head and other at a time."""
    results = []
    for state in queries:
        heads = []
        for head in range(attention.heads):
            size = len(state) // attention.heads
            part = slice(head * size, (head + 1) * size)
            query = attention.query(state)[part]
            scores = [
                sum(query[i] * attention.key(other)[part][i] for i in range(size)) / math.sqrt(size)
                for other in others
            ]
            total = sum(score.exp() for score in scores)
            heads.append(
                sum(
                    score.exp() / total * attention.value(other)[part]
                    for score, other in zip(scores, others, strict=True)
                )
            )
        results.append(normal(attention.norm, state + attention.out(torch.cat(heads))))
    return results


def transform(block: Block, queries: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """A transformer layer, one query at a time."""
    first, second = block.feed[0], block.feed[2]
    return [
        normal(block.norm, x + second(torch.nn.functional.gelu(first(x))))
        for x in attend(block.attention, queries, others)
    ]


def normal(norm: nn.LayerNorm, value: Tensor) -> Tensor:
    """Layer normalisation spelled out."""
    spread = ((value - value.mean()) ** 2).mean()
    return (value - value.mean()) / (spread + norm.eps).sqrt() * norm.weight + norm.bias
