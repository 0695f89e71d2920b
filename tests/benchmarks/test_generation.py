"""Answers said token by token, against what transformers has for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from kbench.data import Example
from kbench.encoding import Batch, Layout, encode
from kbench.model import LanguageModel
from kbench.model.generation import go_on
from kbench.model.huggingface import load_folder
from tests.architectures import write_decoder

from .conftest import Demands

BATCH, BATCHES, MOST = 32, 2, 15
SIZE = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 1024,
    "max_position_embeddings": 256,
    "initializer_range": 0.05,
}
NEVER = torch.empty(0, dtype=torch.int64)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_folder(write_decoder(tmp_path_factory.mktemp("llama"), "llama", **SIZE))


def batches(lm: LanguageModel) -> list[Batch]:
    """Texts of unlike length, those of like length together, as evaluation reads them."""
    rng = np.random.default_rng(0)
    words = ["river", "town", "we", "saw", "it", "near", "the", "rained"]
    texts = [" ".join(rng.choice(words, size=rng.integers(8, 40))) for _ in range(BATCH * BATCHES)]
    examples = [Example(str(n), text, (), "", blank=len(text)) for n, text in enumerate(texts)]
    layout = Layout({}, max_length=200, left_to_right=True)
    inputs = encode(lm.tokenizer, examples, [()] * len(texts), layout)
    order = np.argsort(-inputs.lengths, kind="stable")
    return [inputs.collate(order[at : at + BATCH]) for at in range(0, len(order), BATCH)]


def pushed(batch: Batch) -> tuple[Tensor, Tensor]:
    """Tokens and mask of a batch padded on the left, as transformers wants them."""
    width = batch.ids.shape[1]
    by = [width - int(n) for n in batch.mask.sum(1)]
    ids = torch.stack([row.roll(n) for row, n in zip(batch.ids, by, strict=True)])
    return ids, batch.mask.flip(1)


def test_generation(demands: Demands, lm: LanguageModel) -> None:
    ready = batches(lm)
    theirs = [pushed(batch) for batch in ready]
    lm.network.generation_config = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=MOST, eos_token_id=None, pad_token_id=1
    )

    def ours() -> list[list[int]]:
        with torch.inference_mode():
            return [row for batch in ready for row in go_on(lm, batch, MOST, NEVER)[0].tolist()]

    def library() -> list[list[int]]:
        said = []
        with torch.inference_mode():
            for ids, mask in theirs:
                whole = lm.network.generate(input_ids=ids, attention_mask=mask)
                said += whole[:, ids.shape[1] :].tolist()
        return said

    assert ours() == library()
    demands.ratio("generation", ours, library, least=0.9, against="generate of transformers")
