"""Bodies of fewer bits, and bodies that are spread: what is asked of a machine, and what is said.

Accelerate moves what the parts of a network are given to where these are, whatever they are: here a
layer whose weights lie on disk stands for one on another GPU.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from kbench.data import Example
from kbench.encoding import Inputs, Layout, Tree, Trees, encode
from kbench.errors import InputError, UsageError
from kbench.model import Decoder, LanguageModel, rewritten
from kbench.model.candidates import log_likelihoods
from kbench.model.huggingface import HuggingFaceBackbone, load_folder
from kbench.model.placing import mark, settle_places, told
from tests.architectures import write_decoder

TEXTS = ("we saw istanbul today", "near the river it rained")
PLACES = {
    "model.embed_tokens": "cpu",
    "model.rotary_emb": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "lm_head": "cpu",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_decoder(tmp_path / "llama", "llama")


@pytest.fixture
def spread(folder: Path, tmp_path: Path) -> LanguageModel:
    network = transformers.AutoModelForCausalLM.from_pretrained(
        folder, device_map=PLACES, offload_folder=tmp_path / "disk", dtype="float32"
    )
    mark(network)
    lm = Decoder(network, transformers.AutoTokenizer.from_pretrained(folder)).eval()
    lm.settled = True
    return lm


def inputs_of(lm: LanguageModel) -> Inputs:
    examples = [Example(str(n), text, (), "", blank=len(text)) for n, text in enumerate(TEXTS)]
    return encode(lm.tokenizer, examples, [()] * 2, Layout({}, left_to_right=True))


def said(lm: LanguageModel) -> tuple[Tensor, Tensor]:
    """What is said of candidates with a slot and a plug in a layer, and its gradient."""
    trees = Trees(inputs_of(lm), (Tree.of([[5], [6, 7], [6, 8, 9]]),), np.zeros(2, np.int64))
    batch = trees.collate(np.arange(2))
    place = torch.tensor([0])
    batch = replace(batch, slot_index=place, slot_rows=place)
    assert batch.tree is not None
    vector = torch.ones(1, lm.slot_width, requires_grad=True)
    lm.requires_grad_(False)
    with lm.slots(lambda rows: vector[rows]), rewritten(lm.layers[0], lambda h: h + vector.mean()):
        whole = log_likelihoods(lm, lm(batch, batch.tree.states), batch)
    (gradient,) = torch.autograd.grad(whole.sum(), vector)
    return whole, gradient


def test_a_model_that_is_spread_says_the_same(folder: Path, spread: LanguageModel) -> None:
    ours, theirs = said(spread), said(load_folder(folder))
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=1e-5)


def test_weights_that_have_places_stay_there(spread: LanguageModel) -> None:
    before = [parameter.device.type for parameter in spread.parameters()]
    assert "meta" in before
    spread.to("cpu")
    spread.to(torch.float64)
    assert [parameter.device.type for parameter in spread.parameters()] == before
    assert spread.dtype == torch.float32


def test_layers_that_found_no_room_are_not_computed_on_the_host(folder: Path) -> None:
    network: Any = SimpleNamespace(hf_device_map={"model": 0, "lm_head": "cpu"})
    with pytest.raises(UsageError, match="no room for the whole model"):
        settle_places(network)
    assert not load_folder(folder).settled


@pytest.mark.parametrize("weights", ["8bit", "4bit"])
def test_fewer_bits_are_refused_without_a_gpu_before_anything_is_loaded(
    weights: Any, tmp_path: Path
) -> None:
    backbone = HuggingFaceBackbone(str(tmp_path))  # an empty folder: it would not load
    with pytest.raises(
        InputError, match=f"--weights {weights} is computed with on a GPU"
    ) as caught:
        backbone.load_held(weights, "cpu")
    assert "\n" not in str(caught.value)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@pytest.mark.usefixtures("cuda")
def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbench.model.placing.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install knowledge-bench\[quantised\]"):
        told("4bit", "cuda:0")


@pytest.mark.usefixtures("cuda")
def test_what_transformers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbench.model.placing.find_spec", lambda _: object())
    assert told("float32") == {"dtype": "float32"}
    assert told("bfloat16", spread=True) == {"dtype": "bfloat16", "device_map": "auto"}
    packed = told("4bit", "cuda:1")
    assert packed["device_map"] == {"": "cuda:1"}
    assert packed["quantization_config"].load_in_4bit
    # Outliers are looked for in a whole batch, which would let mates matter.
    assert told("8bit", "cuda:1")["quantization_config"].llm_int8_threshold == 0


def test_one_gpu_is_nothing_to_spread_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match="this machine shows 0; expected two or more"):
        told("float32", spread=True)
