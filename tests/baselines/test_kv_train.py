"""kv-train: slots are means of a text's keys and values, and learn to say what the text says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kbench.encoding import Batch
from kbench.knowledge import Bundle
from kbench.model import LanguageModel, digest
from kbench.testing.tiny import tiny
from kbench_baselines.facts import told_facts
from kbench_baselines.kv_text import KvText, TextStates
from kbench_baselines.kv_train import KvTrain, KvTrainPlug
from tests.baselines.texts import inputs_of, reader


@pytest.fixture(scope="module")
def knowledge() -> Bundle:
    return Bundle(tiny().knowledge)


@pytest.fixture(scope="module", params=["bert", "gemma2", "gpt2", "llama", "qwen3"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return reader(tmp_path_factory.mktemp(request.param), request.param)


def plug_of(lm: LanguageModel, knowledge: Bundle, **options: Any) -> KvTrainPlug:
    """A plug far from where it starts."""
    torch.manual_seed(0)
    plug = KvTrain(options).build(lm, knowledge).eval()
    assert isinstance(plug, KvTrainPlug)
    nn.init.normal_(plug.look, std=0.5)
    nn.init.normal_(plug.more, std=0.5)
    return plug


@torch.no_grad()
def test_slots_are_means_of_a_text_and_stand_where_it_stood(
    lm: LanguageModel, knowledge: Bundle
) -> None:
    """By hand, slot by slot; and given to attention by hand, at the places behind the text."""
    plug = plug_of(lm, knowledge, slots=3)
    inputs, _ = inputs_of(lm, knowledge)
    batch = inputs.collate(np.array([0]))
    slots = by_hand(plug, whole_text(lm, knowledge, batch))  # [layers, 2, P, n_kv, size]
    with KvText().build(lm, knowledge).attach(lm):
        text_said = lm(batch)

    class Given(TextStates):
        def made(self, states: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
            return slots[None], there.new_ones(1, 3)

    with Given(lm, KvText(), knowledge, 128).before_inputs():
        expected = lm(batch)
    weights, base, nobody = digest(lm), lm(batch), inputs.collate(np.array([2]))
    without = lm(nobody)
    with plug.attach(lm):
        found = lm(batch)
        together = lm(inputs.collate(np.arange(3)))
        assert torch.equal(lm(nobody), without)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together[:1, : found.shape[1]], found, rtol=1e-4, atol=1e-4)
    alone = without.shape[1]
    torch.testing.assert_close(together[2:, :alone], without, rtol=1e-5, atol=1e-5)
    assert (found - text_said).abs().max() > 1e-3
    assert (found - base).abs().max() > 1e-3
    assert torch.equal(lm(batch), base)
    assert digest(lm) == weights


def whole_text(lm: LanguageModel, knowledge: Bundle, batch: Batch) -> Tensor:
    """The keys and values of the text of a batch's one entity. ``[layers, 2, T, n_kv, size]``."""
    seen: list[Tensor] = []

    class Kept(TextStates):
        def made(self, states: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
            assert there.all()
            seen.append(states[0])
            return states, there

    with Kept(lm, KvText(), knowledge, 128).before_inputs():
        lm(batch)
    return seen[0]


def by_hand(plug: KvTrainPlug, states: Tensor) -> Tensor:
    layers, _, tokens, heads, size = states.shape
    slots = torch.zeros(layers, 2, 3, heads, size)
    for layer in range(layers):
        for head in range(heads):
            for slot in range(3):
                scores = []
                for token in range(tokens):
                    fits = plug.look[layer, head, slot] @ states[layer, 0, token, head]
                    apart = (token + 0.5) / tokens - plug.centre[layer, head, slot]
                    far = (plug.sharp[layer, head, slot] * apart) ** 2
                    scores.append(fits / size**0.5 - far)
                weights = torch.stack(scores).softmax(0)
                for of in (0, 1):
                    mean = weights @ states[layer, of, :, head]
                    slots[layer, of, slot, head] = mean + plug.more[layer, of, slot, head]
    return slots


def test_distillation_is_toward_what_the_whole_text_says(
    lm: LanguageModel, knowledge: Bundle
) -> None:
    data = told_facts(lm, knowledge, None, 64, most=6, seed=0)
    batch = data.batch(np.arange(6))
    plug = plug_of(lm, knowledge, slots=3)
    with torch.no_grad(), KvText().build(lm, knowledge).attach(lm):
        taught = said(lm, batch)
    with plug.attach(lm):
        loss = plug.distilled(lm, batch)
        ours = said(lm, batch)
        again = plug.distilled(lm, batch)
    expected = (taught.exp() * (taught - ours)).sum(1).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again, loss)
    (toward,) = torch.autograd.grad(loss, [plug.look], retain_graph=True)
    assert toward.abs().max() > 0
    # The first token of each tail is among those that are taught.
    at = batch.blank_index.tolist().index(int(batch.blank_index.min()))
    (of_first,) = torch.autograd.grad(-(taught[at].exp() * ours[at]).sum(), [plug.more])
    assert of_first.abs().max() > 0


def said(lm: LanguageModel, batch: Batch) -> Tensor:
    return lm.predict_tokens(lm(batch).flatten(0, 1)[batch.blank_index]).float().log_softmax(-1)


@torch.no_grad()
def test_with_a_slot_a_token_it_is_nearly_the_text(lm: LanguageModel, knowledge: Bundle) -> None:
    inputs, _ = inputs_of(lm, knowledge)
    batch = inputs.collate(np.array([0]))
    tokens = whole_text(lm, knowledge, batch).shape[2]
    torch.manual_seed(0)
    plug = KvTrain({"slots": tokens}).build(lm, knowledge).eval()
    assert isinstance(plug, KvTrainPlug)
    nn.init.constant_(plug.sharp, 100.0 * tokens)
    with KvText().build(lm, knowledge).attach(lm):
        expected = lm(batch)
    with plug.attach(lm):
        torch.testing.assert_close(lm(batch), expected, rtol=1e-4, atol=1e-4)
