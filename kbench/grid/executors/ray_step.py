"""What a task does on the machine it is sent to: one step of a plan. Free of Ray."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from kbench.data.files import cache_home
from kbench.errors import KbenchError
from kbench.grid.executors.remote_store import RemoteArtifacts, is_url, open_url
from kbench.grid.plan import Events, Place
from kbench.grid.steps import Step
from kbench.grid.worker import Worker
from kbench.pipeline.stages import Stage
from kbench.store import Artifacts, Predictions, Result

__all__ = ["Desk", "Done", "Tell", "opened", "perform"]

_TOLD = 1.0
"""Seconds between two reports of steps."""

Done: TypeAlias = "tuple[Result | None, Predictions | None]"
"""The result that a step ends its runs with, if it does; and predictions."""
Tell: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Desk:
    """What a task has to know of the machine where the grid was started.

    Attributes:
        place: where to compute; its folders are those of the driver.
        store: path or URL of the artifacts.
        mark: a file that the driver has put into the store.
        folder: that paths are relative to.
    """

    place: Place
    store: str
    mark: str
    folder: str


def opened(store: str) -> Artifacts:
    """Opens a store: a path that is shared, or a URL with a copy in the cache of this machine."""
    if is_url(store):
        return RemoteArtifacts(cache_home() / "artifacts", store)
    return Artifacts(Path(store))


def perform(desk: Desk, step: Step, tell: Tell, before: tuple[Done, ...]) -> Done:
    """Does a step, unless one before it came to a bad end.

    Args:
        desk: of the driver.
        step: what to do.
        tell: told of the steps of training.
        before: what came of the steps that it needs, in the order in which one run does them.
    """
    tell(step.title, 0, 0)
    worker = _hired(desk, tell)
    for bad, _ in before:
        if bad is not None:
            return worker.ended(step.cell, bad.status, bad.reason), None
    if step.stage == Stage.EVALUATE:
        return worker.outcome(step.cell)
    return worker.make(step.stage, step.cell), None


_kept: tuple[Desk, Worker, list[Tell]] | None = None


def _hired(desk: Desk, tell: Tell) -> Worker:
    """The worker of this process; it stays, with what it has in memory, for the next step."""
    global _kept
    if _kept is None or _kept[0] != desk:
        _check(desk)
        telling: list[Tell] = []
        _kept = desk, Worker(desk.place, Events(_slowly(telling)), opened(desk.store)), telling
    _kept[2][:] = [tell]
    return _kept[1]


def _slowly(telling: list[Tell]) -> Tell:
    last = 0.0

    def step(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _TOLD:
            last = time.monotonic()
            telling[0](what, done, total)

    return step


def _check(desk: Desk) -> None:
    """Sees that this machine has the store that the driver has.

    Raises:
        KbenchError: it has not.
    """
    if Path(desk.folder).is_dir():
        os.chdir(desk.folder)
    system, root = open_url(desk.store)
    if not system.exists(f"{root}/{desk.mark}"):
        raise KbenchError(
            f"{socket.gethostname()} does not see the store {desk.store} of the driver: mount it "
            "there, or give another with -o store=PATH or -o store=URL"
        )
