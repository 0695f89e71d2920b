"""Trackio: a run for each run, in the project ``kbench``, on this machine unless told else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kbench.grid.plan import Cell
from kbench.grid.tracker import Tracker, record_of
from kbench.store import Result

__all__ = ["Trackio"]


class Trackio(Tracker):
    """Configuration, figures and curves, for ``trackio show``."""

    def __init__(self) -> None:
        import trackio

        self._trackio = trackio

    def grid(self, cells: Sequence[Cell], out: Path) -> None:
        self._group = f"{out.resolve().name} {len(cells)} runs"

    def result(self, result: Result) -> None:
        record = record_of(result)
        self._trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "kbench"),
            name=f"{result.spec.method} {result.id[:12]}",
            group=self._group,
            config={"run": record.name, **record.parameters},
        )
        for values in record.epochs:
            self._trackio.log(values)
        self._trackio.log(dict(record.metrics))
        self._trackio.finish()
