"""Encoding on hostile text: every insertion where it belongs, every text token untouched."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from kbench.data import Example, Mention, Role
from kbench.encoding import Inputs, Layout, TokenKind, affixes, encode
from kbench.errors import KbenchError
from tests.hostile import MARKERS, TEMPLATES, byte_level, examples

LONG = 100_000


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    clean = "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in text)
    return list(tokenizer(clean, add_special_tokens=False, verbose=False)["input_ids"])


def one(tokenizer: Any, example: Example, rows: tuple[int, ...], layout: Layout) -> Inputs:
    return encode(tokenizer, [example], [rows], layout)


@settings(max_examples=80)
@given(case=examples())
def test_every_linked_mention_has_exactly_one_slot(
    tokenizer: Any, case: tuple[Example, tuple[int, ...]]
) -> None:
    example, rows = case
    got = one(tokenizer, example, rows, Layout(MARKERS, TEMPLATES[0], LONG))
    assert sorted(got.slot_rows.tolist()) == sorted(row for row in rows if row >= 0)
    assert (got.kinds[got.slots] == TokenKind.SLOT).all()
    assert (got.kinds == TokenKind.SLOT).sum() == len(got.slots)
    assert np.all(np.diff(got.slots) > 0)


@settings(max_examples=80)
@given(case=examples(), template=st.sampled_from(TEMPLATES))
def test_without_slots_the_model_sees_the_same_text_and_markers(
    tokenizer: Any, case: tuple[Example, tuple[int, ...]], template: str
) -> None:
    example, rows = case
    unlinked = tuple(-1 for _ in rows)
    without = one(tokenizer, example, rows, Layout(MARKERS, None, LONG))
    bare = one(tokenizer, example, unlinked, Layout(MARKERS, template, LONG))
    # Markers that cannot be told from the template's own tokens by accident.
    slotted = one(tokenizer, example, rows, Layout({}, template, LONG))
    unmarked = one(tokenizer, example, rows, Layout({}, None, LONG))
    assert without.ids.tolist() == bare.ids.tolist()
    assert without.kinds.tolist() == bare.kinds.tolist()
    assert not len(without.slots)
    assert not len(bare.slots)
    inserted = np.isin(slotted.kinds, (TokenKind.SLOT, TokenKind.INSERTED))
    assert slotted.ids[~inserted].tolist() == unmarked.ids.tolist()


@settings(max_examples=50)
@given(cases=st.lists(examples(), max_size=5))
def test_many_examples_together_are_encoded_as_each_alone(
    tokenizer: Any, cases: list[tuple[Example, tuple[int, ...]]]
) -> None:
    layout = Layout(MARKERS, TEMPLATES[1], LONG)
    many = encode(tokenizer, [e for e, _ in cases], [r for _, r in cases], layout)
    assert len(many) == len(cases)
    for i, (example, rows) in enumerate(cases):
        alone = one(tokenizer, example, rows, layout)
        for flat, bounds in (
            ("ids", "bounds"),
            ("kinds", "bounds"),
            ("slots", "slot_bounds"),
            ("slot_rows", "slot_bounds"),
            ("spans", "span_bounds"),
            ("span_rows", "span_bounds"),
        ):
            start, end = getattr(many, bounds)[i : i + 2]
            assert getattr(many, flat)[start:end].tolist() == getattr(alone, flat).tolist()
        assert many.blanks[i] == alone.blanks[0]
    assert many.lengths.tolist() == [many.bounds[i + 1] - many.bounds[i] for i in range(len(many))]


@settings(max_examples=30)
@given(cases=st.lists(examples(), min_size=1, max_size=3))
def test_encoding_leaves_the_tokenizer_as_it_was(
    tokenizer: Any, cases: list[tuple[Example, tuple[int, ...]]]
) -> None:
    before = tokenizer.backend_tokenizer.to_str(), len(tokenizer), tokenizer.get_added_vocab()
    encode(tokenizer, [e for e, _ in cases], [r for _, r in cases], Layout(MARKERS, TEMPLATES[0]))
    after = tokenizer.backend_tokenizer.to_str(), len(tokenizer), tokenizer.get_added_vocab()
    assert after == before
    assert json.loads(after[0])["truncation"] is None


def test_a_tokenizer_that_came_with_truncation_and_padding_encodes_whole_texts() -> None:
    plain, cut = byte_level(), byte_level()
    cut.backend_tokenizer.enable_truncation(4)
    cut.backend_tokenizer.enable_padding(length=40)
    example = Example("x", "we saw istanbul today again", (Mention(7, 15, "e"),), "label")
    layout = Layout({}, TEMPLATES[0])
    assert one(cut, example, (3,), layout).ids.tolist() == (
        one(plain, example, (3,), layout).ids.tolist()
    )


def words(tokenizer: Any, inputs: Inputs) -> list[str]:
    names = tokenizer.convert_ids_to_tokens(inputs.ids.tolist())
    return [
        "<e>" if kind == TokenKind.SLOT else name
        for name, kind in zip(names, inputs.kinds, strict=True)
    ]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{slot} / {mention}", "we saw # <e> / it # today ."),
        ("{mention} ( {slot} )", "we saw # it ( <e> ) # today ."),
        (None, "we saw # it # today ."),
    ],
)
def test_markers_lie_outside_the_slot(
    toy_tokenizer: Any, template: str | None, expected: str
) -> None:
    example = Example("x", "We saw it today.", (Mention(7, 9, "e", Role.HEAD),), "label")
    got = one(toy_tokenizer, example, (5,), Layout(MARKERS, template))
    assert words(toy_tokenizer, got) == ["[CLS]", *expected.split(), "[SEP]"]


def test_nested_mentions_nest_their_insertions(toy_tokenizer: Any) -> None:
    mentions = (Mention(3, 9, "inner", Role.TAIL), Mention(0, 9, "outer", Role.HEAD))
    example = Example("x", "we saw it", mentions, "label", blank=9)
    got = one(toy_tokenizer, example, (1, 2), Layout(MARKERS, TEMPLATES[0]))
    expected = "# <e> / we $ <e> / saw it $ # [MASK]"
    assert words(toy_tokenizer, got) == ["[CLS]", *expected.split(), "[SEP]"]
    assert got.slot_rows.tolist() == [2, 1]
    # The outer one holds all between its own markers.
    assert got.spans.tolist() == [[8, 10], [4, 11]]


def test_the_blank_between_two_adjacent_mentions_belongs_to_neither(toy_tokenizer: Any) -> None:
    mentions = (Mention(0, 2, "a", Role.HEAD), Mention(2, 3, "b", Role.TAIL))
    example = Example("x", "it.", mentions, "label", blank=2)
    got = one(toy_tokenizer, example, (1, 2), Layout(MARKERS, TEMPLATES[0]))
    expected = "# <e> / it # [MASK] $ <e> / . $"
    assert words(toy_tokenizer, got) == ["[CLS]", *expected.split(), "[SEP]"]
    assert got.spans.tolist() == [[4, 5], [10, 11]]


@pytest.mark.parametrize("text", ["\u200b", " ", "\x00", "\u0301"])
def test_a_mention_that_yields_no_token_keeps_its_slot(toy_tokenizer: Any, text: str) -> None:
    assert tokens_of(toy_tokenizer, text) == []
    example = Example("x", f"we {text}", (Mention(3, 4, "e", Role.TARGET),), "label")
    got = one(toy_tokenizer, example, (7,), Layout(MARKERS, TEMPLATES[0]))
    assert words(toy_tokenizer, got) == ["[CLS]", "we", "$", "<e>", "/", "$", "[SEP]"]
    assert got.spans.tolist() == [[0, 0]]


def test_a_lower_case_that_is_longer_moves_no_span(toy_tokenizer: Any) -> None:
    text = "İİİİ today it"
    example = Example("x", text, (Mention(11, 13, "e"),), "label")
    got = one(toy_tokenizer, example, (0,), Layout({}, TEMPLATES[0]))
    start, end = got.spans[0]
    assert toy_tokenizer.convert_ids_to_tokens(got.ids[start:end].tolist()) == ["it"]


def test_the_placeholder_of_a_slot_is_not_the_padding(tokenizer: Any) -> None:
    example = Example("x", "it", (Mention(0, 2, "e"),), "label")
    got = one(tokenizer, example, (0,), Layout({}, TEMPLATES[0]))
    assert got.pad == tokenizer.pad_token_id
    assert got.ids[got.slots[0]] != got.pad


def test_no_example_gives_empty_inputs(toy_tokenizer: Any) -> None:
    got = encode(toy_tokenizer, [], [], Layout(MARKERS, TEMPLATES[0]))
    assert len(got) == 0
    assert got.bounds.tolist() == [0]
    assert got.spans.shape == (0, 2)


def test_an_empty_text_is_its_specials(toy_tokenizer: Any) -> None:
    got = one(toy_tokenizer, Example("x", "", (), "label", blank=0), (), Layout({}))
    assert words(toy_tokenizer, got) == ["[CLS]", "[MASK]", "[SEP]"]


@pytest.mark.parametrize("template", ["{mention}", "{slot} {slot}", "{slot} {mention} {mention}"])
def test_a_template_without_one_slot_or_with_two_mentions_is_refused(template: str) -> None:
    with pytest.raises(KbenchError, match=r"expected \{slot\} once and \{mention\} at most once"):
        _ = Layout({}, template).around


def test_as_many_rows_as_examples_are_expected(toy_tokenizer: Any) -> None:
    with pytest.raises(ValueError):
        encode(toy_tokenizer, [Example("x", "a", (), "label")], [], Layout({}))


def _characters(known: str, template: str) -> PreTrainedTokenizerFast:
    vocabulary = {sign: n for n, sign in enumerate([*known, "<s>", "</s>"])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(s, vocabulary[s]) for s in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core)


@pytest.mark.parametrize("known", ["ab", "0b", "的"])
def test_specials_are_found_before_and_after_whatever_letters_are_known(known: str) -> None:
    tokenizer = _characters(known, "<s> $A </s> </s>")
    around = affixes(tokenizer)
    ids = [len(known), len(known) + 1]
    assert around.before == (ids[0],)
    assert around.after == (ids[1], ids[1])


def test_a_tokenizer_whose_specials_cannot_be_told_is_refused() -> None:
    with pytest.raises(KbenchError, match="special tokens"):
        affixes(_characters("xyz", "<s> $A </s>"))


def test_a_blank_needs_a_mask_token() -> None:
    tokenizer = _characters("ab", "<s> $A </s>")
    with pytest.raises(KbenchError, match="no mask token"):
        one(tokenizer, Example("x", "ab", (), "label", blank=1), (), Layout({}))


def test_a_word_after_a_cut_is_the_same_word_to_a_byte_level_tokenizer() -> None:
    tokenizer = byte_level()
    text = "we saw istanbul today"
    example = Example("x", text, (Mention(7, 15, "e", Role.CONTEXT),), "label", len(text))
    cut = one(tokenizer, example, (-1,), Layout({}, None))
    assert cut.ids[1:-2].tolist() == tokens_of(tokenizer, text)
    slotted = one(tokenizer, example, (3,), Layout({}, TEMPLATES[0]))
    text_only = slotted.ids[slotted.kinds == TokenKind.TEXT]
    assert text_only.tolist() == tokens_of(tokenizer, text)


@settings(max_examples=80)
@given(case=examples(max_mentions=1))
def test_a_slot_alone_takes_the_place_of_its_mention(
    tokenizer: Any, case: tuple[Example, tuple[int, ...]]
) -> None:
    example, rows = case
    got = one(tokenizer, example, rows, Layout({}, "{slot}", LONG))
    beside = one(tokenizer, example, rows, Layout({}, "{slot} {mention}", LONG))
    linked = [m for m, row in zip(example.mentions, rows, strict=True) if row >= 0]
    if not linked:
        assert got.ids.tolist() == beside.ids.tolist()
        return
    assert got.spans.tolist() == [[got.slots[0], got.slots[0] + 1]]
    start, end = beside.spans[0]
    mine = np.zeros(len(beside.ids), dtype=bool)
    mine[start:end] = beside.kinds[start:end] == TokenKind.TEXT
    if tokens_of(tokenizer, "a b") == tokens_of(tokenizer, "a  b "):
        # Else a blank before the mention goes with what follows its slot.
        assert got.ids.tolist() == beside.ids[~mine].tolist()
    assert got.slot_rows.tolist() == [rows[0]]
