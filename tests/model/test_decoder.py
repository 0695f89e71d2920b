"""Models that read from left to right say what transformers says, whatever stands beside them."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import processors
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Batch, Inputs, Layout, Tree, Trees, bare_tokens, encode, inner_tokens
from kbench.errors import InputError, KbenchError, Unsupported
from kbench.model import Decoder, LanguageModel, digest, rewritten
from kbench.model.candidates import log_likelihoods
from kbench.model.huggingface import HuggingFaceBackbone, load_folder
from tests.architectures import DECODERS, rewrite, write, write_decoder
from tests.families import FAMILIES, family

TEXTS = ("we saw istanbul today", "near the river it rained and we saw istanbul again", "it")
LAYOUT = Layout({}, left_to_right=True)


@pytest.fixture(scope="module", params=sorted(DECODERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def lm(folder: Path) -> LanguageModel:
    return load_folder(folder)


def inputs_of(lm: LanguageModel, *texts: str) -> Inputs:
    examples = [Example(str(n), text, (), "", blank=len(text)) for n, text in enumerate(texts)]
    return encode(lm.tokenizer, examples, [()] * len(texts), LAYOUT)


def states(lm: LanguageModel, batch: Batch) -> Tensor:
    with torch.inference_mode():
        hidden: Tensor = lm(batch)
    return hidden


def close(one: Tensor, other: Tensor) -> None:
    most = max(1.0, float(other.abs().max()))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * most)


def test_it_loads_whole_and_says_what_transformers_says(folder: Path, lm: LanguageModel) -> None:
    assert isinstance(lm, Decoder)
    assert lm.has_lm_head
    assert HuggingFaceBackbone(str(folder)).left_to_right
    assert digest(lm) == digest(load_folder(folder))
    whole = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    batch = inputs_of(lm, *TEXTS).collate(np.arange(3))
    hidden = states(lm, batch)
    for row, text in enumerate(TEXTS):
        ids = lm.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        before = batch.ids[row : row + 1, : int(batch.mask[row].sum()) - ids.shape[1]]
        with torch.inference_mode():
            own = whole(input_ids=torch.cat([before, ids], 1)).logits[0]
            said = lm.predict_tokens(hidden[row, : len(own)])
        close(said, own)


def test_the_last_token_speaks_for_a_text_wherever_its_padding_is(lm: LanguageModel) -> None:
    batch = inputs_of(lm, *TEXTS).collate(np.arange(3))
    hidden = states(lm, batch)
    pooled = lm.pool(hidden, batch.mask)
    where = lm.pooled(batch)
    assert where is not None
    assert torch.equal(pooled, hidden.flatten(0, 1)[where])
    assert torch.equal(where, batch.blank_index)
    lengths = batch.mask.sum(1)
    left = replace(
        batch,
        ids=torch.stack(
            [row.roll(len(row) - int(n)) for row, n in zip(batch.ids, lengths, strict=True)]
        ),
        mask=batch.mask.flip(1),
        positions=(batch.mask.flip(1).cumsum(1) - 1).clamp(min=0),
    )
    close(lm.pool(states(lm, left), left.mask), pooled)


def test_left_padding_needs_positions_where_they_are_learnt(tmp_path: Path) -> None:
    """What the explicit positions are for: without them GPT-2 says something else."""
    lm = load_folder(write_decoder(tmp_path, "gpt2"))
    batch = inputs_of(lm, TEXTS[0]).collate(np.arange(1))
    more = torch.zeros(1, 4, dtype=torch.int64)
    ids, mask = (torch.cat([more, part], 1) for part in (batch.ids, batch.mask))
    bare = replace(batch, ids=ids, mask=mask)
    told = replace(bare, positions=(mask.cumsum(1) - 1).clamp(min=0))
    alone = states(lm, batch)[0, -1]
    assert (states(lm, bare)[0, -1] - alone).abs().max() > 1e-3
    close(states(lm, told)[0, -1], alone)


CANDIDATES = ([5], [6, 7], [6, 7, 8], [6, 9], [10, 5, 6, 7], [5, 5])


def in_a_tree(
    lm: LanguageModel, texts: tuple[str, ...], candidates: tuple[list[int], ...] = CANDIDATES
) -> Tensor:
    inputs = inputs_of(lm, *texts)
    trees = Trees(inputs, (Tree.of(candidates),), np.zeros(len(texts), dtype=np.int64))
    batch = trees.collate(np.arange(len(texts)))
    assert batch.tree is not None
    with torch.inference_mode():
        return log_likelihoods(lm, lm(batch, batch.tree.states), batch)


def one_by_one(lm: LanguageModel, text: str, candidate: list[int]) -> float:
    """What a bare forward pass says of a candidate after a text, token by token."""
    own = inputs_of(lm, text).ids.tolist()
    with torch.inference_mode():
        logits = lm.network(input_ids=torch.tensor([[*own, *candidate]])).logits[0]
    said = logits.log_softmax(-1)[len(own) - 1 : -1]
    return float(said[torch.arange(len(candidate)), torch.tensor(candidate)].sum())


def test_a_tree_says_what_a_row_for_each_candidate_says(lm: LanguageModel) -> None:
    together = in_a_tree(lm, TEXTS)
    assert together.shape == (3, len(CANDIDATES))
    wanted = [[one_by_one(lm, text, c) for c in CANDIDATES] for text in TEXTS]
    close(together, torch.tensor(wanted))
    for row, text in enumerate(TEXTS):
        close(in_a_tree(lm, (text,))[0], together[row])


def test_neither_order_nor_company_of_candidates_matters(lm: LanguageModel) -> None:
    whole = in_a_tree(lm, TEXTS)
    close(in_a_tree(lm, TEXTS, CANDIDATES[::-1]), whole.flip(1))
    close(in_a_tree(lm, TEXTS, CANDIDATES[2:4]), whole[:, 2:4])
    tokens = lm.word_embeddings.num_embeddings
    every = in_a_tree(lm, TEXTS, tuple([token] for token in range(tokens)))
    close(every.exp().sum(1), torch.ones(3))


def test_candidates_of_one_token_cost_nothing(lm: LanguageModel) -> None:
    inputs = inputs_of(lm, *TEXTS)
    trees = Trees(inputs, (Tree.of([[5], [6]]),), np.zeros(3, dtype=np.int64))
    assert trees.lengths.tolist() == inputs.lengths.tolist()
    assert trees.collate(np.arange(3)).visible is None


def test_logits_are_made_a_part_at_a_time(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = in_a_tree(lm, TEXTS)
    monkeypatch.setattr("kbench.model.candidates._LOGITS", 1)
    close(in_a_tree(lm, TEXTS), whole)


def test_gradients_go_through_a_tree(lm: LanguageModel) -> None:
    inputs = inputs_of(lm, *TEXTS)
    trees = Trees(inputs, (Tree.of(CANDIDATES),), np.zeros(3, dtype=np.int64))
    batch = trees.collate(np.arange(3))
    place = torch.tensor([0])
    vector = torch.zeros(1, lm.slot_width, requires_grad=True)
    slotted = replace(batch, slot_index=place, slot_rows=place)
    with lm.slots(lambda rows: vector[rows]):
        log_likelihoods(lm, lm(slotted), slotted)[0].sum().backward()  # type: ignore[no-untyped-call]
    assert vector.grad is not None
    assert vector.grad.abs().max() > 0


def test_some_rows_of_a_batch_with_trees(lm: LanguageModel) -> None:
    from kbench.encoding.batch import picked

    trees = Trees(
        inputs_of(lm, *TEXTS), (Tree.of(CANDIDATES), Tree.of([[3, 4], [5]])), np.array([0, 1, 0])
    )
    batch = trees.collate(np.arange(3))
    with torch.inference_mode():
        whole = log_likelihoods(lm, lm(batch), batch)
        for rows in ([0], [1], [2], [0, 2], [1, 2]):
            some = picked(batch, torch.tensor(rows), batch.ids.shape[1])
            close(log_likelihoods(lm, lm(some), some).exp(), whole[rows].exp())
    assert torch.isinf(whole[1, 2:]).all()


def test_weights_that_lack_a_part_are_refused(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path, "llama")
    rewrite(folder, lambda weights: {k: v for k, v in weights.items() if "layers.1.mlp" not in k})
    with pytest.raises(KbenchError, match=r"the weights lack model\.layers\.1\.mlp\.down_proj"):
        load_folder(folder)


def test_an_untied_head_that_is_lost_is_not_made_up(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path, "llama", tie_word_embeddings=False)
    rewrite(folder, lambda weights: {k: v for k, v in weights.items() if k != "lm_head.weight"})
    with pytest.raises(KbenchError, match=r"the weights lack lm_head\.weight of LlamaForCausalLM"):
        load_folder(folder)


def test_a_window_is_the_longest_text(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path, "mistral", sliding_window=20)
    lm = load_folder(folder)
    assert lm.max_length == 20


def test_an_encoder_says_that_it_predicts_no_next_token(tmp_path: Path) -> None:
    lm = load_folder(write(tmp_path, "bert", kind="Model"))
    with pytest.raises(Unsupported, match="no masked-LM head"):
        lm.predict_tokens(torch.zeros(1, lm.width))


def test_a_model_without_positions_is_refused(tmp_path: Path) -> None:
    from tests.architectures import write_network

    folder = write_network(
        tmp_path, "BloomForCausalLM", "BloomConfig", hidden_size=16, n_layer=2, n_head=4
    )
    with pytest.raises(KbenchError, match="BloomModel takes no position ids") as caught:
        load_folder(folder)
    assert "\n" not in str(caught.value)


def test_what_is_written_before_an_answer_ends_with_it(lm: LanguageModel) -> None:
    tokenizer = lm.tokenizer
    text = "the capital of Peru is . or so they say"
    example = Example("1", text, (), "", blank=text.index(" ."))
    inputs = encode(tokenizer, [example], [()], LAYOUT)
    own = tokenizer("the capital of Peru is", add_special_tokens=False)["input_ids"]
    assert inputs.ids.tolist()[-len(own) :] == own
    assert inputs.blanks.tolist() == [len(inputs.ids) - 1]
    begun = [token for token in inputs.ids.tolist() if token == tokenizer.bos_token_id]
    assert len(begun) <= 1
    assert tokenizer.eos_token_id not in inputs.ids[1:].tolist()


def test_nothing_before_an_answer_is_the_token_that_begins_a_text(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path, "gpt2")
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["post_processor"] = None
    path.write_text(json.dumps(tokenizer))
    lm = load_folder(folder)
    assert len(inputs_of(lm, "").ids) == 1


def whole(batch: Batch, row: int) -> slice:
    return slice(0, int(batch.mask[row].sum()))


def test_batch_mates_and_the_side_of_padding_do_not_matter(lm: LanguageModel) -> None:
    batch = inputs_of(lm, *TEXTS).collate(np.arange(3))
    together = states(lm, batch)
    shifts = (batch.ids.shape[1] - batch.mask.sum(1)).tolist()
    left = replace(
        batch,
        ids=torch.stack([row.roll(by) for row, by in zip(batch.ids, shifts, strict=True)]),
        mask=batch.mask.flip(1),
        positions=(batch.mask.flip(1).cumsum(1) - 1).clamp(min=0),
    )
    moved = states(lm, left)
    for row, text in enumerate(TEXTS):
        alone = states(lm, inputs_of(lm, text).collate(np.arange(1)))[0]
        close(together[row, whole(batch, row)], alone)
        close(moved[row, shifts[row] :], alone)


def test_without_a_linked_entity_and_after_leaving_all_is_as_it_was(lm: LanguageModel) -> None:
    """A plug that has nothing to say changes no bit; one that had something leaves none behind."""
    batch = inputs_of(lm, *TEXTS).collate(np.arange(3))
    slotted = replace(batch, slot_index=torch.tensor([1]), slot_rows=torch.tensor([0]))
    loud = torch.full((1, lm.slot_width), 3.0)
    before, config, weights = states(lm, batch), lm.config.to_dict(), digest(lm)
    with lm.slots(lambda rows: loud[rows]):
        assert torch.equal(states(lm, batch), before)
        with rewritten(lm.layers[0], lambda hidden: hidden + 1):
            assert not torch.equal(states(lm, slotted), before)
        in_a_tree(lm, TEXTS)
    assert torch.equal(states(lm, batch), before)
    assert digest(lm) == weights
    assert lm.config.to_dict() == config
    assert not any("forward" in vars(module) for module in lm.modules())
    hooks = [(*m._forward_hooks, *m._forward_pre_hooks) for m in lm.modules()]
    assert not any(hooks)


def bounded(tokenizer: Any, before: bool, after: bool) -> Any:
    """A tokenizer that begins texts with a token of its own, ends them with one, or neither."""
    made = deepcopy(tokenizer)
    start, end = made.bos_token, made.eos_token
    single = [*([start] if before else []), "$A", *([end] if after else [])]
    ids = [(start, made.bos_token_id), (end, made.eos_token_id)]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(single), special_tokens=ids
    )
    return made


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_a_text_begins_once_and_does_not_end(tmp_path: Path, before: bool, after: bool) -> None:
    lm = load_folder(write_decoder(tmp_path, "llama"))
    tokenizer = bounded(lm.tokenizer, before, after)
    examples = [Example(str(n), text, (), "", blank=len(text)) for n, text in enumerate(TEXTS)]
    inputs = encode(tokenizer, examples, [()] * 3, LAYOUT)
    for row, text in enumerate(TEXTS):
        ids = inputs.ids[slice(*inputs.bounds[row : row + 2])].tolist()
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == [tokenizer.bos_token_id] * before + own


def test_a_decoder_without_a_token_that_begins_a_text_says_what_it_lacks(tmp_path: Path) -> None:
    lm = load_folder(write_decoder(tmp_path, "llama"))
    tokenizer = bounded(lm.tokenizer, before=False, after=False)
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(InputError, match="no token that begins or ends a text") as caught:
        encode(tokenizer, [Example("1", "", (), "", blank=0)], [()], LAYOUT)
    assert "\n" not in str(caught.value)


def test_what_must_stay_and_is_longer_than_the_window_is_told(lm: LanguageModel) -> None:
    text = " ".join(["istanbul"] * 30)
    ends = (Mention(0, 8, "a", Role.HEAD), Mention(len(text) - 8, len(text), "b", Role.TAIL))
    example = Example("1", text, ends, "", blank=len(text))
    layout = replace(LAYOUT, max_length=12, slot="{slot} {mention}")
    inputs = encode(lm.tokenizer, [example], [(0, 1)], layout)
    assert len(inputs.ids) == 12
    assert inputs.shortened == 1
    assert len(inputs.slots) == 2
    assert inputs.ids[-1] == lm.tokenizer(text, add_special_tokens=False)["input_ids"][-1]
    with pytest.raises(InputError, match=r"example 1: .* raise max_length") as caught:
        encode(lm.tokenizer, [example], [(0, 1)], replace(layout, max_length=4))
    assert "\n" not in str(caught.value)


JOINING = {"prepended", "unigram unsplit", "without blanks"}
"""Tokenizers that may write a blank and the words on both sides of it as one token."""


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - JOINING))
def test_a_candidate_leaves_the_tokens_before_it_as_they_are(name: str) -> None:
    tokenizer = family(name)
    texts, words = ("we saw Istanbul today", "it rained in Tokyo,"), ("red", "a river", "Berlin")
    for text in texts:
        before, *pieces = bare_tokens(tokenizer, [text, *(f"{text} {word}" for word in words)])
        for ids, spelled in zip(pieces, inner_tokens(tokenizer, words), strict=True):
            assert ids == [*before, *spelled]
