"""The examples of the interface, in docstrings and on its page, give what stands there."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def failures(test: doctest.DocTest) -> int:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    return doctest.DocTestRunner(optionflags=flags).run(test).failed


@pytest.mark.parametrize("room", ["reading", "running"])
def test_examples_in_docstrings(results: Path, monkeypatch: pytest.MonkeyPatch, room: str) -> None:
    monkeypatch.chdir(results.parent)
    module = importlib.import_module(f"kbench.interface.{room}")
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert tests
    assert [test.name for test in tests if failures(test)] == []


def test_examples_on_the_page(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results.parent)
    text = PAGE.read_text(encoding="utf-8").replace("```", "")
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    assert len(test.examples) > 8
    assert failures(test) == 0
