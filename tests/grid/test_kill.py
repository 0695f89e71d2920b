"""Kill -9 in the middle of a grid: nothing is lost, nothing is there twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kbench.store import Results

_SCRIPT = """
import sys
from pathlib import Path
from kbench import runner
from kbench.catalogue import Kind
from kbench.testing import registered
from tests.grid.toygrid import grid, run
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
toys = "kbench.testing.toys:"
with registered(Kind.TASKS, toy_typing=toys + "ToyTyping", toy_relations=toys + "ToyRelations"):
    options = {"tuning": {"full": {"epochs": 3}}, "method": {"map-tuning": {"start": "scratch",
        "task-specific": {"epochs": 3}}}}
    chosen = grid(folder, task="toy-relations,toy-typing", options=options)
    print("begin", flush=True)
    run(chosen, runner.Place(out / "results", out / "artifacts", "cpu", 1))
"""


def _start(toy_folder: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(toy_folder), str(out)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _finish(toy_folder: Path, out: Path) -> None:
    process = _start(toy_folder, out)
    process.communicate(timeout=120)
    assert process.returncode == 0


def _outcome(out: Path) -> dict[str, tuple[object, bytes]]:
    found = {}
    for result in Results(out / "results"):
        path = out / "results" / result.id / "predictions.parquet"
        found[result.id] = (result.metrics, path.read_bytes())
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_killed_grid_ends_as_an_undisturbed_one(
    seed: int, toy_folder: Path, tmp_path: Path
) -> None:
    _finish(toy_folder, tmp_path / "calm")
    rng = random.Random(seed)
    for _ in range(3):
        process = _start(toy_folder, tmp_path / "killed")
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        time.sleep(rng.uniform(0.05, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    _finish(toy_folder, tmp_path / "killed")
    calm, killed = _outcome(tmp_path / "calm"), _outcome(tmp_path / "killed")
    assert len(calm) == 6
    assert killed == calm
