"""Which clock the seconds of a training are of, and that a front is of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbench.cli.columns import columns_of
from kbench.results.tables import rows
from kbench.store import Results
from kbench_leaderboard.charts import chart
from tests.board_world import groups
from tests.stored import predictions, store

pytestmark = pytest.mark.usefixtures("toy_tasks")

GOLD = ["red", "green"] * 20
BUSY = {"train_seconds": 900.0, "train_processor_seconds": 9.0, "start_processor_seconds": 1.0}


def put(folder: Path, method: str, cost: dict[str, float]) -> None:
    store(folder, predictions(GOLD, GOLD), method=method, cost=cost)


def text(folder: Path) -> str:
    found = list(Results(folder))
    (group,) = groups(found, folder)
    drawn = chart(group)
    assert drawn is not None
    return drawn.text


def test_processor_time_is_shown_and_else_the_wall_clock_is_named(tmp_path: Path) -> None:
    put(tmp_path, "map-tuning", BUSY)
    put(tmp_path, "kar", {"train_seconds": 20.0})
    found = Results(tmp_path)
    told = {row.first.spec.method: columns_of(row)["seconds"] for row in rows(list(found), found)}
    assert told == {"map-tuning": "10 s", "kar": "20 s wall"}


def test_a_front_is_of_one_clock(tmp_path: Path) -> None:
    put(tmp_path, "map-tuning", BUSY)
    put(tmp_path, "kar", {**BUSY, "train_processor_seconds": 19.0, "train_seconds": 1.0})
    assert "in seconds of processor time" in text(tmp_path)
    assert "map-tuning (general): 100.0 at 10.0 s" in text(tmp_path)
    put(tmp_path, "ernie", {"train_seconds": 20.0})
    assert "in seconds of wall clock" in text(tmp_path)
    assert "kar (general): 100.0 at 1.0 s" in text(tmp_path)
