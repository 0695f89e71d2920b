"""Reading a list value by value gives what parsing it whole gives, values and faults alike."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbench.data import json_text
from kbench.data.json_text import read_json, stream_values
from kbench.errors import DataError

Write = Callable[[str, Any], Path]

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.text(st.characters(codec="utf-8"))
values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text("abé"), inner), max_leaves=8
)
chunked = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@pytest.fixture(params=[1, 3, 1 << 20])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the file in pieces of so many bytes."""
    monkeypatch.setattr(json_text, "_CHUNK", request.param)


def streamed(path: Path) -> list[Any]:
    return [value for _, value in stream_values(path, "a list")]


@pytest.mark.usefixtures("chunk")
@chunked
@given(content=st.lists(values, min_size=1), indent=st.sampled_from([None, 1]), ascii=st.booleans())
def test_a_list_value_by_value(
    tmp_path: Path, content: list[Any], indent: int | None, ascii: bool
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii), encoding="utf-8")
    assert streamed(path) == content == read_json(path, "a list")


TEXT = '[\n{"name": "Zoë", "size": [1, -2.5e3]},\n {"name": "b"}\n ]\n'


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("size", range(1, len(TEXT) - 2))
def test_a_list_cut_off_anywhere_fails_where_parsing_it_whole_does(write: Write, size: int) -> None:
    path = write("a.json", TEXT[:size])
    with pytest.raises(DataError) as whole:
        read_json(path, "a list")
    with pytest.raises(DataError) as parts:
        streamed(path)
    place = re.compile(r"line (\d+): .* column (\d+)")
    ours, theirs = (place.search(str(one.value)) for one in (parts, whole))
    assert ours
    assert theirs
    # The parsers name the same fault of a value; between values ours is found behind the blanks.
    assert abs(int(ours[1]) - int(theirs[1])) <= 1
    if TEXT[:size].rstrip()[-1] not in "[,}":
        assert ours.groups() == theirs.groups()


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[", "line 1: is not JSON, or is cut off: Expecting value at column 2"),
        ("[1 2]", "line 1: is not JSON, or is cut off: Expecting ',' delimiter at column 4"),
        ("[1,\n 2]\n]", "line 3: is not JSON, or is cut off: Extra data at column 1"),
        ("[1,]", "line 1: is not JSON, or is cut off: Expecting value at column 4"),
        ("[]", "is not a JSON list with content"),
        ("[1,\n\xa02]", "line 2: is not JSON, or is cut off: Expecting value at column 1"),
        ('[1,\n{"a": 1, "a": 2}]', "line 2: is not JSON as it should be: the key 'a' occurs twice"),
        ("[1,\nNaN]", "line 2: is not JSON as it should be: NaN is no number"),
        (b'[1,\n2,\n"\xeb"]', "line 3: is not UTF-8 (byte 0xeb)"),
        (b'[1,\n"\xc3', "line 2: is not UTF-8 (byte 0xc3)"),
    ],
)
def test_faults(write: Write, content: str | bytes, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        streamed(write("a.json", content))
    assert problem in str(caught.value)
    assert str(caught.value).endswith("expected UTF-8: a list" if "UTF" in problem else "a list")


def test_what_comes_before_a_fault_is_read(write: Write) -> None:
    found = stream_values(write("a.json", "[1, 2"), "a list")
    assert next(found) == ("record 0", 1)


def test_a_fault_early_in_a_large_file_is_found_without_reading_it_all(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_text, "_CHUNK", 1 << 10)
    monkeypatch.setattr(json_text, "_FAR", 1 << 10)
    path = write("a.json", '[{"a" 1}' + ', "and so on"' * 200_000)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"line 1: is not JSON.* at column 7"):
        streamed(path)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_memory_does_not_grow_with_the_list(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "_CHUNK", 1 << 10)
    path = write("a.json", json.dumps([{"text": "x" * 50, "number": n} for n in range(20_000)]))
    tracemalloc.start()
    assert sum(value["number"] for _, value in stream_values(path, "a list")) == 199_990_000
    assert tracemalloc.get_traced_memory()[1] < 100_000 < path.stat().st_size
    tracemalloc.stop()
