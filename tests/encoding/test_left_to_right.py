"""Texts to go on with: where they end, what stands before them, what gives way."""

from __future__ import annotations

import pytest

from kbench.data import Example, Mention, Role
from kbench.encoding import Layout, Passage, TokenKind, encode
from tests.families import FAMILIES, family

LAYOUT = Layout({}, left_to_right=True, room=200)
TEXT = "the river Rhine flows through the town of Basel and"
EXAMPLE = Example(
    "1",
    TEXT + " . later",
    (Mention(10, 15, "Q584", Role.TARGET), Mention(42, 47, "Q78")),
    ("Germany",),
    blank=len(TEXT) + 1,
)


@pytest.fixture(params=sorted(FAMILIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_text_ends_with_its_last_token_and_is_tokenized_as_a_whole(name: str) -> None:
    tokenizer = family(name)
    inputs = encode(tokenizer, [EXAMPLE], [(-1, -1)], LAYOUT)
    own = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    ids = inputs.ids.tolist()
    assert ids[len(ids) - len(own) :] == own
    assert inputs.blanks.tolist() == [len(ids) - 1]
    assert TokenKind.BLANK not in inputs.kinds


def test_a_slot_stands_before_its_mention_and_moves_nothing_else(name: str) -> None:
    tokenizer = family(name)
    bare = encode(tokenizer, [EXAMPLE], [(-1, -1)], LAYOUT)
    slotted = encode(
        tokenizer, [EXAMPLE], [(7, -1)], Layout({}, slot="{slot} {mention}", left_to_right=True)
    )
    at = int(slotted.slots[0])
    assert slotted.slot_rows.tolist() == [7]
    assert [*slotted.ids[:at], *slotted.ids[at + 1 :]] == bare.ids.tolist()
    assert slotted.blanks.tolist() == [len(slotted.ids) - 1]
    assert slotted.spans[0].tolist() == (bare.spans[0] + 1).tolist()


def test_passages_come_first_and_the_text_goes_on_from_there(name: str) -> None:
    tokenizer = family(name)
    bare = encode(tokenizer, [EXAMPLE], [(-1, -1)], LAYOUT)
    told = encode(
        tokenizer,
        [EXAMPLE],
        [(-1, -1)],
        LAYOUT,
        [[Passage("Rhine : a river ."), Passage("Basel : a town .")]],
    )
    brought = told.kinds == TokenKind.PASSAGE
    assert brought.any()
    assert told.ids[~brought].tolist() == bare.ids.tolist()
    # What begins a text begins it still; all that is brought stands right after that.
    first = int(brought.argmax())
    assert brought[first : first + int(brought.sum())].all()
    assert (told.kinds[:first] == TokenKind.SPECIAL).all()
    more = int(brought.sum())
    assert told.blanks.tolist() == [int(bare.blanks[0]) + more]
    assert told.spans.tolist() == (bare.spans + more).tolist()


def test_passages_give_way_and_the_text_does_not() -> None:
    tokenizer = family("wordpiece")
    bare = encode(tokenizer, [EXAMPLE], [(-1, -1)], LAYOUT)
    tight = Layout({}, left_to_right=True, room=len(bare.ids) + 4)
    told = encode(
        tokenizer, [EXAMPLE], [(-1, -1)], tight, [[Passage("Rhine : a river of many towns .")]]
    )
    brought = told.kinds == TokenKind.PASSAGE
    assert 0 < brought.sum() <= 4
    assert told.ids[~brought].tolist() == bare.ids.tolist()
    none = Layout({}, left_to_right=True, room=0)
    kept = encode(tokenizer, [EXAMPLE], [(-1, -1)], none, [[Passage("Rhine : a river .")]])
    assert kept.ids.tolist() == bare.ids.tolist()


def test_what_is_cut_is_never_the_end_of_a_text() -> None:
    tokenizer = family("wordpiece")
    long = Example("1", "it rained and " * 40 + TEXT, (), ("x",), blank=14 * 40 + len(TEXT))
    inputs = encode(tokenizer, [long], [()], Layout({}, max_length=20, left_to_right=True))
    own = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert len(inputs.ids) == 20
    assert inputs.ids.tolist()[-8:] == own[-8:]
    assert inputs.shortened == 1
