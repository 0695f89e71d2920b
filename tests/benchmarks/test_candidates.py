"""Eighty candidates of three tokens: beside each other in a row, a row each, and read bare."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.data import Example
from kbench.encoding import Batch, Inputs, Layout, Tree, Trees, encode
from kbench.model import LanguageModel
from kbench.model.candidates import log_likelihoods
from kbench.model.huggingface import load_folder
from kbench.model.language_model import attention_mask
from tests.architectures import write_decoder

from .conftest import Demands
from .test_generation import SIZE

TEXTS, WORDS, CANDIDATES, TOKENS, BATCH = 8, 40, 80, 3, 4


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_folder(write_decoder(tmp_path_factory.mktemp("llama"), "llama", **SIZE))


@pytest.fixture(scope="module")
def inputs(lm: LanguageModel) -> Inputs:
    rng = np.random.default_rng(0)
    words = ["river", "town", "we", "saw", "it", "near", "the", "rained"]
    texts = [" ".join(rng.choice(words, size=WORDS)) for _ in range(TEXTS)]
    examples = [Example(str(n), text, (), "", blank=len(text)) for n, text in enumerate(texts)]
    layout = Layout({}, max_length=200, left_to_right=True)
    return encode(lm.tokenizer, examples, [()] * TEXTS, layout)


@pytest.fixture(scope="module")
def spelled() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(10, 60, size=TOKENS).tolist() for _ in range(CANDIDATES)]


@pytest.fixture(scope="module")
def trees(inputs: Inputs, spelled: list[list[int]]) -> Trees:
    return Trees(inputs, (Tree.of(spelled),), np.zeros(TEXTS, dtype=np.int64))


def said(lm: LanguageModel, batch: Batch) -> Tensor:
    assert batch.tree is not None
    return log_likelihoods(lm, lm(batch, batch.tree.states), batch)


def beside(lm: LanguageModel, trees: Trees) -> Tensor:
    """As evaluation reads them, batches made along the way."""
    with torch.inference_mode():
        return torch.cat(
            [
                said(lm, trees.collate_sequences(np.arange(at, at + BATCH)))
                for at in range(0, TEXTS, BATCH)
            ]
        )


def test_a_row_each(
    demands: Demands, lm: LanguageModel, inputs: Inputs, trees: Trees, spelled: list[list[int]]
) -> None:
    behind = torch.tensor(spelled)

    def each() -> Tensor:
        """``log p(c | x)`` of the candidates of a text in one batch, the text read with each."""
        found = []
        with torch.inference_mode():
            for number in range(TEXTS):
                text = inputs.collate(np.array([number])).ids
                ids = torch.cat([text.expand(CANDIDATES, -1), behind], dim=1)
                logits = lm.network(input_ids=ids, logits_to_keep=TOKENS + 1).logits[:, :-1]
                each = logits.log_softmax(-1).gather(-1, behind[:, :, None])
                found.append(each.sum((1, 2)))
        return torch.stack(found)

    assert torch.allclose(beside(lm, trees), each(), rtol=1e-4, atol=1e-4)
    demands.ratio(
        f"{CANDIDATES} candidates of {TOKENS} tokens (decoder)",
        lambda: beside(lm, trees),
        each,
        least=8,
        rounds=3,
        against="a row each",
    )


def test_bare_loop(demands: Demands, lm: LanguageModel, trees: Trees) -> None:
    ready = []
    for at in range(0, TEXTS, BATCH):
        batch = trees.collate_sequences(np.arange(at, at + BATCH))
        assert batch.visible is not None
        assert batch.tree is not None
        mask = attention_mask(batch.visible, torch.float32)
        ready.append(
            ({"input_ids": batch.ids, "attention_mask": mask}, batch.positions, batch.tree)
        )

    def bare() -> Tensor:
        """The library's own forward pass over batches and masks that lie there, and the head."""
        found = []
        with torch.inference_mode():
            for given, positions, tree in ready:
                hidden = lm.network.model(**given, position_ids=positions).last_hidden_state
                states = hidden.flatten(0, 1).index_select(0, tree.states)
                logits = lm.network.lm_head(states).log_softmax(-1)[tree.places, tree.targets]
                total = logits.new_zeros(tree.examples * tree.candidates)
                found.append(total.index_add(0, tree.cells, logits).view(tree.examples, -1))
        return torch.cat(found)

    assert torch.allclose(beside(lm, trees), bare(), rtol=1e-4, atol=1e-4)
    demands.ratio(
        "evaluation (decoder)", lambda: beside(lm, trees), bare, least=0.9, against="bare loop"
    )
