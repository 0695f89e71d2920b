"""Examples refuse spans outside their text, and their digest sees everything in them."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from kbench.data import Example, Mention, Role, digest_examples
from kbench.errors import DataError
from tests.hostile import examples

BASE = Example("a", "we saw it", (Mention(7, 9, "e", Role.HEAD, 0.5),), "label", 3)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 3), (5, 4), (0, 10), (9, 9)])
def test_a_mention_outside_its_text_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match=r"example a: mention \[.*9 characters"):
        replace(BASE, mentions=(Mention(start, end),))


@pytest.mark.parametrize("blank", [-1, 10])
def test_a_blank_outside_its_text_is_refused(blank: int) -> None:
    with pytest.raises(ValueError, match=f"example a: blank {blank} lies outside"):
        replace(BASE, blank=blank)


def test_a_blank_may_stand_at_either_end() -> None:
    assert (replace(BASE, blank=0).blank, replace(BASE, blank=9).blank) == (0, 9)


MENTION = BASE.mentions[0]


@pytest.mark.parametrize(
    "change",
    [
        {"id": "b"},
        {"text": "we saw at"},
        {"label": "other"},
        {"label": ("label",)},
        {"blank": None},
        {"blank": 4},
        {"mentions": ()},
        {"mentions": (MENTION, MENTION)},
        {"mentions": (replace(MENTION, start=6),)},
        {"mentions": (replace(MENTION, end=8),)},
        {"mentions": (replace(MENTION, entity=None),)},
        {"mentions": (replace(MENTION, entity="None"),)},
        {"mentions": (replace(MENTION, role=Role.TAIL),)},
        {"mentions": (replace(MENTION, score=None),)},
    ],
)
def test_the_digest_sees_every_change(change: dict[str, Any]) -> None:
    assert digest_examples([replace(BASE, **change)]) != digest_examples([BASE])


def test_the_digest_sees_order_and_repetition() -> None:
    other = replace(BASE, id="b")
    seen = [[], [BASE], [BASE, BASE], [BASE, other], [other, BASE]]
    assert len({digest_examples(one) for one in seen}) == len(seen)


@given(case=examples())
def test_any_text_has_a_digest_and_equal_examples_the_same(
    case: tuple[Example, tuple[int, ...]],
) -> None:
    example, _ = case
    assert digest_examples([example]) == digest_examples(iter([replace(example)]))


@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x1c", "\x85", "\u2028"])
def test_what_is_wrong_with_a_file_is_told_in_a_line(end: str) -> None:
    error = DataError(f"a{end}b", f"has the field {end!s}x", "none", f"record {end}")
    assert len(str(error).splitlines()) == 1
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
