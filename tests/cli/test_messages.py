"""One rule for what text may be shown, and one way out for all that the command prints."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbench.cli.messages import plain, say_json, steers
from kbench.data.plain_text import drawable
from tests import stored
from tests.calling import call

ROOT = Path(__file__).resolve().parents[2]
STEERING = (
    *"\0\x07\x08\x0b\r\x1b\x7f\x80\x9b\x9f\u061c\u2028\u2029\u202a\u202e\u2066\u2069\u206f\ufeff",
    *"\ufff9\ufffe\uffff\ufdd0\U000e0001\U000e007f\ud83d\udfff",
)
KEPT = "a\n\té 👩‍👩‍👧שלום\u200fİ\xa0\u3000\ufffd"
texts = st.text(st.one_of(st.characters(), st.sampled_from(STEERING)), max_size=20)


@pytest.mark.parametrize("sign", STEERING, ids=ascii)
def test_what_steers_or_is_not_seen_is_not_shown(sign: str) -> None:
    assert steers(sign)
    assert plain(f"a{sign}b") == "a\ufffdb"


def test_what_people_write_is_shown_as_it_is() -> None:
    assert plain(KEPT) == KEPT
    assert not steers(KEPT)


@given(text=texts)
def test_nothing_is_left_and_no_sign_goes_uncounted(text: str) -> None:
    shown = plain(text)
    assert not steers(shown)
    assert len(shown) == len(text)
    assert plain(shown) == shown


@pytest.mark.parametrize("text", [" ".join(STEERING), KEPT, '"\\'])
def test_json_loses_nothing(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say_json({text: [text, 1.5, None]})
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1
    assert not steers(out)
    assert json.loads(out) == {text: [text, 1.5, None]}


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize(
    "words",
    [
        *(("table", "--format", form) for form in ("rich", "csv", "latex", "markdown", "json")),
        ("compare", "none", "map-tuning", "--json"),
        ("compare", "none", "map-tuning"),
        ("diff", "none", "map-tuning"),
        ("diff", "none", "map-tuning", "--json"),
        ("score", "--json"),
        ("results", "ls", "--json"),
        ("results", "ls"),
    ],
    ids=" ".join,
)
def test_no_command_prints_what_steers(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "".join(sign for sign in STEERING if sign not in "\0\r\ud83d\udfff")
    for method in ("none", "map-tuning"):
        told = stored.predictions([f"a{odd}", "b"] * 9, [f"{method}{odd}", "b"] * 9)
        stored.store(tmp_path, told, method=method, backbone=f"bert{odd}", linker=f"gold{odd}")
    code, out, err = call(capsys, *words, "--out", str(tmp_path))
    assert code == 0, err
    assert "bert" in out or words[0] == "diff"
    if words[:3] != ("table", "--format", "rich"):
        assert not steers(out)
    assert not {*STEERING} & {*out, *err} - {"\x1b"}


def test_whatever_is_printed_goes_one_way() -> None:
    """Else the next verb would forget it."""
    found = []
    for room in ("kbench", "leaderboard"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
                if called in ("print", "click.echo", "click.secho", "sys.stdout.write"):
                    found.append(path.relative_to(ROOT).as_posix())
    assert {*found} == {"kbench/cli/messages.py"}


@given(name=texts, most=st.integers(min_value=1, max_value=12))
def test_a_name_that_is_drawn_is_one_line_without_what_charts_give_a_meaning(
    name: str, most: int
) -> None:
    shown = drawable(f"{name}'a\"\\`\n", most)
    assert len(shown) <= most
    assert not steers(shown)
    assert not {*shown} & {*"'\"\\`\n"}
    assert drawable("map-tuning", 12) == "map-tuning"
    assert drawable("map-tuning-mlp", 5) == "map-…"
