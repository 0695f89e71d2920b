"""A folder of results made by hand, in which examples of the interface run."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbench.store import Score
from tests.stored import predictions, store

GOLD = ["capital of", "located in", "flows into", "lives in"] * 25
WRONG = {("map-tuning", "none"): 10, ("map-tuning", "foreign"): 30, ("none", "none"): 50}
SECONDS = {"train_processor_seconds": 12.0, "start_processor_seconds": 0.0, "train_seconds": 14.0}


def fill(folder: Path, task: str = "atlas-relations", **changes: str) -> None:
    """Stores map-tuning with 90 of 100 right, foreign with 70, none with 50; two seeds each."""
    for (method, control), wrong in WRONG.items():
        for seed in (0, 1):
            guessed = ["nothing"] * wrong + GOLD[wrong:]
            found = predictions(GOLD, guessed, degrees=[-1] * 20 + [1] * 40 + [9] * 40)
            about = {"method": method, "control": control, "backbone": "kbench-tiny", **changes}
            cost = SECONDS if method != "none" else {}
            store(folder, found, task=task, knowledge="atlas", seed=seed, cost=cost, **about)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The folder ``kbench-results``, with six results."""
    fill(tmp_path / "kbench-results")
    return tmp_path / "kbench-results"


def bucketed() -> dict[str, dict[str, Score]]:
    """A score by coverage and popularity."""
    score = Score(value=0.5, low=0.4, high=0.6, n=50, variant="accuracy")
    return {"coverage": {"known": score}, "popularity": {"head": score, "tail": score}}
