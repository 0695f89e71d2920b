"""kv-text: with one text it is the input with the text before it, cached or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Inputs, Layout, Passage, TokenKind, Tree, Trees, encode
from kbench.errors import InputError, Unsupported
from kbench.knowledge import Bundle, Entity, KnowledgeBase, write_bundle
from kbench.knowledge.controls import Shuffled
from kbench.method import Plug
from kbench.model import LanguageModel, digest
from kbench.model.candidates import log_likelihoods
from kbench.model.generation import go_on
from kbench.model.huggingface import load_folder
from kbench_baselines import kv_text
from kbench_baselines.kv_text import KvText
from kbench_baselines.retrieval import RetrievalAugmentation
from tests.architectures import write
from tests.baselines.texts import reader

NEVER = torch.empty(0, dtype=torch.int64)
TOLD = {
    "Q0": ("istanbul", "a city . it lies at a strait"),
    "Q1": ("berlin", "a town near a river"),
    "Q2": ("tokyo", "its towers are red and it is near the sea"),
    "Q3": ("nowhere", ""),
}
TEXTS = ("we saw istanbul today", "near the river it rained and we saw berlin", "it rained")


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("kb")
    card = {"name": "told", "version": "1", "licence": "none", "source": "test"}
    entities = [Entity(own, name, description=text) for own, (name, text) in TOLD.items()]
    write_bundle(folder, card, entities)
    return Bundle(folder)


@pytest.fixture(
    scope="module", params=["gemma2", "gpt2", "llama", "mistral", "phi", "qwen2", "qwen3"]
)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return reader(tmp_path_factory.mktemp(request.param), request.param)


def inputs_of(
    lm: LanguageModel, told: Sequence[Sequence[str]] = (), texts: Sequence[str] = TEXTS
) -> Inputs:
    examples, rows = [], []
    for number, text in enumerate(texts):
        spans = [(text.find(name), name, row) for row, (name, _) in enumerate(TOLD.values())]
        found = sorted(span for span in spans if span[0] >= 0)
        mentions = tuple(Mention(a, a + len(n), f"Q{row}", Role.CONTEXT) for a, n, row in found)
        blank = len(text) if lm.left_to_right else None
        examples.append(Example(str(number), text, mentions, "", blank=blank))
        rows.append([row for *_, row in found])
    layout = Layout({}, left_to_right=lm.left_to_right, room=150)
    return encode(lm.tokenizer, examples, rows, layout, [[*map(Passage, t)] for t in told])


def plug_of(lm: LanguageModel, knowledge: KnowledgeBase, **options: Any) -> Plug:
    return KvText(options).build(lm, knowledge).eval()


def texts_of(knowledge: KnowledgeBase) -> list[list[str]]:
    """What retrieval augmentation puts before each text."""
    ra = RetrievalAugmentation()
    return [[*ra.passages(knowledge, 0)], [*ra.passages(knowledge, 1)], []]


def own_states(lm: LanguageModel, hidden: Tensor, inputs: Inputs, row: int) -> Tensor:
    """The states of a text without those of what stands before it."""
    start, end = inputs.bounds[row : row + 2]
    kept = torch.from_numpy(np.flatnonzero(inputs.kinds[start:end] != TokenKind.PASSAGE))
    return hidden[row, kept]


def close(one: Tensor, other: Tensor, atol: float = 1e-4) -> None:
    most = max(1.0, float(other.abs().max()))
    torch.testing.assert_close(one, other, rtol=0, atol=atol * most)


@torch.no_grad()
def test_with_one_text_it_is_the_text_before_the_input(
    lm: LanguageModel, knowledge: Bundle
) -> None:
    plain, before = inputs_of(lm), inputs_of(lm, texts_of(knowledge))
    assert before.lengths[0] > plain.lengths[0] + 5
    expected, base = lm(before.collate(np.arange(3))), lm(plain.collate(np.arange(3)))
    weights = digest(lm)
    with plug_of(lm, knowledge).attach(lm):
        found = lm(plain.collate(np.arange(3)))
        again = lm(plain.collate(np.arange(3)))
    assert torch.equal(found, again)
    for row, length in enumerate(plain.lengths.tolist()):
        close(found[row, :length], own_states(lm, expected, before, row))
    assert (found[0] - base[0]).abs().max() > 1e-2
    length = int(plain.lengths[2])
    torch.testing.assert_close(found[2, :length], base[2, :length], rtol=0, atol=1e-6)
    assert torch.equal(lm(plain.collate(np.arange(3))), base)
    assert digest(lm) == weights


def test_answers_and_candidates_are_those_of_the_text_before_the_input(
    lm: LanguageModel, knowledge: Bundle
) -> None:
    plain, before = inputs_of(lm), inputs_of(lm, texts_of(knowledge))
    with torch.inference_mode():
        tokens, said = go_on(lm, before.collate(np.arange(3)), 6, NEVER)
        trees = [
            Trees(of, (Tree.of([[5], [6, 7], [6, 7, 8]]),), np.zeros(3, dtype=np.int64))
            for of in (before, plain)
        ]
        batches = [of.collate(np.arange(3)) for of in trees]
        assert batches[0].tree is not None
        assert batches[1].tree is not None
        expected = log_likelihoods(lm, lm(batches[0], batches[0].tree.states), batches[0])
        with plug_of(lm, knowledge).attach(lm):
            ours, likely = go_on(lm, plain.collate(np.arange(3)), 6, NEVER)
            found = log_likelihoods(lm, lm(batches[1], batches[1].tree.states), batches[1])
    assert ours.tolist() == tokens.tolist()
    close(likely, said)
    close(found, expected)


@torch.no_grad()
def test_of_several_texts_each_is_read_apart_and_none_is_lost(
    lm: LanguageModel, knowledge: Bundle
) -> None:
    both = "we saw istanbul and berlin"
    plug = plug_of(lm, knowledge)
    with plug.attach(lm):
        together = lm(inputs_of(lm, texts=[both]).collate(np.array([0])))
        batch = inputs_of(lm, texts=["we saw berlin and istanbul"]).collate(np.array([0]))
        in_turn = replace(batch, ids=inputs_of(lm, texts=[both]).collate(np.array([0])).ids)
        close(lm(in_turn), together)  # in whatever order they are spoken of
    alone = []
    for row in (0, 1):
        batch = inputs_of(lm, texts=[both]).collate(np.array([0]))
        one = replace(batch, mention_rows=torch.where(batch.mention_rows == row, row, -1))
        with plug.attach(lm):
            alone.append(lm(one))
    assert all((of - together).abs().max() > 1e-3 for of in alone)


@torch.no_grad()
def test_what_is_told_comes_through_the_control(lm: LanguageModel, knowledge: Bundle) -> None:
    swapped = Shuffled(knowledge, 0)
    batch = inputs_of(lm).collate(np.arange(2))
    found = []
    for of in (knowledge, swapped):
        with plug_of(lm, of).attach(lm):
            found.append(lm(batch))
    assert (found[0] - found[1]).abs().max() > 1e-3


@torch.no_grad()
def test_texts_are_read_once_and_let_go_of_when_they_are_too_many(
    lm: LanguageModel, knowledge: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, reads = inputs_of(lm), list[int]()

    def count(*_: Any) -> None:
        reads.append(1)

    plug = plug_of(lm, knowledge)
    handle = lm.base.register_forward_pre_hook(count)
    try:
        for most, expected in ((1 << 30, 2 + 3), (0, 3 + 3)):
            monkeypatch.setattr(kv_text, "_BYTES", most)
            reads.clear()
            with plug.attach(lm):
                for row in (0, 1, 0):
                    lm(inputs.collate(np.array([row])))
            assert len(reads) == expected
    finally:
        handle.remove()


def test_room_is_that_of_a_text_and_a_full_window_is_told(
    lm: LanguageModel, knowledge: Bundle
) -> None:
    batch = inputs_of(lm).collate(np.array([0]))
    text = "it rained " * 100 + "istanbul"
    example = Example("1", text, (Mention(len(text) - 8, len(text), "Q0"),), "", blank=len(text))
    layout = Layout({}, left_to_right=True, max_length=lm.max_length - 2)
    long = encode(lm.tokenizer, [example], [[0]], layout).collate(np.array([0]))
    assert long.ids.shape[1] == lm.max_length - 2
    with torch.no_grad():
        found = []
        for room in (2, 4, 100):
            with plug_of(lm, knowledge, room=room).attach(lm):
                found.append(lm(batch))
        assert all((one - two).abs().max() > 1e-4 for one, two in pairwise(found))
        with plug_of(lm, knowledge, room=2).attach(lm):
            lm(long)  # there is just so much room
        with plug_of(lm, knowledge).attach(lm), pytest.raises(InputError, match="lower `room`"):
            lm(long)


@torch.no_grad()
def test_encoders_look_at_texts_that_do_not_look_back(tmp_path: Path, knowledge: Bundle) -> None:
    """By hand: each layer's keys and values for the text alone, beside the input's own."""
    lm = load_folder(write(tmp_path / "bert", "bert"))
    inputs = inputs_of(lm)
    told = RetrievalAugmentation().passages(knowledge, 0)[0]
    alone = encode(lm.tokenizer, [Example("1", told, (), "")], [()], Layout({}))
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(module: Any, given: Any, named: Any, _: Any) -> None:
        hidden = given[0] if given else named["hidden_states"]
        seen.append((module.key(hidden)[:, 1:-1], module.value(hidden)[:, 1:-1]))

    modules = [layer.attention.self for layer in lm.layers]  # type: ignore[union-attr]
    handles = [of.register_forward_hook(keep, with_kwargs=True) for of in modules]
    lm(alone.collate(np.array([0])))
    for handle in handles:
        handle.remove()
    batch = inputs.collate(np.array([0]))
    hidden = lm.embeddings(inputs_embeds=lm.word_embeddings(batch.ids))
    heads, size = lm.config.num_attention_heads, lm.width // lm.config.num_attention_heads

    def by_head(states: Tensor) -> Tensor:
        return states.view(1, -1, heads, size).transpose(1, 2)

    for layer, (keys, values) in zip(lm.layers, seen, strict=True):
        part: Any = layer
        of = part.attention.self
        whole = [torch.cat([k, m(hidden)], 1) for k, m in ((keys, of.key), (values, of.value))]
        key, value = map(by_head, whole)
        weights = (by_head(of.query(hidden)) @ key.mT / size**0.5).softmax(-1)
        context = (weights @ value).transpose(1, 2).flatten(2)
        attended = part.attention.output(context, hidden)
        hidden = part.output(part.intermediate(attended), attended)
    with plug_of(lm, knowledge).attach(lm):
        close(lm(batch), hidden)
        close(lm(inputs.collate(np.arange(3)))[0, : hidden.shape[1]], hidden[0])


def test_what_cannot_run_says_why(tmp_path: Path, knowledge: Bundle) -> None:
    lm = load_folder(write(tmp_path / "deberta", "deberta-v2"))
    with pytest.raises(Unsupported, match="not of a form that kbench knows"):
        KvText().check(lm, knowledge)
    card = {"name": "mute", "version": "1", "licence": "none", "source": "test"}
    write_bundle(tmp_path / "mute", card, [Entity("Q1", "it")])
    bert = load_folder(write(tmp_path / "bert", "bert"))
    with pytest.raises(Unsupported, match="has nothing to tell"):
        KvText().build(bert, Bundle(tmp_path / "mute"))
