"""KnowLA: a mixture is added to tokens that come after an entity, and to no others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.encoding import Batch
from kbench.knowledge import Bundle
from kbench.model import LanguageModel, digest, rewritten
from kbench.model.huggingface import load_folder
from kbench.testing.tiny import tiny
from kbench_baselines.knowla import Knowla, KnowlaPlug, Mixture, fused_layers
from tests.architectures import write, write_decoder
from tests.baselines.texts import entity_of, inputs_of


@pytest.fixture(scope="module")
def knowledge() -> Bundle:
    return Bundle(tiny().knowledge)


@pytest.fixture(scope="module", params=["bert", "gemma2", "gpt2", "llama", "phi", "qwen3"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    wrote = write if request.param == "bert" else write_decoder
    return load_folder(wrote(folder, request.param))


def plug_of(lm: LanguageModel, knowledge: Bundle) -> KnowlaPlug:
    """A plug far from the identity."""
    torch.manual_seed(0)
    plug = Knowla().build(lm, knowledge).eval()
    assert isinstance(plug, KnowlaPlug)
    for parameter in plug.parameters():
        nn.init.normal_(parameter, std=0.3)
    return plug


def by_hand(
    plug: KnowlaPlug, mixture: nn.Module, lm: LanguageModel, batch: Batch, hidden: Tensor
) -> Tensor:
    """The equation, token after token."""
    assert isinstance(mixture, Mixture)
    hidden, width = hidden.clone(), hidden.shape[2]
    first, second = mixture.into.weight.chunk(2)
    for text in range(len(hidden)):
        for token in range(hidden.shape[1]):
            seen: list[int] = []
            for mention in torch.nonzero(batch.mention_owners == text).flatten().tolist():
                row = int(batch.mention_rows[mention])
                start = int(batch.mentions[mention, 0]) - text * hidden.shape[1]
                late = token >= start or not lm.left_to_right
                if row >= 0 and late and row not in seen:
                    seen.append(row)
            if not seen:
                continue
            vectors = torch.stack([entity_of(plug.knowledge, lm, "kge", row) for row in seen])
            there = torch.cat([vectors, mixture.sentinel[None]])
            state = hidden[text, token]
            eps = torch.finfo(torch.float32).eps
            state = state / (state.square().mean() + eps).sqrt()
            keys = mixture.key.weight @ (F.silu(first @ there.T) * (second @ there.T))
            weights = (state @ keys / width**0.5).softmax(0)
            inner = mixture.state.weight @ state + mixture.state.bias
            inner = F.silu(inner + mixture.entity.weight @ (weights @ there))
            hidden[text, token] += mixture.gate * (mixture.out.weight @ inner)
    return hidden


@torch.no_grad()
def test_it_is_a_gated_mixture_of_those_who_came_before(
    lm: LanguageModel, knowledge: Bundle
) -> None:
    plug = plug_of(lm, knowledge)
    inputs, texts = inputs_of(lm, knowledge)
    batch, weights = inputs.collate(np.arange(3)), digest(lm)
    base = lm(batch)
    (place,) = plug.places
    with rewritten(lm.layers[place], lambda h: by_hand(plug, plug.mixtures[0], lm, batch, h)):
        expected = lm(batch)
    with plug.attach(lm):
        found = lm(batch)
        alone = lm(inputs.collate(np.array([1])))
    kept = batch.mask.bool()
    torch.testing.assert_close(found[kept], expected[kept], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1:2, : alone.shape[1]], alone, rtol=1e-4, atol=1e-4)
    assert texts[2] == []
    assert torch.equal(found[2], base[2])
    if lm.left_to_right:
        start = int(batch.mentions[0, 0])
        assert torch.equal(found[0, :start], base[0, :start])
    assert (found[0] - base[0]).abs().max() > 1e-3
    assert torch.equal(lm(batch), base)
    assert digest(lm) == weights


@torch.no_grad()
def test_untrained_it_is_the_model_itself(lm: LanguageModel, knowledge: Bundle) -> None:
    batch = inputs_of(lm, knowledge)[0].collate(np.arange(3))
    base = lm(batch)
    with Knowla().build(lm, knowledge).eval().attach(lm):
        assert torch.equal(lm(batch), base)


def test_entities_come_after_a_third_and_two_thirds_of_the_layers() -> None:
    assert [fused_layers(n) for n in (1, 2, 6, 12, 32)] == [(0,), (0,), (1, 3), (3, 7), (9, 20)]
