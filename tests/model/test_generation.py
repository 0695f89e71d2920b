"""Answers of several tokens: what cached decoding says is what a full forward pass says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Batch, Inputs, Layout, Passage, encode
from kbench.errors import Unsupported
from kbench.model import Decoder, LanguageModel
from kbench.model.freezing import rewritten
from kbench.model.generation import NOTHING, ends_of, go_on, in_words
from kbench.model.huggingface import load_folder
from tests.architectures import DECODERS, write, write_decoder

TEXTS = ("we saw istanbul today", "near the river it rained and we saw istanbul again", "istanbul")
MOST = 8
NEVER = torch.empty(0, dtype=torch.int64)

Attached = Callable[[LanguageModel], AbstractContextManager[None]]


@pytest.fixture(scope="module", params=sorted(DECODERS))
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_folder(write_decoder(tmp_path_factory.mktemp(request.param), request.param))


def inputs_of(
    lm: LanguageModel,
    *texts: str,
    slot: str | None = None,
    documents: tuple[str, ...] = (),
) -> Inputs:
    examples, rows = [], []
    for number, text in enumerate(texts):
        start = text.index("istanbul")
        mention = Mention(start, start + 8, "Q1", Role.TARGET)
        examples.append(Example(str(number), text, (mention,), "", blank=len(text)))
        rows.append([number])
    brought = [[Passage(text) for text in documents] for _ in texts] if documents else ()
    layout = Layout({}, slot=slot, left_to_right=True, room=60)
    return encode(lm.tokenizer, examples, rows, layout, brought)


@contextmanager
def slots(lm: LanguageModel) -> Iterator[None]:
    table = torch.randn(len(TEXTS), lm.slot_width, generator=torch.Generator().manual_seed(1))
    with lm.slots(lambda rows: table[rows]):
        yield


@contextmanager
def hooks(lm: LanguageModel) -> Iterator[None]:
    """Adapters after each layer, as far from the identity as the layers themselves."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        maps = [torch.nn.Linear(lm.width, lm.width) for _ in lm.layers]

    def changed(own: torch.nn.Linear) -> Callable[[Tensor], Tensor]:
        return lambda hidden: hidden + own(hidden).tanh()

    first, second = (
        rewritten(layer, changed(own)) for layer, own in zip(lm.layers, maps, strict=True)
    )
    with torch.no_grad(), first, second:
        yield


WAYS: dict[str, tuple[Attached, dict[str, object]]] = {
    "nothing": (lambda _: nullcontext(), {}),
    "slots": (slots, {"slot": "{slot} / {mention}"}),
    "hooks": (hooks, {}),
    "documents": (lambda _: nullcontext(), {"documents": ("istanbul is a town", "it rains .")}),
}


def plainly(lm: LanguageModel, inputs: Inputs, row: int, most: int) -> tuple[list[int], float]:
    """Token by token, by a full forward pass over all that was said, alone and without a cache."""
    batch = inputs.collate(np.array([row]))
    said, total = [], 0.0
    for _ in range(most):
        logits = lm.predict_tokens(lm(batch)[0, -1:])[0].log_softmax(-1)
        said.append(int(logits.argmax()))
        total += float(logits.max())
        ids = torch.cat([batch.ids, torch.tensor([[said[-1]]])], 1)
        batch = replace(batch, ids=ids, mask=torch.ones_like(ids))
    return said, total


@pytest.mark.parametrize("way", WAYS)
def test_cached_decoding_is_the_full_forward_pass(lm: LanguageModel, way: str) -> None:
    attached, options = WAYS[way]
    inputs = inputs_of(lm, *TEXTS, **options)  # type: ignore[arg-type]
    with torch.inference_mode(), attached(lm):
        together, total = go_on(lm, inputs.collate(np.arange(3)), MOST, NEVER)
        for row in range(3):
            tokens, said = plainly(lm, inputs, row, MOST)
            assert together[row].tolist() == tokens
            assert float(total[row]) == pytest.approx(said, abs=1e-4 * max(1, abs(said)))
            alone, own = go_on(lm, inputs.collate(np.array([row])), MOST, NEVER)
            assert torch.equal(alone[0], together[row])
            torch.testing.assert_close(own[0], total[row], rtol=1e-4, atol=1e-4)


def test_a_text_that_has_ended_leaves_and_changes_no_other(lm: LanguageModel) -> None:
    batch = inputs_of(lm, *TEXTS).collate(np.arange(3))
    with torch.inference_mode():
        endless, _ = go_on(lm, batch, MOST, NEVER)
        # Each row ends where it first says what the first says at its second step.
        end = endless[0, 1:2]
        tokens, _ = go_on(lm, batch, MOST, end)
    for row in range(3):
        said = endless[row].tolist()
        until = said.index(int(end)) + 1 if int(end) in said else MOST
        assert tokens[row].tolist() == said[:until] + [NOTHING] * (MOST - until)


def test_left_padding_says_the_same_as_right(lm: LanguageModel) -> None:
    batch = inputs_of(lm, *TEXTS).collate(np.arange(3))
    lengths = batch.mask.sum(1)
    pushed = [len(row) - int(n) for row, n in zip(batch.ids, lengths, strict=True)]
    left = replace(
        batch,
        ids=torch.stack([row.roll(by) for row, by in zip(batch.ids, pushed, strict=True)]),
        mask=batch.mask.flip(1),
        positions=(batch.mask.flip(1).cumsum(1) - 1).clamp(min=0),
        blank_index=batch.blank_index + torch.tensor(pushed),
    )
    with torch.inference_mode():
        right, total = go_on(lm, batch, MOST, NEVER)
        same, other = go_on(lm, left, MOST, NEVER)
    assert torch.equal(right, same)
    torch.testing.assert_close(total, other, rtol=1e-4, atol=1e-4)


def test_without_positions_learnt_ones_are_wrong_behind_left_padding(tmp_path: Path) -> None:
    """Guards the test above: what it looks at can differ."""
    lm = load_folder(write_decoder(tmp_path, "gpt2"))
    batch = inputs_of(lm, TEXTS[0]).collate(np.arange(1))
    more = torch.zeros(1, 4, dtype=torch.int64)
    ids, mask = (torch.cat([more, part], 1) for part in (batch.ids, batch.mask))
    bare = replace(batch, ids=ids, mask=mask, blank_index=batch.blank_index + 4)
    with torch.inference_mode():
        assert go_on(lm, bare, MOST, NEVER)[1] != pytest.approx(
            float(go_on(lm, batch, MOST, NEVER)[1]), abs=1e-3
        )


def test_it_says_what_transformers_says_and_no_sampling_of_a_model_is_applied(
    tmp_path: Path,
) -> None:
    folder = write_decoder(tmp_path, "llama")
    trap = transformers.GenerationConfig(
        do_sample=True, temperature=5.0, top_k=3, repetition_penalty=3.0, eos_token_id=5
    )
    trap.save_pretrained(folder)
    lm = load_folder(folder)
    batch = inputs_of(lm, TEXTS[0]).collate(np.arange(1))
    with torch.inference_mode():
        ours, _ = go_on(lm, batch, MOST, NEVER)
    whole = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    # Not as an argument: what it leaves unsaid would be filled in from the model's own.
    whole.generation_config = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=MOST, eos_token_id=None, pad_token_id=1
    )
    with torch.inference_mode():
        theirs = whole.generate(input_ids=batch.ids, attention_mask=batch.mask)
    assert ours[0].tolist() == theirs[0, batch.ids.shape[1] :].tolist()


def test_an_answer_ends_at_a_new_line_and_not_at_a_full_stop(tmp_path: Path) -> None:
    lm = load_folder(write_decoder(tmp_path, "llama"))
    tokenizer = lm.tokenizer
    ends = set(ends_of(lm).tolist())
    (newline,) = tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert {tokenizer.eos_token_id, newline} <= ends
    stops = tokenizer(".,", add_special_tokens=False)["input_ids"]
    assert not ends & {*stops}
    own = tokenizer(" Washington, D.C.\nSt. Louis", add_special_tokens=False)["input_ids"]
    assert in_words(tokenizer, [[*own, NOTHING, NOTHING], [NOTHING]]) == ["Washington, D.C.", ""]


def test_what_reads_both_ways_goes_on_with_nothing(tmp_path: Path) -> None:
    lm = load_folder(write(tmp_path, "bert"))
    batch: Batch = inputs_of_bert(lm)
    with pytest.raises(Unsupported, match="reads both ways and goes on with no text"):
        go_on(lm, batch, MOST, NEVER)


def inputs_of_bert(lm: LanguageModel) -> Batch:
    example = Example("1", TEXTS[0], (), "")
    return encode(lm.tokenizer, [example], [()], Layout({})).collate(np.arange(1))


def test_nothing_is_left_behind(lm: LanguageModel) -> None:
    batch = inputs_of(lm, *TEXTS).collate(np.arange(3))
    with torch.inference_mode():
        before = lm(batch)
        go_on(lm, batch, MOST, NEVER)
        assert torch.equal(lm(batch), before)
    assert isinstance(lm, Decoder)
    assert lm._cache is None
