"""Results of real runs on toy tasks, for what reads results."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbench import runner
from kbench.result import Status
from tests.conftest import registered_toys
from tests.grid.toygrid import grid, run


@pytest.fixture(scope="package")
def made(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two seeds of none, map-tuning and its shuffled control on two tasks."""
    folder = tmp_path_factory.mktemp("made")
    place = runner.Place(folder / "out", folder / "artifacts", "cpu")
    with registered_toys():
        results = run(grid(toy_folder, task="toy-relations,toy-typing", seed="0,1"), place)
    assert {result.status for result in results} == {Status.OK}
    return place.out
