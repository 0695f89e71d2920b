"""Weights & Biases: a run for each run, in the project ``kbench`` or that of WANDB_PROJECT."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kbench.grid.plan import Cell
from kbench.grid.tracker import Tracker, record_of
from kbench.store import Result, Status

__all__ = ["WandB"]


class WandB(Tracker):
    """Configuration, summary and curves; offline where WANDB_MODE says so."""

    def __init__(self) -> None:
        import wandb

        self._wandb = wandb

    def grid(self, cells: Sequence[Cell], out: Path) -> None:
        self._group = f"{out.resolve().name} {len(cells)} runs"

    def result(self, result: Result) -> None:
        record = record_of(result)
        run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "kbench"),
            name=record.name,
            group=self._group,
            config=dict(record.parameters),
            reinit="finish_previous",
        )
        for values in record.epochs:
            run.log(values)
        run.summary.update(dict(record.metrics))
        run.finish(exit_code=int(result.status == Status.FAILED))
