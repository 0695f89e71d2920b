"""Demonstrations that are read once for all texts behind them, with the plug of each method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Demonstrations, Inputs, Layout, Passage, Tree, Trees, encode
from kbench.knowledge import Bundle
from kbench.method import InjectionMethod
from kbench.model import LanguageModel
from kbench.model.beginnings import read, sharing
from kbench.model.candidates import log_likelihoods
from kbench.model.compiling import compiled
from kbench.model.freezing import rewritten
from kbench.model.generation import go_on
from kbench.model.huggingface import load_folder
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.testing.tiny import tiny
from tests.architectures import DECODERS, write_decoder

METHODS: dict[str, tuple[str, dict[str, int]]] = {
    **{
        name: (name, {})
        for name in ("none", "ra", "map-tuning", "map-tuning-mlp", "adapter-no-knowledge")
    },
    "k-adapter": ("k-adapter", {}),
    "two slots": ("map-tuning", {"slots": 2}),
    "xrag": ("xrag", {}),
}
WHOLE: dict[str, dict[str, Any]] = {
    "kv-text": {},
    "kv-train": {},
    "kblam": {},
    "knowla": {},
    "prag": {},
    "kblam, global": {"mode": "global", "facts": 30},
}
"""With these a token knows of whom its text speaks further on: nothing is read once for several."""
NEVER = torch.empty(0, dtype=torch.int64)
SIZE = {"max_position_embeddings": 400, "initializer_range": 0.3}


@pytest.fixture(scope="module", params=sorted(DECODERS))
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    return load_folder(write_decoder(folder, request.param, **SIZE))


@pytest.fixture(scope="module")
def knowledge() -> Bundle:
    return Bundle(tiny().knowledge)


@pytest.fixture(params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> InjectionMethod:
    name, options = METHODS[request.param]
    made: InjectionMethod = registry.get(Kind.METHODS, name)(options)
    return made


def inputs_of(
    lm: LanguageModel, method: InjectionMethod, knowledge: Bundle, rows: list[int], lead: str
) -> Inputs:
    examples, passages = [], []
    for number, row in enumerate(rows):
        name = knowledge.labels[row]
        text = f"{lead * number}we saw {name}"
        mention = Mention(len(text) - len(name), len(text), knowledge.ids[row], Role.TARGET)
        examples.append(Example(str(number), text, (mention,), "", blank=len(text)))
        passages.append([Passage(told) for told in method.passages(knowledge, row)])
    layout = Layout(
        {}, slot=method.template(), slots=method.slot_count(), left_to_right=True, room=60
    )
    brought = passages if any(passages) else ()
    return encode(lm.tokenizer, examples, [[row] for row in rows], layout, brought)


def behind(lm: LanguageModel, method: InjectionMethod, knowledge: Bundle) -> Trees:
    """Four texts, of which the first has other demonstrations than the rest, and candidates."""
    toys = np.array([row for row, own in enumerate(knowledge.ids) if own.startswith("toy:")])
    known = toys[method.covers(knowledge, toys) & knowledge.has_vector(toys)].tolist()
    shown = inputs_of(lm, method, knowledge, known[:3], "then ")
    inputs = inputs_of(lm, method, knowledge, known[3:7], "well ")
    of = [[2, 1], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    inputs = Demonstrations(lm.tokenizer, shown).before(inputs, 300, of)
    words = lm.tokenizer(["a river", "a town of rain", "it"], add_special_tokens=False)
    return Trees(inputs, (Tree.of(words["input_ids"]),), np.zeros(4, dtype=np.int64))


@pytest.fixture
def trees(lm: LanguageModel, method: InjectionMethod, knowledge: Bundle) -> Iterator[Trees]:
    torch.manual_seed(0)
    plug = method.build(lm, knowledge).eval()
    for parameter in plug.parameters():  # far from the identity
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.inference_mode(), plug.attach(lm):
        yield behind(lm, method, knowledge)


def said(lm: LanguageModel, trees: Trees, chosen: list[int]) -> Tensor:
    batch = trees.collate_sequences(np.array(chosen))
    assert batch.tree is not None
    return log_likelihoods(lm, read(lm, batch, batch.tree.states), batch)


def close(one: Tensor, other: Tensor) -> None:
    assert torch.allclose(one, other, rtol=1e-5, atol=1e-5), float((one - other).abs().max())


def test_what_is_read_once_is_what_is_read_with_each_text(lm: LanguageModel, trees: Trees) -> None:
    begun = trees.beginnings
    assert begun is not None
    assert begun[:, 1].tolist() == [0, 1, 1, 1]
    assert begun[1, 0] > begun[0, 0] > 6
    whole = said(lm, trees, [1, 2, 3])
    with sharing(lm):
        together = said(lm, trees, [1, 2, 3])
        assert lm.beginnings is not None
        (first,) = lm.beginnings
        assert (first.group, first.tokens) == (1, begun[1, 0])
        close(together, whole)
        close(said(lm, trees, [2]), whole[1:2])
        assert lm.beginnings[0] is first  # kept
        close(said(lm, trees, [0, 1]), said_whole(lm, trees, [0, 1]))
        assert lm.beginnings[0] is first  # texts of two beginnings are read whole
    assert lm.beginnings is None


def said_whole(lm: LanguageModel, trees: Trees, chosen: list[int]) -> Tensor:
    batch = trees.collate_sequences(np.array(chosen))
    return log_likelihoods(lm, lm(batch), batch)


def test_answers_in_own_words_go_on_after_it(lm: LanguageModel, trees: Trees) -> None:
    batch = trees.inputs.collate_sequences(np.arange(1, 4))
    tokens, likely = go_on(lm, batch, 5, NEVER)
    with sharing(lm):
        again, so_too = go_on(lm, batch, 5, NEVER)
        assert lm.beginnings
    assert torch.equal(tokens, again)
    assert torch.allclose(likely, so_too, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("lm", ["llama"], indirect=True)
@pytest.mark.parametrize("name", sorted(WHOLE))
def test_what_looks_ahead_is_read_with_each_text(
    lm: LanguageModel, knowledge: Bundle, name: str
) -> None:
    method: InjectionMethod = registry.get(Kind.METHODS, name.split(",")[0])(WHOLE[name])
    torch.manual_seed(0)
    plug = method.build(lm, knowledge).eval()
    with torch.inference_mode(), plug.attach(lm):
        assert lm.looks_ahead
        trees = behind(lm, method, knowledge)
        whole = said(lm, trees, [1, 2, 3])
        with sharing(lm):
            assert lm.beginnings is None
            close(said(lm, trees, [1, 2, 3]), whole)


@pytest.mark.parametrize("lm", ["llama"], indirect=True)
@pytest.mark.parametrize("method", ["none"], indirect=True)
def test_texts_are_read_whole_where_sharing_would_say_something_else(
    lm: LanguageModel, trees: Trees
) -> None:
    with torch.autocast("cpu", torch.bfloat16), sharing(lm):
        assert lm.beginnings is None
    with compiled(lm, backend="eager"), sharing(lm):
        assert lm.beginnings is None
    with rewritten(lm.layers[0], lambda hidden: hidden + hidden.mean(1, keepdim=True)):
        with sharing(lm):
            assert lm.beginnings is None  # it may look ahead, as this one does
        with lm.token_by_token(), sharing(lm):
            assert lm.beginnings == []
    assert not lm.looks_ahead
    batch = trees.collate_sequences(np.arange(1, 4))
    with sharing(lm):
        read(lm, replace(batch, shared=None), None)
        assert lm.beginnings == []
        read(lm, trees.collate_sequences(np.array([1])), None)
        assert lm.beginnings == []  # one text spares nothing
    with torch.inference_mode(False), torch.enable_grad(), sharing(lm):
        read(lm, trees.collate_sequences(np.arange(1, 4)), None)
        assert lm.beginnings == []
