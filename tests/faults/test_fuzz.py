"""Files that strangers write: any of them is understood or refused in a line, by every reader."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.conftest import ROOT
from tests.faults.readers import readers

_NAMES = sorted(readers())
_QUICK = settings(
    max_examples=30,
    derandomize=True,
    database=None,
    suppress_health_check=[*HealthCheck],
)
_LONG = settings(_QUICK, max_examples=2000, derandomize=False)
_PIECES = (
    b"\x00", b"\xff", b"\xed\xa0\x80", b"\r\n", b"\t", b'"', b"'", b"[", b"]", b"{", b"}", b",",
    b":", b"&a *a", b"!!python/object/apply:os.system [id]", b"NaN", b"-Infinity", b"1e999",
    b"9" * 5000, b"-1", b"null", b"true", b"\\ud800", b"[" * 3000, b"../../x", b"2001-13-45",
    "İ👩‍👩‍👧".encode(), b"\x1b[31m", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"<<: [",
)  # fmt: skip
_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from([2**31, -1, 0, 1e308, 10**400, "", "../x", "\ud83d"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@st.composite
def _harmed(draw: st.DrawFn, sound: tuple[bytes, ...]) -> bytes:
    """Near a sound content: values put in another's place; bytes changed, cut, doubled."""
    content = draw(st.sampled_from(sound))
    values = _json_lines(content)
    if values and draw(st.booleans()):
        return b"\n".join(json.dumps(_swapped(draw, value)).encode() for value in values)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        end = min(len(content), at + draw(st.sampled_from([0, 0, 1, 1, 4, 40, 10**9])))
        piece = draw(st.sampled_from(_PIECES) | st.binary(max_size=8))
        content = content[:at] + draw(st.sampled_from([b"", piece, content[at:end] * 2]))[
            :20_000
        ] + content[end:]  # fmt: skip
    return content


def _json_lines(content: bytes) -> list[Any]:
    """The values of a JSON file, or of one a line; none of anything else."""
    for lines in ([content], content.splitlines()):
        try:
            return [json.loads(line) for line in lines]
        except ValueError:
            continue
    return []


def _swapped(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with another in the place of one of its parts, a part missing, or one more."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        inner = {**value, key: _swapped(draw, value[key])}
        if draw(st.integers(0, 6)) == 0:
            del inner[key]
        return inner
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _swapped(draw, value[at]), *value[at + 1 :]]
    return draw(_values)


@pytest.mark.parametrize("name", [n for n in _NAMES if n not in ("task popqa", "import")])
def test_a_sound_file_is_read(name: str) -> None:
    reader = readers()[name]
    problems = [reader(content) for content in reader.sound[:1]]
    hopeless = {"task entity-questions", "task fewrel"}  # one file of several is not enough
    assert all(problems) if name in hopeless else not any(problems), problems


@pytest.mark.parametrize("name", _NAMES)
def test_a_file_near_a_sound_one_is_read_or_refused_in_a_line(name: str) -> None:
    _tried(name, _QUICK)


@pytest.mark.faults
@pytest.mark.parametrize("name", _NAMES)
def test_two_thousand_files_near_a_sound_one(name: str) -> None:
    _tried(name, _LONG)


def _tried(name: str, chosen: settings) -> None:
    reader = readers()[name]

    @chosen
    @given(content=_harmed(reader.sound))
    def attempt(content: bytes) -> None:
        reader(content)

    attempt()


_GUIDED = """
import sys
import atheris
with atheris.instrument_imports(include=["kbench", "kbench_tasks", "kbench_leaderboard", "yaml"]):
    from tests.faults.readers import readers
reader = readers()[sys.argv.pop(1)]
from pathlib import Path
for number, content in enumerate(reader.sound):
    Path(sys.argv[1], str(number)).write_bytes(content)
atheris.Setup(sys.argv, lambda content: reader(content) and None)
atheris.Fuzz()
"""


@pytest.mark.faults
@pytest.mark.parametrize("name", ["result", "grid", "bundle card.json", "task custom", "plug"])
def test_files_guided_by_coverage(name: str, tmp_path: Any) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed; it has no build for all")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _GUIDED, name, str(corpus), "-max_total_time=30", "-max_len=8192",
         f"-artifact_prefix={tmp_path}/", "-rss_limit_mb=0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
