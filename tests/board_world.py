"""A folder of results made by hand whose ranks, ties and gains are known: no model is run."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from kbench.spec import Control
from kbench.store import Result, Results, Status
from tests.stored import predictions, spec, store

__all__ = ["GOLD", "HOSTILE", "guesses", "skipped", "write"]

HOSTILE = """<script>alert(1)</script><img src=x onerror="alert(2)">'"&amp;</td>\u202e"""
"""What a stranger may call a method."""
LABELS = ("born in", "died in", "lives in", "works in")
GOLD = [LABELS[at % 4] for at in range(240)]


def guesses(share: float, seed: int) -> list[str]:
    """Predictions of which about a share is right; a higher share has right all a lower one has."""
    rng = random.Random(seed)
    return [gold if rng.random() < share else "other" for gold in GOLD]


def write(folder: Path, *, backbone: str = "bert", task: str = "toy-relations") -> None:
    """Writes none 40 %, ``best`` and ``level`` 80 %, ``low`` 60 %, each with a control and seeds.

    ``level`` gains less than ``best``: its control is as good as ``low``. One run is called
    HOSTILE, and one was skipped.
    """
    shares = {"none": 0.4, "best": 0.8, "level": 0.8, "low": 0.6, HOSTILE: 0.4}
    about: dict[str, Any] = {"backbone": backbone, "task": task}
    for seed in (0, 1):
        for number, (method, share) in enumerate(shares.items()):
            cost = {
                "train_seconds": 10.0 * number,
                "trainable_parameters": 1000.0 * number,
                "evaluate_seconds_per_example": 0.002,
            }
            told = predictions(GOLD, guesses(share, seed))
            store(folder, told, method=method, seed=seed, cost=cost, **about)
            if method != "none":
                broken = predictions(GOLD, guesses(0.6 if method == "level" else 0.4, seed))
                foreign = Control.FOREIGN
                store(folder, broken, method=method, seed=seed, control=foreign, cost=cost, **about)


def skipped(folder: Path, key: str = "f" * 32) -> Result:
    """Writes a run that could not be."""
    result = Result(
        id=key,
        status=Status.SKIPPED,
        spec=spec(method="kar"),
        reason=f"kar cannot be run on it {HOSTILE}",
    )
    Results(folder).save(result, None)
    return result
