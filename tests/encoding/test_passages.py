"""Texts that entities bring along: the input stays whole, and a branch is seen by its own alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kbench.data import Example, Mention
from kbench.encoding import Inputs, Layout, TokenKind, encode
from kbench.encoding.passages import Passage, shares
from kbench.model import LanguageModel
from tests.hostile import MARKERS, examples

TEXTS = (
    "istanbul is a city . it lies in turkey .",
    "tokyo is a city in japan; people pay with the yen .",
    "red",
)


def example(text: str = "we saw istanbul and tokyo today") -> Example:
    spans = [(7, 15), (20, 25)]
    return Example("x", text, tuple(Mention(a, b, "e") for a, b in spans), "label")


def encoded(tokenizer: Any, passages: list[Passage], room: int = 64) -> Inputs:
    layout = Layout({}, None, 32, room=room)
    return encode(tokenizer, [example()], [(0, 1)], layout, [passages])


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(-5, 120))
def test_shares_are_fair_and_waste_nothing(wanted: list[int], room: int) -> None:
    given_ = shares(wanted, room)
    assert all(0 <= g <= w for g, w in zip(given_, wanted, strict=True))
    assert sum(given_) == min(max(0, room), sum(wanted))
    # Who gets less than it wants gets as much as anybody, but for a remainder.
    for g, w in zip(given_, wanted, strict=True):
        if g < w:
            assert g >= max(given_) - 1


@settings(max_examples=60)
@given(case=examples(), texts=st.lists(st.sampled_from(TEXTS), max_size=3), room=st.integers(0, 90))
def test_appended_texts_leave_the_input_as_it_is(
    tokenizer: Any, case: tuple[Example, tuple[int, ...]], texts: list[str], room: int
) -> None:
    one, rows = case
    layout = Layout(MARKERS, "{slot} / {mention}", 60)
    plain = encode(tokenizer, [one], [rows], layout)
    brought = [[Passage(text) for text in texts]]
    got = encode(tokenizer, [one], [rows], replace(layout, room=room), brought)
    body = len(plain.ids) - 1
    assert got.ids[:body].tolist() == plain.ids[:body].tolist()
    for name in ("slots", "spans", "slot_rows", "span_rows", "blanks"):
        assert getattr(got, name).tolist() == getattr(plain, name).tolist()
    assert len(got.ids) <= max(room, len(plain.ids))
    if got.segments is None:
        assert got.ids.tolist() == plain.ids.tolist()
    else:
        assert got.segments.tolist() == (got.kinds == TokenKind.PASSAGE).tolist()


def test_two_texts_are_set_apart_as_the_tokenizer_sets_them(tokenizer: Any) -> None:
    got = encoded(tokenizer, [Passage("red thing")])
    text = "we saw istanbul and tokyo today"
    assert got.ids.tolist() == tokenizer(text, "red thing")["input_ids"]


def test_passages_are_cut_at_sentences_and_share_the_room(tokenizer: Any) -> None:
    whole = encoded(tokenizer, [Passage(TEXTS[0]), Passage(TEXTS[1])])
    first = tokenizer("istanbul is a city .", add_special_tokens=False)["input_ids"]
    room = len(encoded(tokenizer, []).ids) + 2 * len(first) + 5
    short = encoded(tokenizer, [Passage(TEXTS[0]), Passage(TEXTS[1])], room)
    assert len(short.ids) <= room < len(whole.ids)
    body = int(np.flatnonzero(short.kinds == TokenKind.PASSAGE)[0])
    assert short.ids[body : body + len(first)].tolist() == first


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("柏林在德国。", "巴黎在法国！？"),
        ("दिल्ली एक शहर है।", " वह बड़ा है।"),
        ("هل هي مدينة؟", " نعم، هي مدينة."),
        ("እሱ ከተማ ነው።", " ትልቅ ነው።"),
    ],
)
def test_sentences_end_as_their_script_ends_them(tokenizer: Any, first: str, second: str) -> None:
    alone = encoded(tokenizer, [Passage(first)], 128)
    room = len(alone.ids) + 1  # not enough for the second
    short = encoded(tokenizer, [Passage(first + second)], room)
    assert short.ids.tolist() == alone.ids.tolist()


def test_a_branch_goes_on_from_its_mention_and_only_that_sees_it(tokenizer: Any) -> None:
    got = encoded(tokenizer, [Passage("red", 0), Passage("green thing", 1), Passage("blue", 1)])
    batch = got.collate(np.array([0]))
    assert batch.positions is not None
    assert batch.visible is not None
    assert got.branches is not None
    numbers, visible = got.branches.numbers, batch.visible[0]
    trunk = np.flatnonzero(numbers == 0)
    assert batch.positions[0, trunk].tolist() == list(range(len(trunk)))
    assert visible[trunk][:, trunk].all()
    for number, mention in ((1, 0), (2, 1), (3, 1)):
        own = np.flatnonzero(numbers == number)
        start, end = got.spans[mention]
        assert batch.positions[0, own].tolist() == list(range(end, end + len(own)))
        seen = np.zeros(len(numbers), dtype=bool)
        seen[own] = seen[start:end] = True
        for token in own:
            assert visible[token].tolist() == seen.tolist()
            assert visible[:, token].tolist() == seen.tolist()


def test_what_hangs_at_a_mention_changes_no_other_token_in_one_layer(lm: LanguageModel) -> None:
    tokenizer = lm.tokenizer
    plain, hung = encoded(tokenizer, []), encoded(tokenizer, [Passage("we saw red", 1)])
    layer, chosen = lm.layers[0], np.array([0])
    states: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda *given: states.append(given[2].detach()))
    with torch.inference_mode():
        for inputs in (plain, hung):
            lm(inputs.collate(chosen))
    handle.remove()
    before, after = states[0][0], states[1][0, : len(plain.ids)]
    changed = (before - after).abs().amax(-1) > 1e-6
    start, end = plain.spans[1]
    expected = np.zeros(len(plain.ids), dtype=bool)
    expected[start:end] = True
    assert changed.tolist() == expected.tolist()


def test_examples_with_and_without_branches_share_a_batch(lm: LanguageModel) -> None:
    layout = Layout({}, None, 32, room=64)
    rows = [(0, 1), (-1, -1)]
    brought = [[Passage("red", 0)], []]
    both = encode(lm.tokenizer, [example(), example()], rows, layout, brought)
    alone = encode(lm.tokenizer, [example()], rows[1:], layout)
    with torch.inference_mode():
        together = lm(both.collate(np.array([0, 1])))[1, : len(alone.ids)]
        single = lm(alone.collate(np.array([0])))[0]
    assert torch.allclose(together, single, atol=1e-5)


@pytest.mark.parametrize("text", ["a b", "x"])
def test_passages_without_room_are_left_out(tokenizer: Any, text: str) -> None:
    got = encoded(tokenizer, [Passage(text)], 0)
    assert got.segments is None
    assert got.ids.tolist() == encoded(tokenizer, []).ids.tolist()
