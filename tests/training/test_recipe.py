"""A recipe holds what it says: numbers in their ranges, told in one line where not."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from kbench.data.files import canonical_digest
from kbench.errors import UsageError
from kbench.spec import OptionType, check_values
from kbench.training import Recipe

GOOD = Recipe(learning_rate=1e-3, batch_size=8, epochs=2)
WRONG: list[tuple[str, Any, str]] = [
    ("learning_rate", "high", "a number above 0"),
    ("learning_rate", "1e-3", "a number above 0"),
    ("learning_rate", 0, "a number above 0"),
    ("learning_rate", float("nan"), "a number above 0"),
    ("learning_rate", float("inf"), "a number above 0"),
    ("learning_rate", True, "a number above 0"),
    ("learning_rate", None, "a number above 0"),
    ("batch_size", 8.0, "a whole number of at least 1"),
    ("batch_size", True, "a whole number of at least 1"),
    ("epochs", "three", "a whole number of at least 1"),
    ("epochs", 1.5, "a whole number of at least 1"),
    ("epochs", [1], "a whole number of at least 1"),
    ("epochs", 0, "a whole number of at least 1"),
    ("optimizer", "sgd", "adam or adamw"),
    ("optimizer", 1, "adam or adamw"),
    ("warmup", 1, "a number of at least 0 and below 1"),
    ("warmup", "1", "a number of at least 0 and below 1"),
    ("decay", True, "linear or constant"),
    ("weight_decay", "abc", "a number of at least 0"),
    ("weight_decay", -0.1, "a number of at least 0"),
    ("clip", -1, "a number of at least 0"),
    ("dropout", "high", "null or a number of at least 0 and below 1"),
    ("dropout", 1, "null or a number of at least 0 and below 1"),
    ("select", "maybe", "true or false"),
    ("select", 1, "true or false"),
    ("micro_batch", 0, "null or a whole number of at least 1"),
    ("micro_batch", {}, "null or a whole number of at least 1"),
    ("share", 0, "a number above 0 and of at most 1"),
    ("share", 1.5, "a number above 0 and of at most 1"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_a_wrong_value_is_told_in_one_line(name: str, value: Any, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        GOOD.updated({name: value})
    assert str(caught.value) == f"{name} is {value!r}; expected {expected}"
    with pytest.raises(UsageError):
        Recipe(**{**GOOD.as_dict(), name: value})


def test_a_whole_pass_is_what_it_was_before_there_were_parts_of_one() -> None:
    assert GOOD.updated({"share": 1}).as_dict() == GOOD.as_dict()
    assert "share" not in GOOD.as_dict()
    assert GOOD.updated({"share": 0.25}).as_dict() == {**GOOD.as_dict(), "share": 0.25}


def test_every_field_has_a_type_and_the_tests_try_each() -> None:
    names = [field.name for field in fields(Recipe)]
    assert [*Recipe.types] == names
    assert {name for name, *_ in WRONG} == {*names}


def test_a_number_is_one_however_it_is_spelled() -> None:
    """8 and 8.0 are one training, and so one address."""
    whole = {"learning_rate": 1, "clip": 0, "dropout": 0, "warmup": 0, "select": False}
    spelled = {"learning_rate": 1.0, "clip": 0.0, "dropout": -0.0, "warmup": 0e5, "select": False}
    one, other = GOOD.updated(whole).as_dict(), GOOD.updated(spelled).as_dict()
    assert canonical_digest(one) == canonical_digest(other)
    assert {name: one[name] for name in whole} == whole
    assert type(one["batch_size"]) is int
    assert one["select"] is False


@pytest.mark.parametrize(
    ("default", "good", "wrong", "expected"),
    [
        (False, [True, False], ["no", 0, 1, None], "true or false"),
        (2, [0, -5, 10**400], ["2", 2.0, True, None], "a whole number"),
        (0.5, [0, 1, 0.25, -3.0], ["0.5", True, float("nan"), float("-inf"), [0.5]], "a number"),
        ("auto", ["", "x"], [1, True, None, ["x"]], "text"),
        (["P31"], [[], ["a", "b"]], ["P31", [1], None, {"P31": 1}], "a list of text"),
    ],
)
def test_a_default_says_of_what_kind_an_option_is(
    default: Any, good: list[Any], wrong: list[Any], expected: str
) -> None:
    for value in [default, *good]:
        check_values({"x": value}, {"x": default}, {}, "part")
    for value in wrong:
        with pytest.raises(UsageError) as caught:
            check_values({"x": value}, {"x": default}, {}, "part")
        assert str(caught.value) == f"part: x is {value!r}; expected {expected}"


def test_a_number_takes_the_form_of_a_default_that_it_equals() -> None:
    kinds = {"rate": OptionType("number", least=0), "rank": OptionType("whole number")}
    defaults = {"rate": 1, "rank": 4}
    for given, wanted in ((1.0, 1), (1, 1), (2, 2.0), (2.0, 2.0), (10**400, None)):
        if wanted is None:
            with pytest.raises(UsageError, match="expected a number"):
                check_values({"rate": given}, defaults, kinds, "part")
            continue
        settled = check_values({"rate": given, "rank": 4}, defaults, kinds, "part")
        assert settled == {"rate": wanted, "rank": 4}
        assert type(settled["rate"]) is type(wanted)


def test_a_default_that_tells_nothing_allows_anything_unless_the_part_says() -> None:
    for value in (1, "a", [2], None):
        check_values({"x": value}, {"x": None}, {}, "part")
    kind = OptionType("number", least=0, most=1, null=True)
    check_values({"x": None}, {"x": None}, {"x": kind}, "part")
    with pytest.raises(UsageError, match="expected null or a number of at least 0 and of at most"):
        check_values({"x": 2}, {"x": None}, {"x": kind}, "part")
