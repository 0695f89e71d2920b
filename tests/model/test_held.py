"""Frozen bodies in bfloat16: half the memory, and all around them in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kbench.data import Example
from kbench.encoding import Batch, Inputs, Layout, Tree, Trees, encode
from kbench.errors import Unsupported
from kbench.model import LanguageModel, digest, rewritten
from kbench.model.candidates import log_likelihoods
from kbench.model.huggingface import HuggingFaceBackbone, load_folder
from kbench.model.narrow import in_float32
from kbench.model.tiny import KbenchTiny
from tests.architectures import rewrite, write, write_decoder

TEXTS = ("we saw istanbul today", "near the river it rained and we saw istanbul again")


@pytest.fixture(scope="module", params=["gemma2", "gpt2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def lm(folder: Path) -> LanguageModel:
    return HuggingFaceBackbone(str(folder)).load_held("bfloat16")


def inputs_of(lm: LanguageModel) -> Inputs:
    examples = [Example(str(n), text, (), "", blank=len(text)) for n, text in enumerate(TEXTS)]
    layout = Layout({}, left_to_right=lm.left_to_right)
    return encode(lm.tokenizer, examples, [()] * len(TEXTS), layout)


def batch_of(lm: LanguageModel) -> Batch:
    return inputs_of(lm).collate(np.arange(len(TEXTS)))


def test_weights_are_narrow_and_what_is_said_is_not(folder: Path, lm: LanguageModel) -> None:
    assert {p.dtype for p in lm.parameters()} == {torch.bfloat16}
    assert {b.dtype for n, b in lm.named_buffers() if "inv_freq" in n} <= {torch.float32}
    whole = load_folder(folder)
    assert digest(lm) != digest(whole)
    batch = batch_of(lm)
    with torch.inference_mode():
        narrow, wide = lm(batch), whole(batch)
        said, wanted = (
            one.predict_tokens(hidden.flatten(0, 1))
            for one, hidden in ((lm, narrow), (whole, wide))
        )
    assert narrow.dtype == said.dtype == torch.float32
    # Padding says anything.
    real = batch.mask.flatten().bool()
    assert (said - wanted)[real].abs().max() < 0.1 * wanted[real].abs().max()
    assert not torch.equal(said[real], wanted[real])


def test_a_checkpoint_that_is_stored_narrow_is_held_as_it_is(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "stored"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    rewrite(other, lambda weights: {k: v.to(torch.bfloat16) for k, v in weights.items()})
    stored = load_file(other / "model.safetensors")
    state = load_folder(other, weights="bfloat16").network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in stored.items())
    assert digest(load_folder(folder, weights="bfloat16")) == digest(
        load_folder(other, weights="bfloat16")
    )


def test_candidates_are_compared_in_float32(lm: LanguageModel) -> None:
    tokens = lm.word_embeddings.num_embeddings
    trees = Trees(inputs_of(lm), (Tree.of([[n] for n in range(tokens)]),), np.zeros(2, np.int64))
    batch = trees.collate(np.arange(2))
    with torch.inference_mode():
        said = log_likelihoods(lm, lm(batch), batch)
    assert said.dtype == torch.float32
    torch.testing.assert_close(said.exp().sum(1), torch.ones(2), rtol=0, atol=1e-5)


def test_a_plug_computes_in_float32(lm: LanguageModel) -> None:
    batch, place = batch_of(lm), torch.tensor([0])
    batch = replace(batch, slot_index=place, slot_rows=place)
    vector = torch.zeros(1, lm.slot_width, requires_grad=True)
    seen: list[Tensor] = []

    def change(states: Tensor) -> Tensor:
        seen.append(states)
        return states + vector.sum()

    lm.requires_grad_(False)
    with lm.slots(lambda rows: vector[rows]), rewritten(lm.layers[0], change):
        lm(batch)[1].square().sum().backward()
    assert seen[0].dtype == torch.float32
    assert vector.grad is not None
    assert vector.grad.dtype == torch.float32
    assert vector.grad.abs().max() > 0


def test_an_encoder_has_its_pooler_and_its_head(tmp_path: Path) -> None:
    folder = write(tmp_path, "bert", kind="ForMaskedLM")
    lm = load_folder(folder, weights="bfloat16")
    batch = batch_of(lm)
    with torch.inference_mode():
        hidden = lm(batch)
        assert lm.predict_tokens(hidden[0]).dtype == torch.float32
    tiny = KbenchTiny().load_held("bfloat16")
    assert {p.dtype for p in tiny.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        hidden, mask = tiny(batch_of(tiny)), batch_of(tiny).mask
        assert tiny.pool(hidden, mask).dtype == torch.float32


def test_the_map_to_tokens_is_that_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbench.model.narrow._PART", 3 * 8)
    torch.manual_seed(0)
    output = nn.Linear(8, 10).to(torch.bfloat16).requires_grad_(False)
    states = torch.randn(4, 8, requires_grad=True)
    with in_float32(output):
        said = output(states)
    wanted = states @ output.weight.float().T + output.bias.float()
    torch.testing.assert_close(said, wanted)
    ours = torch.autograd.grad(said.square().sum(), states)[0]
    theirs = torch.autograd.grad(wanted.square().sum(), states)[0]
    torch.testing.assert_close(ours, theirs)
    assert output(states.to(torch.bfloat16)).dtype == torch.bfloat16


def test_one_that_is_not_in_files_is_not_held_in_fewer_bits() -> None:
    with pytest.raises(Unsupported, match="kbench-tiny is not held in 4bit; expected"):
        KbenchTiny().load_held("4bit")


def test_gradients_go_through_a_narrow_map_under_autocast() -> None:
    """Training with --weights bfloat16 --dtype bfloat16: what is said is narrow there."""
    torch.manual_seed(0)
    output = nn.Linear(8, 10).to(torch.bfloat16).requires_grad_(False)
    states = torch.randn(4, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), in_float32(output):
        loss = output(states).float().square().sum()
    loss.backward()
    wanted = (2 * (states @ output.weight.float().T + output.bias.float())) @ output.weight.float()
    assert states.grad is not None
    torch.testing.assert_close(states.grad, wanted, rtol=0.05, atol=0.05)
