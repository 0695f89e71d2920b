"""Several slots of an entity: they stand together, are kept or dropped together, and are filled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Inputs, Layout, TokenKind, Tree, Trees, encode
from kbench.encoding.batch import picked
from kbench.encoding.demonstrations import Demonstrations
from kbench.errors import InputError
from kbench.model import LanguageModel
from kbench.model.generation import go_on
from kbench.model.huggingface import load_folder
from tests.architectures import write, write_decoder
from tests.hostile import MARKERS, TEMPLATES, examples

LONG = 100_000


@settings(max_examples=80)
@given(case=examples(), template=st.sampled_from(TEMPLATES), count=st.integers(1, 4))
def test_they_are_what_one_slot_is_so_many_times(
    tokenizer: Any, case: tuple[Example, tuple[int, ...]], template: str, count: int
) -> None:
    example, rows = case
    one, several = (
        encode(tokenizer, [example], [rows], Layout(MARKERS, template, LONG, slots=slots))
        for slots in (1, count)
    )
    assert several.slots_each == count
    assert several.slot_rows.tolist() == np.repeat(one.slot_rows, count).tolist()
    assert (np.diff(several.slots.reshape(-1, count), axis=1) == 1).all()
    assert (several.kinds == TokenKind.SLOT).sum() == len(several.slots)
    # Of each entity's slots the first alone: that is the input with one.
    keep = np.ones(len(several.ids), dtype=bool)
    keep[several.slots.reshape(-1, count)[:, 1:]] = False
    assert several.ids[keep].tolist() == one.ids.tolist()
    before = np.concatenate([[0], np.cumsum(keep)])
    assert before[several.spans].tolist() == one.spans.tolist()
    assert one.blanks[0] < 0 or before[several.blanks[0]] == one.blanks[0]


@settings(max_examples=80)
@given(case=examples(max_mentions=6), data=st.data())
def test_a_full_text_keeps_or_drops_those_of_a_mention_together(
    toy_tokenizer: Any, case: tuple[Example, tuple[int, ...]], data: st.DataObject
) -> None:
    example, rows = case

    def laid_out(length: int) -> Inputs:
        layout = Layout(MARKERS, TEMPLATES[0], length, slots=3)
        return encode(toy_tokenizer, [example], [rows], layout)

    full = laid_out(LONG)
    limit = data.draw(st.integers(1, len(full.ids)))
    try:
        short = laid_out(limit)
    except InputError:
        return
    assert len(short.ids) <= limit
    assert (np.diff(short.slots.reshape(-1, 3), axis=1) == 1).all()
    assert (short.slot_rows.reshape(-1, 3) == short.slot_rows[::3, None]).all()
    assert short.unslotted == (len(full.slots) - len(short.slots)) // 3


def test_a_template_that_repeats_the_slot_is_told_how_to_say_it(toy_tokenizer: Any) -> None:
    for layout, said in (
        (Layout({}, "{slot} {slot} / {mention}"), r"once.*by their number, `slots`"),
        (Layout({}, "{slot} / {mention}", slots=0), "expected 1 at least"),
    ):
        with pytest.raises(InputError, match=said):
            encode(toy_tokenizer, [Example("1", "it", (), "")], [()], layout)


@pytest.fixture(scope="module", params=["bert", "gpt2", "llama"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    written = write if request.param == "bert" else write_decoder
    return load_folder(written(folder, request.param))


TEXTS = ("we saw istanbul today", "near the river it rained , we saw istanbul")
ROWS = (4, 9)


def inputs_of(lm: LanguageModel, count: int, shown: bool = False) -> Inputs:
    texts = []
    for text in TEXTS[:1] if shown else TEXTS:
        start = text.index("istanbul")
        mention = Mention(start, start + 8, "Q1", Role.TARGET)
        blank = len(text) if lm.left_to_right and not shown else None
        texts.append(Example(text, text, (mention,), "", blank=blank))
    layout = Layout({}, "{slot} / {mention}", left_to_right=lm.left_to_right, slots=count)
    return encode(lm.tokenizer, texts, [[row] for row in ROWS[: len(texts)]], layout)


def source(lm: LanguageModel, count: int) -> Any:
    table = torch.randn(10, count, lm.slot_width, generator=torch.Generator().manual_seed(1))
    return lambda rows: table[rows]


def by_hand(lm: LanguageModel, inputs: Inputs, number: int, count: int) -> Tensor:
    """The states of one text whose vectors are put together here."""
    batch = inputs.collate(np.array([number]))
    vectors = lm.word_embeddings(batch.ids).clone()
    for at, own in zip(batch.slot_index.tolist(), source(lm, count)(ROWS[number]), strict=True):
        vectors[0, at] = own
    hidden: Tensor = lm.base(**lm.given(batch, vectors)).last_hidden_state
    return hidden[0]


@torch.no_grad()
@pytest.mark.parametrize("held", [False, True])
def test_each_is_filled_with_its_own_vector(lm: LanguageModel, held: bool) -> None:
    inputs = inputs_of(lm, 3)
    batch = inputs.collate(np.arange(2))
    with lm.slots(source(lm, 3)):
        if held:
            with lm.held(torch.from_numpy(inputs.slot_rows)):
                hidden = lm(batch)
        else:
            hidden = lm(batch)
        part = lm(picked(batch, torch.tensor([1]), batch.ids.shape[1]))
    for number in range(2):
        alone = by_hand(lm, inputs, number, 3)
        torch.testing.assert_close(hidden[number, : len(alone)], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(part[0], hidden[1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_plug_of_another_number_is_refused(lm: LanguageModel) -> None:
    batch = inputs_of(lm, 3).collate(np.arange(2))
    for count in (1, 2):
        own = source(lm, count)
        with (
            lm.slots((lambda rows, own=own: own(rows)[:, 0]) if count == 1 else own),
            pytest.raises(RuntimeError, match=f"3 slots an entity, and the plug gives {count} "),
        ):
            lm(batch)


@torch.no_grad()
def test_trees_demonstrations_and_answers_have_them_too(lm: LanguageModel) -> None:
    if not lm.left_to_right:
        pytest.skip("texts to go on with are of decoders")
    inputs = inputs_of(lm, 3)
    shown = Demonstrations(lm.tokenizer, inputs_of(lm, 3, shown=True)).before(inputs, 60)
    assert shown.slots_each == 3
    assert len(shown.slots) == 4 * 3
    tree = Trees(shown, (Tree.of([[5], [6, 7]]),), np.zeros(2, dtype=np.int64))
    with lm.slots(source(lm, 3)):
        plain = lm(shown.collate(np.array([1])))[0]
        beside = lm(tree.collate(np.array([1])))[0]
        torch.testing.assert_close(beside[: len(plain)], plain, atol=1e-5, rtol=1e-5)
        batch = shown.collate(np.arange(2))
        tokens, _ = go_on(lm, batch, 4, torch.empty(0, dtype=torch.int64))
        alone = shown.collate(np.array([0]))
        for step in range(4):
            assert int(lm.predict_tokens(lm(alone)[0, -1:]).argmax()) == int(tokens[0, step])
            ids = torch.cat([alone.ids, tokens[:1, step : step + 1]], 1)
            alone = replace(alone, ids=ids, mask=torch.ones_like(ids))


def test_addresses_are_those_of_one_slot_where_nothing_is_said(tmp_path: Path) -> None:
    from kbench.parts import registry
    from kbench.parts.catalogue import Kind

    method = registry.get(Kind.METHODS, "map-tuning")
    assert method().addressed_options == method({"slots": 1}).addressed_options
    assert "slots" not in method().addressed_options
    assert method({"slots": 2}).addressed_options["slots"] == 2
