"""A folder of results made by hand whose ranks, ties and gains are known: no model is run."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kbench.results.identity import Names
from kbench.spec import Control, Setting
from kbench.store import Result, Results, Status
from kbench_leaderboard.board import Group, Shelf, group_of, parted
from tests.stored import predictions, spec, store

__all__ = ["GOLD", "HOSTILE", "LONG", "TASKS", "guesses", "skipped", "write", "write_front"]

HOSTILE = """<script>alert(1)</script><img src=x onerror="alert(2)">'"&amp;</td>\u202e"""
"""What a stranger may call a method."""
LONG = "long-" + "w" * 495
"""The longest that a method, task or backbone is called here: one word of 500 letters."""
TASKS = ("toy-relations", "toy-typing", "toy-qa")
LABELS = ("born in", "died in", "lives in", "works in")
GOLD = [LABELS[at % 4] for at in range(240)]


def guesses(share: float, seed: int) -> list[str]:
    """Predictions of which about a share is right; a higher share has right all a lower one has."""
    rng = random.Random(seed)
    return [gold if rng.random() < share else "other" for gold in GOLD]


def groups(found: Iterable[Result], folder: Path) -> list[Group]:
    """The groups of a board of results that lie in a folder."""
    results = list(found)
    names = Names(results)
    shelf = Shelf({result.id: folder / result.id for result in results})
    return [group_of(part, shelf, names) for part in parted(results, names)]


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


def write_front(folder: Path, *, long_task: bool = False) -> None:
    """Writes what a front page is to tell: an encoder and a decoder on three tasks.

    Of the encoder ``first`` and ``equal`` cannot be told apart, and ``second`` is behind both;
    LONG has one task alone, and ``kar`` was skipped. ``first`` has two seeds, and controls of both
    kinds; the decoder has ``second`` and ``first``, in this order.
    """
    true = {"first": 0.85, "equal": 0.81, "second": 0.55}
    for number, task in enumerate(TASKS):
        about = {"task": task, "backbone": "kbench-tiny"}
        for seed in (0, 1):
            _stored(folder, 0.3, "none", seed=seed, **about)
            for control, share in (("none", 0.85), ("foreign", 0.3), ("same-type", 0.5)):
                _stored(folder, share, "first", seed=seed, control=Control(control), **about)
        for method in ("equal", "second"):
            about["setting"] = Setting.TASK_SPECIFIC if method == "equal" else Setting.GENERAL
            _stored(folder, true[method] + 0.01 * number, method, **about)
            _stored(folder, 0.3, method, control=Control.FOREIGN, **about)
        about = {"task": task, "backbone": "kbench-tiny-lm", "tuning": "prompted"}
        for method, share in (("none", 0.2), ("first", 0.5), ("second", 0.8)):
            _stored(folder, share, method, **about)
            if method != "none":
                _stored(folder, 0.2, method, control=Control.FOREIGN, **about)
    _stored(folder, 0.6, LONG, task="toy-qa", backbone="kbench-tiny")
    for method in ("none", "second") if long_task else ():
        _stored(folder, 0.6, method, task=LONG, backbone="kbench-tiny")
        _stored(folder, 0.6, method, task=LONG, backbone=LONG)
    skipped(folder, backbone="kbench-tiny")


def _stored(folder: Path, share: float, method: str, *, seed: int = 0, **about: Any) -> None:
    cost = {"train_seconds": 1.0, "trainable_parameters": 1000.0}
    told = predictions(GOLD, guesses(share, seed))
    store(folder, told, method=method, seed=seed, cost=cost, **about)


def skipped(folder: Path, key: str = "f" * 32, backbone: str = "bert") -> Result:
    """Writes a run that could not be."""
    result = Result(
        id=key,
        status=Status.SKIPPED,
        spec=spec(method="kar", backbone=backbone),
        reason=f"kar cannot be run on it {HOSTILE}",
    )
    Results(folder).save(result, None)
    return result
