"""Queries of an episode behind its supports: these read once for all, or with each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Demonstrations, Inputs, Layout, Tree, Trees, encode
from kbench.model import LanguageModel
from kbench.model.beginnings import read, sharing
from kbench.model.candidates import log_likelihoods
from kbench.model.huggingface import load_folder
from tests.architectures import write_decoder

from .conftest import Demands
from .test_generation import SIZE

QUERIES, SUPPORTS, WORDS, CLASSES = 25, 25, 5, 5
"""5-way 5-shot: five relations, five sentences of each, and five to be told of each."""


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    size = {**SIZE, "max_position_embeddings": 1024}
    return load_folder(write_decoder(tmp_path_factory.mktemp("llama"), "llama", **size))


def texts(lm: LanguageModel, number: int, rows: np.ndarray) -> Inputs:
    """Texts of random words, each with an entity that has a slot."""
    rng = np.random.default_rng(number)
    words = ["river", "town", "we", "saw", "it", "near", "the", "rained"]
    examples = []
    for at in range(number):
        text = f"istanbul {' '.join(rng.choice(words, size=WORDS))}"
        mention = Mention(0, len("istanbul"), "Q1", Role.TARGET)
        examples.append(Example(str(at), text, (mention,), "", blank=len(text)))
    layout = Layout({}, slot="{slot} / {mention}", max_length=200, left_to_right=True)
    return encode(lm.tokenizer, examples, [[int(row)] for row in rows], layout)


def test_episode(demands: Demands, lm: LanguageModel) -> None:
    shown = texts(lm, SUPPORTS, np.arange(SUPPORTS))
    inputs = texts(lm, QUERIES, np.arange(QUERIES) % 7)
    inputs = Demonstrations(lm.tokenizer, shown).before(inputs, 1000)
    rng = np.random.default_rng(2)
    tree = Tree.of([rng.integers(10, 60, size=3).tolist() for _ in range(CLASSES)])
    assert int(inputs.lengths.max()) < 1000, "no support is left out"
    trees = Trees(inputs, (tree,), np.zeros(QUERIES, dtype=np.int64))
    batch = trees.collate_sequences(np.arange(QUERIES))
    table = torch.randn(SUPPORTS, lm.slot_width, generator=torch.Generator().manual_seed(1))
    steps = batch.tree
    assert steps is not None

    def said(reading: Callable[[], Tensor]) -> Tensor:
        with torch.inference_mode(), lm.slots(lambda rows: table[rows]):
            return log_likelihoods(lm, reading(), batch)

    def once() -> Tensor:
        with sharing(lm):  # what was read before is forgotten
            return said(lambda: read(lm, batch, steps.states))

    def each() -> Tensor:
        return said(lambda: lm(batch, steps.states))

    assert torch.allclose(once(), each(), rtol=1e-5, atol=1e-5)
    demands.ratio(
        "queries of an episode (decoder)",
        once,
        each,
        least=5,
        against="supports read with each query",
    )
