"""Truncation loses neither mentions, slots, markers nor the blank, and keeps the order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kbench.data import Example, Mention, Role
from kbench.encoding import Inputs, Layout, TokenKind, encode
from kbench.encoding.truncation import Tokens, truncate
from kbench.errors import KbenchError
from tests.hostile import MARKERS, TEMPLATES, examples

LONG = 100_000
MARKED = (Role.TARGET, Role.HEAD, Role.TAIL)


def one(
    tokenizer: Any, example: Example, rows: tuple[int, ...], length: int, template: str
) -> Inputs:
    return encode(tokenizer, [example], [rows], Layout(MARKERS, template, length))


def own(inputs: Inputs) -> list[list[int]]:
    """Positions of the text tokens of each mention."""
    return [
        [p for p in range(start, end) if inputs.kinds[p] == TokenKind.TEXT]
        for start, end in inputs.spans.tolist()
    ]


def claims(example: Example, rows: tuple[int, ...]) -> list[bool]:
    """Which mentions have a place of their own: the marked ones, and those with a slot."""
    return [
        m.role != Role.CONTEXT or row >= 0 for m, row in zip(example.mentions, rows, strict=True)
    ]


def essentials(inputs: Inputs, example: Example, rows: tuple[int, ...]) -> int:
    """Tokens that may not be lost: everything inserted, and the ends of mentions with a claim."""
    ends = {
        p
        for (start, end), claim in zip(inputs.spans.tolist(), claims(example, rows), strict=True)
        if claim and end
        for p in (start, end - 1)
    }
    inserted = set(np.flatnonzero(inputs.kinds != TokenKind.TEXT).tolist())
    return len(inserted | ends)


def is_subsequence(short: list[Any], long: list[Any]) -> bool:
    rest = iter(long)
    return all(item in rest for item in short)


@settings(max_examples=150)
@given(case=examples(), template=st.sampled_from(TEMPLATES), data=st.data())
def test_truncation_keeps_all_that_matters(
    tokenizer: Any, case: tuple[Example, tuple[int, ...]], template: str, data: st.DataObject
) -> None:
    example, rows = case
    full = one(tokenizer, example, rows, LONG, template)
    limit = data.draw(st.integers(essentials(full, example, rows), len(full.ids)))
    short = one(tokenizer, example, rows, limit, template)

    assert len(short.ids) == limit
    tokens = list(zip(short.ids.tolist(), short.kinds.tolist(), strict=True))
    assert is_subsequence(tokens, list(zip(full.ids.tolist(), full.kinds.tolist(), strict=True)))
    inserted = short.kinds != TokenKind.TEXT
    assert short.ids[inserted].tolist() == full.ids[full.kinds != TokenKind.TEXT].tolist()
    assert (short.kinds[short.slots] == TokenKind.SLOT).all()
    assert short.slot_rows.tolist() == full.slot_rows.tolist()
    assert len(short.slots) == len(full.slots)
    if example.blank is not None:
        assert short.kinds[short.blanks[0]] == TokenKind.BLANK
    else:
        assert short.blanks[0] == -1
    spans = zip(full.spans.tolist(), short.spans.tolist(), strict=True)
    for (before, after), claim in zip(spans, claims(example, rows), strict=True):
        assert not any(after) or after[1] > after[0]
        if claim:
            assert any(after) == any(before)
        if claim and any(before):
            assert short.ids[after[0]] == full.ids[before[0]]
            assert short.ids[after[1] - 1] == full.ids[before[1] - 1]
    assert short.unslotted == 0
    assert short.shortened == (limit < len(full.ids))


@settings(max_examples=100)
@given(case=examples(roles=MARKED), data=st.data())
def test_too_little_room_for_marked_mentions_is_an_error_that_names_the_example(
    toy_tokenizer: Any, case: tuple[Example, tuple[int, ...]], data: st.DataObject
) -> None:
    example, rows = case
    full = one(toy_tokenizer, example, rows, LONG, TEMPLATES[0])
    limit = data.draw(st.integers(0, essentials(full, example, rows) - 1))
    with pytest.raises(KbenchError, match=r"example x: .* more than .* tokens"):
        one(toy_tokenizer, example, rows, limit, TEMPLATES[0])


@settings(max_examples=150)
@given(case=examples(max_mentions=6), data=st.data())
def test_context_mentions_lose_their_slots_before_anything_else_fails(
    toy_tokenizer: Any, case: tuple[Example, tuple[int, ...]], data: st.DataObject
) -> None:
    example, rows = case
    context = [m.role == Role.CONTEXT for m in example.mentions]
    muted = tuple(-1 if c else row for row, c in zip(rows, context, strict=True))
    bare = one(toy_tokenizer, example, muted, LONG, TEMPLATES[0])
    least = essentials(bare, example, muted)
    full = one(toy_tokenizer, example, rows, LONG, TEMPLATES[0])
    most = essentials(full, example, rows)
    assume(least < most)
    limit = data.draw(st.integers(least, most - 1))
    short = one(toy_tokenizer, example, rows, limit, TEMPLATES[0])

    assert len(short.ids) <= limit
    kept = list(short.slot_rows)
    for row, c in zip(rows, context, strict=True):
        if row >= 0 and not c:
            assert row in kept
            kept.remove(row)
    assert 0 < short.unslotted == len(full.slots) - len(short.slots)
    assert (short.kinds[short.slots] == TokenKind.SLOT).all()
    for before, after, c in zip(own(full), own(short), context, strict=True):
        assert c or bool(after) == bool(before)


@settings(max_examples=100)
@given(
    length=st.integers(1, 30),
    limit=st.integers(1, 30),
    kinds=st.lists(st.sampled_from([0, 1, 1, 1, 2, 3]), min_size=30, max_size=30),
    span=st.tuples(st.integers(0, 29), st.integers(0, 30)),
)
def test_mentions_come_before_the_text_nearest_to_them(
    length: int, limit: int, kinds: list[int], span: tuple[int, int]
) -> None:
    start, end = min(span[0], length), min(span[1], length)
    start, end = (start, end) if start < end else (0, 0)
    kind = np.array(kinds[:length], dtype=np.uint8)
    if end:
        kind[[start, end - 1]] = 1
    tokens = Tokens(
        np.arange(length), kind, np.flatnonzero(kind == 3), np.array([[start, end]]), -1
    )
    short = truncate(tokens, limit, [0])
    must = {int(p) for p in np.flatnonzero(kind != 1)} | ({start, end - 1} if end else set())
    if len(must) > limit:
        assert short is None
        return
    assert short is not None
    kept = short.ids.tolist()
    assert kept == sorted(kept)
    assert len(kept) == min(limit, length)
    assert must <= set(kept)
    assert [kept[p] for p in short.slots] == tokens.slots.tolist()
    assert kept[slice(*short.spans[0])] == [p for p in kept if start <= p < end]
    anchors = [p for p in must if kind[p] != 0] or [0]

    def cost(p: int) -> int:
        return 0 if start <= p < end else min(abs(p - anchor) for anchor in anchors)

    free = [cost(p) for p in kept if p not in must]
    lost = [cost(p) for p in range(length) if p not in kept]
    assert not free or not lost or max(free) <= min(lost)


@pytest.mark.parametrize("at", [0, 5_000, 9_994])
def test_a_sentence_of_ten_thousand_characters_keeps_its_mention(
    toy_tokenizer: Any, at: int
) -> None:
    text = ("we saw it today . " * 600)[:10_000]
    text = f"{text[:at]}prague{text[at + 6 :]}"
    example = Example("x", text, (Mention(at, at + 6, "e", Role.TARGET),), "label", blank=10_000)
    full = one(toy_tokenizer, example, (3,), LONG, TEMPLATES[0])
    short = one(toy_tokenizer, example, (3,), 32, TEMPLATES[0])
    assert len(short.ids) == 32
    start, end = short.spans[0]
    names = toy_tokenizer.convert_ids_to_tokens(short.ids[start:end].tolist())
    assert "".join(names).replace("##", "") == "prague"
    assert short.kinds[short.blanks[0]] == TokenKind.BLANK
    assert len(full.ids) > 2_000


def test_without_anything_to_stand_on_the_beginning_is_kept(toy_tokenizer: Any) -> None:
    example = Example("x", "we saw it today again with it", (), "label")
    full = one(toy_tokenizer, example, (), LONG, TEMPLATES[0])
    short = one(toy_tokenizer, example, (), 5, TEMPLATES[0])
    assert short.ids.tolist() == [*full.ids[:4].tolist(), int(full.ids[-1])]


def test_the_inside_of_a_long_mention_is_kept_before_the_words_beside_it(
    toy_tokenizer: Any,
) -> None:
    text = "it was prague today again"
    example = Example("x", text, (Mention(7, 13, "e", Role.TARGET),), "label")
    short = encode(toy_tokenizer, [example], [(-1,)], Layout({}, max_length=9))
    names = toy_tokenizer.convert_ids_to_tokens(short.ids.tolist())
    assert names == ["[CLS]", "was", "p", "##r", "##a", "##g", "##u", "##e", "[SEP]"]


def test_the_context_mention_farthest_from_the_target_loses_its_slot_first(
    toy_tokenizer: Any,
) -> None:
    text = "we saw it today again"
    mentions = (
        Mention(0, 2, "far", Role.CONTEXT),
        Mention(16, 21, "target", Role.TARGET),
        Mention(10, 15, "near", Role.CONTEXT),
    )
    example = Example("x", text, mentions, "label")
    full = one(toy_tokenizer, example, (1, 2, 3), LONG, TEMPLATES[0])
    short = one(
        toy_tokenizer, example, (1, 2, 3), essentials(full, example, (1, 2, 3)) - 1, TEMPLATES[0]
    )
    assert short.slot_rows.tolist() == [3, 2]
    assert short.unslotted == 1


def test_what_is_too_long_stays_whole_where_the_layout_does_not_truncate(
    toy_tokenizer: Any,
) -> None:
    example = Example("x", "we saw it today again", (), "label")
    layout = Layout(MARKERS, TEMPLATES[0], max_length=4, truncate=False)
    inputs = encode(toy_tokenizer, [example], [()], layout)
    assert len(inputs.ids) == 7
    assert inputs.shortened == 0


def test_any_number_of_context_mentions_gives_way_to_what_the_task_is_about(
    toy_tokenizer: Any,
) -> None:
    words = [f"kevo{number}" for number in range(60)]
    text = " ".join(words)
    spans = [(text.index(word), text.index(word) + len(word)) for word in words]
    mentions = tuple(
        Mention(start, end, f"Q{at}", Role.TARGET if at == 30 else Role.CONTEXT)
        for at, (start, end) in enumerate(spans)
    )
    example = Example("x", text, mentions, "label")
    short = one(toy_tokenizer, example, tuple(range(60)), 32, TEMPLATES[0])
    assert len(short.ids) <= 32
    assert 30 in short.slot_rows
    assert short.spans[30][1] > short.spans[30][0]
