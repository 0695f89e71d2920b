"""The pages of docs/: every command on them is one that kbench understands, and a tutorial runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kbench.cli import command
from kbench.errors import KbenchError
from scripts.docs_site import OUTSIDE, command_page, relinked
from tests.conftest import CHECKOUT

PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *(CHECKOUT / "docs").glob("*.md")]
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_JOINED = re.compile(r"\s(?:&&|\|\||\||;|>|2>|&)\s.*|\s#.*", re.DOTALL)


def _lines(page: Path) -> Iterator[str]:
    """The lines of the shell on a page, those that go on as one."""
    for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        yield from re.sub(r"\\\n\s*", "", block).splitlines()


def _calls(page: Path) -> Iterator[list[str]]:
    """What follows `kbench` wherever it is called on a page."""
    for line in _lines(page):
        for call in re.findall(r"(?:^|&& |; |\()kbench\s.*", line):
            words = call.lstrip("&;( ").removeprefix("kbench")
            yield shlex.split(_JOINED.sub("", words), comments=True)


def _understood(words: list[str]) -> None:
    """Parses a call as the command would, and carries nothing out.

    Raises:
        click.ClickException: it has no such command or option, or an argument too few or many.
    """
    group, context = command(), click.Context(command(), info_name="kbench")
    found: click.Command = group
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        inner = found.get_command(context, words[0])
        if inner is None:
            raise click.UsageError(f"no command {words[0]}")
        found, words = inner, words[1:]
        context = click.Context(found, info_name=found.name, parent=context)
    if words and not (isinstance(found, click.Group) or {*words} & {"-h", "--help"}):
        # Types are not asked: files that a page speaks of are not there.
        parser = found.make_parser(context)
        _, rest, _ = parser.parse_args(args=[*words])
        if rest:
            raise click.UsageError(f"unexpected {rest}")


def test_the_commands_of_the_pages_are_read() -> None:
    assert sum(1 for page in PAGES for _ in _calls(page)) > 100
    assert [*_calls(CHECKOUT / "docs" / "your-domain.md")][-1] == ["table", "--format", "markdown"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_is_understood(page: Path) -> None:
    wrong = []
    for words in _calls(page):
        try:
            _understood(words)
        except (click.ClickException, KbenchError) as error:
            wrong.append(f"kbench {shlex.join(words)}: {error}")
    assert wrong == []


@pytest.mark.parametrize("words", ["run --tusk x", "tabel", "knowledge import tsv a b c"])
def test_a_command_that_is_none_is_found(words: str) -> None:
    with pytest.raises((click.ClickException, KbenchError)):
        _understood(words.split())


def test_links_lead_to_pages() -> None:
    text = "[a](docs/gpu.md#x) [b](CONTRIBUTING.md)\n```\n[c](docs/gpu.md)\n```\n"
    there = "[a](gpu.md#x) [b](contributing.md)\n```\n[c](docs/gpu.md)\n```\n"
    assert relinked(text, "README.md") == there
    assert relinked("[a](../README.md) [b](gpu.md)", "docs/x.md") == "[a](index.md) [b](gpu.md)"
    assert all((CHECKOUT / path).is_file() for path in OUTSIDE)


def test_every_command_has_its_help_on_a_page() -> None:
    page = command_page()
    for name in ("kbench run", "kbench knowledge train", "kbench leaderboard verify"):
        assert f"## `{name}`" in page
    assert "-h, --help" in page


@pytest.mark.faults
def test_the_tutorial_of_a_domain_runs_and_says_what_it_says(tmp_path: Path) -> None:
    page = CHECKOUT / "docs" / "your-domain.md"
    code = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    (tmp_path / "make.py").write_text(code[1], encoding="utf-8")
    call = f"{sys.executable} -c 'from kbench.cli import main; main()'"
    program = "\n".join(_lines(page)).replace("python make.py", f"{sys.executable} make.py")
    script = f'set -e\nkbench() {{ {call} "$@"; }}\n{program}\n'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.rindex("| method") :]
    assert r"**100.0** \[100.0, 100.0\]" in table, table
