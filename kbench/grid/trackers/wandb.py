"""Weights & Biases: a run for each run, in the project ``kbench`` or that of WANDB_PROJECT."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kbench.grid.plan import Cell
from kbench.grid.tracker import Record, Tracker, record_of
from kbench.store import Result, Status

__all__ = ["WandB", "logged"]


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
        for values in logged(record):
            run.log(values)
        run.summary.update(dict(record.metrics))
        run.finish(exit_code=int(result.status == Status.FAILED))


def logged(record: Record) -> list[dict[str, float]]:
    """Returns the curves of a record epoch by epoch: figures by name, and ``epoch`` from 1.

    Args:
        record: of a run.
    """
    longest = max(map(len, record.curves.values()), default=0)
    return [
        {"epoch": epoch + 1.0}
        | {name: values[epoch] for name, values in record.curves.items() if epoch < len(values)}
        for epoch in range(longest)
    ]
