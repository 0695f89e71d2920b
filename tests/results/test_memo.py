"""Figures are remembered, and never for something else than what they were computed from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kbench.data.files import cache_home
from kbench.results import memo, tables
from kbench.store import Results
from tests.board_world import write

TASK = "atlas-relations"


@pytest.fixture
def store(tmp_path: Path) -> Results:
    write(tmp_path / "results", task=TASK)
    return Results(tmp_path / "results")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was computed, in order."""
    calls: list[str] = []
    for name in ("_figures", "_best"):
        original = getattr(tables, name)

        def counted(*given: Any, name: str = name, original: Any = original) -> Any:
            calls.append(name)
            return original(*given)

        monkeypatch.setattr(tables, name, counted)
    return calls


def shown(store: Results) -> list[Any]:
    found = tables.rows(list(store), store)
    best = tables.leaders(found, store)
    return [[row.as_json(), row.first.id in best] for row in found]


def test_the_second_table_computes_nothing_and_is_the_same(
    store: Results, computed: list[str]
) -> None:
    first = shown(store)
    assert computed == ["_figures", "_best"]
    assert shown(store) == first
    assert computed == ["_figures", "_best"]
    assert any(row["delta"] for row, _ in first)
    assert 0 < sum(best for _, best in first) < len(first)


def test_other_files_of_the_same_name_are_computed_again(
    store: Results, computed: list[str]
) -> None:
    before = shown(store)
    for path in store.folder.glob("*/predictions.parquet"):
        # The same bytes, and even the time set back: it is another file all the same.
        old = path.stat()
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert shown(store) == before
    assert computed == ["_figures", "_best"] * 2


def test_a_lost_or_broken_memory_costs_only_time(store: Results, computed: list[str]) -> None:
    before = shown(store)
    for path in (cache_home() / "figures").glob("*.json"):
        path.write_text("{")
    assert shown(store) == before
    assert computed == ["_figures", "_best"] * 2


def test_another_metric_is_another_question(store: Results, computed: list[str]) -> None:
    shown(store)
    results = [result.model_copy(update={"main_metric": None}) for result in store]
    tables.rows(results, store)
    assert computed == ["_figures", "_best", "_figures"]


def test_the_memory_is_bounded(store: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "_MOST", 6)
    for number in range(20):
        assert memo.memoised(number, [], store, lambda number=number: number) == number
        assert len(list((cache_home() / "figures").glob("*.json"))) <= 6


def test_what_was_computed_without_a_file_is_not_remembered(store: Results) -> None:
    results = list(store)
    assert memo.memoised("n", results, store, lambda: 1) == 1
    assert memo.memoised("n", results, store, lambda: 2) == 1
    store.files(results[0])[1].unlink()
    assert [memo.memoised("n", results, store, lambda n=n: n) for n in (3, 4)] == [3, 4]
    elsewhere = Results(Path())
    assert [memo.memoised("n", results, elsewhere, lambda n=n: n) for n in (5, 6)] == [5, 6]
