from __future__ import annotations

import math
from typing import Any

import pytest

from kbench.data.records import check, describe
from kbench.errors import DataError

SHAPE = {"text": str, "size": int, "links": [(str, float)]}
GOOD: dict[str, Any] = {"text": "é\U0001f600", "size": 3, "links": [["Q1", 0.5], ["Q2", 1]]}


def test_a_record_gives_its_values_and_ignores_further_keys() -> None:
    record = check({**GOOD, "more": None}, SHAPE, "a.json", "record 4")
    assert record["links"] == [["Q1", 0.5], ["Q2", 1]]


def test_a_shape_in_words() -> None:
    assert describe(SHAPE) == "{text: text, size: integer, links: [[text, number], …]}"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"text": 1}, "text is integer, not text"),
        ({"text": None}, "text is null, not text"),
        ({"text": "\ud83d"}, "text is text with half of a surrogate pair, not text"),
        ({"size": True}, "size is boolean, not integer"),
        ({"size": 1.0}, "size is number, not integer"),
        ({"size": "1"}, "size is text, not integer"),
        ({"links": {}}, "links is object, not list"),
        ({"links": ["Q1"]}, "links[0] is text, not list"),
        ({"links": [["Q1", 1], ["Q1"]]}, "links[1] has 1 items, not 2"),
        ({"links": [["Q1", math.nan]]}, "links[0][1] is nan, not number"),
        ({"links": [["Q1", 10**400]]}, "links[0][1] is integer, not number"),
        ({"links": [["Q1", False]]}, "links[0][1] is boolean, not number"),
    ],
)
def test_a_misfit_is_named(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        check({**GOOD, **change}, SHAPE, "a.json", "record 4")
    assert str(caught.value) == f"a.json, record 4: {problem}; expected {describe(SHAPE)}"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (["text"], "is list, not object"),
        (None, "is null, not object"),
        ({"text": "a", "links": []}, "has no key 'size'"),
    ],
)
def test_what_is_no_such_object(value: Any, problem: str) -> None:
    with pytest.raises(DataError, match=f"^a.json, line 2: {problem}; expected"):
        check(value, SHAPE, "a.json", 2)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (3, 2), (0, 5), (4, 5)])
def test_a_span_must_lie_in_its_text(start: int, end: int) -> None:
    record = check(GOOD, SHAPE, "a.json", "record 0")
    record.span("the mention", 0, 4, "four")
    with pytest.raises(DataError, match=r"no span of its text of 4 characters"):
        record.span("the mention", start, end, "four")
