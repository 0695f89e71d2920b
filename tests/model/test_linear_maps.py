"""Weights of low rank for each row of a batch: what merging them into the weights gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kbench.data import Example, Mention, Role
from kbench.encoding import Batch, Inputs, Layout, encode
from kbench.model import DownstreamModel, LanguageModel, digest
from kbench.model.freezing import frozen
from kbench.model.generation import go_on
from kbench.model.heads import BlankHead
from kbench.model.huggingface import load_folder
from kbench.training.tunings.lora import LoRATuning
from tests.architectures import write, write_decoder

TEXTS = ("we saw istanbul today", "near the river we saw istanbul again", "it rained")
RANK = 2
NETWORKS = ("bert", "gemma2", "gpt2", "llama", "mistral", "phi", "phi3", "qwen2", "qwen3")


@pytest.fixture(scope="module", params=NETWORKS)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    written = write if request.param == "bert" else write_decoder
    return load_folder(written(folder, request.param))


def inputs_of(lm: LanguageModel) -> Inputs:
    examples = []
    for number, text in enumerate(TEXTS):
        start = text.find("istanbul")
        mentions = (Mention(start, start + 8, "Q1", Role.TARGET),) if start >= 0 else ()
        blank = len(text) if lm.left_to_right else None
        examples.append(Example(str(number), text, mentions, "", blank=blank))
    layout = Layout({}, left_to_right=lm.left_to_right)
    return encode(lm.tokenizer, examples, [[4], [9], []], layout)


class Documents(nn.Module):
    """Factors of each of ten entities for the linear maps of all layers, attention's left out."""

    def __init__(self, lm: LanguageModel) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.factors = nn.ParameterDict()
        for layer in range(len(lm.layers)):
            for name, of in lm.linear_maps(layer).items():
                if not of.of_attention:
                    key = f"{layer}.{name}".replace(".", "/")
                    self.factors[f"{key}/down"] = torch.randn(10, RANK, of.inputs) / 4
                    self.factors[f"{key}/up"] = torch.randn(10, of.outputs, RANK) / 4

    def of(self, key: str, batch: Batch) -> tuple[Tensor, Tensor] | None:
        told, texts = batch.entities, len(batch.ids)
        if not len(told.rows):
            return None
        down, up = (
            told.seated(self.factors[f"{key}/{part}"][told.rows], texts)[0][:, 0]
            for part in ("down", "up")
        )
        return down, up

    @contextmanager
    def attached(self, lm: LanguageModel) -> Iterator[None]:
        with ExitStack() as stack:
            for layer in range(len(lm.layers)):
                for name, of in lm.linear_maps(layer).items():
                    if not of.of_attention:
                        key = f"{layer}.{name}".replace(".", "/")
                        stack.enter_context(
                            of.with_low_rank(lambda batch, key=key: self.of(key, batch))
                        )
            yield


def merged(lm: LanguageModel, documents: Documents, row: int) -> LanguageModel:
    """A copy of the network with an entity's factors multiplied into its weights."""
    copy = deepcopy(lm)
    for layer, module in enumerate(copy.layers):
        for name, of in copy.linear_maps(layer).items():
            if of.of_attention:
                continue
            key = f"{layer}.{name}".replace(".", "/")
            up, down = (documents.factors[f"{key}/{part}"][row] for part in ("up", "down"))
            part: Any = module.get_submodule(name)
            change = up @ down
            part.weight.data += change if isinstance(part, nn.Linear) else change.T
    return copy


def close(one: Tensor, other: Tensor, atol: float = 1e-5) -> None:
    most = max(1.0, float(other.abs().max()))
    torch.testing.assert_close(one, other, rtol=0, atol=atol * most)


@torch.no_grad()
def test_each_row_is_read_by_the_weights_of_its_own_entity(lm: LanguageModel) -> None:
    inputs, documents = inputs_of(lm), Documents(lm)
    batch = inputs.collate(np.arange(3))
    base, weights = lm(batch), digest(lm)
    with documents.attached(lm):
        together = lm(batch)
        alone = lm(inputs.collate(np.array([2])))[0]
    for row, entity in enumerate((4, 9)):
        single = inputs.collate(np.array([row]))
        close(together[row, : single.ids.shape[1]], merged(lm, documents, entity)(single)[0], 1e-4)
        assert (together[row] - base[row]).abs().max() > 1e-3
    length = int(batch.mask[2].sum())
    assert torch.equal(together[2, :length], base[2, :length])  # it speaks of nobody
    close(alone, base[2, : len(alone)])
    assert torch.equal(lm(batch), base)
    assert digest(lm) == weights
    assert not any(module._forward_hooks for module in lm.modules())


@torch.no_grad()
def test_cached_decoding_is_the_full_forward_pass(lm: LanguageModel) -> None:
    if not lm.left_to_right:
        return
    inputs, documents = inputs_of(lm), Documents(lm)
    never = torch.empty(0, dtype=torch.int64)
    with documents.attached(lm):
        tokens, _ = go_on(lm, inputs.collate(np.arange(3)), 5, never)
        for row in range(3):
            batch = inputs.collate(np.array([row]))
            for step in range(5):
                assert int(lm.predict_tokens(lm(batch)[0, -1:]).argmax()) == int(tokens[row, step])
                ids = torch.cat([batch.ids, tokens[row, step].view(1, 1)], 1)
                batch = replace(batch, ids=ids, mask=torch.ones_like(ids))


def test_gradients_reach_the_factors_of_those_spoken_of(lm: LanguageModel) -> None:
    documents, batch = Documents(lm), inputs_of(lm).collate(np.arange(3))
    with frozen(lm), documents.attached(lm):
        lm(batch)[:, 0, :3].sum().backward()
    for parameter in documents.parameters():
        assert parameter.grad is not None
        reached = parameter.grad.flatten(1).abs().sum(1) > 0
        assert reached.nonzero().flatten().tolist() == [4, 9]


def test_maps_are_named_and_sized_as_the_network_has_them(lm: LanguageModel) -> None:
    maps = lm.linear_maps(-1)
    assert any(of.of_attention for of in maps.values())
    assert any(not of.of_attention for of in maps.values())
    state = torch.randn(1, 2, 1)
    for name, of in maps.items():
        assert name == of.name
        given = lm.layers[-1].get_submodule(name)(state.expand(1, 2, of.inputs).contiguous())
        assert given.shape == (1, 2, of.outputs)


def test_factors_of_another_batch_are_refused(lm: LanguageModel) -> None:
    of = next(iter(lm.linear_maps(0).values()))
    wrong = torch.zeros(2, RANK, of.inputs), torch.zeros(2, of.outputs, RANK)
    with (
        of.with_low_rank(lambda batch: wrong),
        pytest.raises(RuntimeError, match="factors for 2 rows"),
    ):
        lm(inputs_of(lm).collate(np.arange(3)))


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_a_map_that_lora_tunes_is_the_map_that_it_was(family: str, tmp_path: Path) -> None:
    """A general plug stands beside a tuned model; what tunes it is no map of its own."""
    written = write if family == "bert" else write_decoder
    lm = load_folder(written(tmp_path, family))
    before = [{n: (m.inputs, m.outputs) for n, m in lm.linear_maps(at).items()} for at in (0, -1)]
    documents, batch = Documents(lm), inputs_of(lm).collate(np.arange(len(TEXTS)))
    with torch.no_grad(), documents.attached(lm):
        wanted = lm(batch)
    model = DownstreamModel(lm, BlankHead())
    tuning = LoRATuning()
    tuning.prepare(model, tuning.defaults)
    after = [{n: (m.inputs, m.outputs) for n, m in lm.linear_maps(at).items()} for at in (0, -1)]
    assert after == before
    model.eval()
    with torch.no_grad(), documents.attached(lm):
        close(lm(batch), wanted)  # what LoRA adds is 0 at first
