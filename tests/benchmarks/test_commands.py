"""How long a person waits for the commands that compute nothing; each in a process of its own."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.board_world import write

from .conftest import Demands

RESULTS = 1000
TASKS = ("atlas-relations", "fewrel-supervised", "wiki80")


def _seconds(*command: str, cache: Path, rounds: int = 7) -> float:
    """Median of the wall clock, after a first call that reads files from the disk."""
    environment = {**os.environ, "KBENCH_CACHE": str(cache)}
    kbench = str(Path(sys.executable).with_name("kbench"))
    taken = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        subprocess.run([kbench, *command], env=environment, capture_output=True, check=True)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


@pytest.mark.parametrize(("command", "most"), [("--help", 0.15), ("ls", 0.25)])
def test_command(demands: Demands, tmp_path: Path, command: str, most: float) -> None:
    demands.below(f"`kbench {command}`", _seconds(command, cache=tmp_path), most)
    demands.once(lambda: None)


def test_table(demands: Demands, tmp_path: Path) -> None:
    stored = tmp_path / "results"
    for number in range(1 + RESULTS // 18):
        write(stored, task=TASKS[number % len(TASKS)], backbone=f"bert-{number // len(TASKS)}")
    count = sum(1 for _ in stored.glob("*/result.json"))
    assert count >= RESULTS
    command = ("table", "--out", str(stored))
    seconds = _seconds(*command, cache=tmp_path / "cache")
    demands.below(f"`kbench table`, {count:,} results", seconds, 1.5)
    demands.once(lambda: None)
