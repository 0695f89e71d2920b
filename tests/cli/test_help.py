"""The help of every verb says what it should, and as it was meant to be laid out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from kbench.cli import command
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.testing import registered
from tests.calling import call


def commands(of: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """A command and all below it, in words."""
    yield words
    if isinstance(of, click.Group):
        context = click.Context(of)
        for name in of.list_commands(context):
            inner = of.get_command(context, name)
            assert inner is not None
            yield from commands(inner, (*words, name))


ALL = [*commands(command())]


def found(words: tuple[str, ...]) -> click.Command:
    one: click.Command = command()
    for word in words:
        assert isinstance(one, click.Group)
        inner = one.get_command(click.Context(one), word)
        assert inner is not None
        one = inner
    return one


@pytest.mark.parametrize("columns", ["60", "80"])
def test_every_help_is_laid_out_and_whole(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert len(ALL) > 30
    for words in ALL:
        status, out, err = call(capsys, *words, "-h")
        assert (status, err) == (0, ""), words
        # A mark that click was to read, and a short help that it cut.
        assert "\\b" not in out, words
        assert "\b" not in out, words
        assert not re.search(r"\S {2,}\S", out.split("\nOptions:")[0]), words
        assert not re.search(r"\.\.\.$", out.partition("Commands:")[2], re.MULTILINE), words


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_no_list_is_folded_and_every_option_is_told(words: tuple[str, ...]) -> None:
    one = found(words)
    assert one.help
    for paragraph in re.split(r"\n\s*\n", one.help):
        lines = [line.strip() for line in paragraph.splitlines()]
        listed = [line for line in lines if re.match(r"([-*] |kbench [a-z]+ ?[a-z<]*)", line)]
        # Of text that goes on, at most one line begins so by chance.
        assert len(listed) < 2 or lines[0] == "\b", (words, paragraph)
    for option in one.params:
        if isinstance(option, click.Option):
            assert option.help, (words, option.name)


def test_the_help_of_an_import_names_the_formats_and_their_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with registered(Kind.IMPORTERS, gone="not_there:Gone"):
        out = call(capsys, "knowledge", "import", "-h")[1]
    assert "\n  kbench knowledge import codex codex/data my-codex " in out
    told = " ".join(out.split("Formats:")[1].split())
    for name in registry.names(Kind.IMPORTERS):
        importer = registry.get(Kind.IMPORTERS, name)
        assert f"{name} {importer.card.title}; -o {', '.join(importer.options)}" in told
    # As README names them.
    for name in ("CoDEx", "FB15k-237", "MetaQA", "OpenKE", "ERNIE", "Wikipedia2Vec", "Wikidata5M"):
        assert name in told
    assert "gone cannot be used: the importer 'gone'" in told


def test_the_kinds_that_can_be_listed_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    out = call(capsys, "ls", "-h")[1]
    assert all(re.search(rf"\b{kind}\b", out) for kind in Kind)
