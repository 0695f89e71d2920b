"""Grids over the toy world, quick enough to run many times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kbench.grid import runner
from kbench.grid.grids import Grid, make_grid
from kbench.grid.plan import Place
from kbench.store import Result

OPTIONS: dict[str, Any] = {
    "tuning": {"full": {"learning_rate": 3e-3, "epochs": 12, "batch_size": 16}},
    "method": {
        "map-tuning": {
            "start": "scratch",
            "general": {"learning_rate": 1e-2, "epochs": 2, "batch_size": 32, "dropout": None},
            "fine-tuning": {"learning_rate": 1e-2, "epochs": 2, "batch_size": 32},
            "task-specific": {
                "learning_rate": 2e-2,
                "epochs": 10,
                "batch_size": 16,
                "dropout": 0.0,
            },
        }
    },
}

QUICK: dict[str, Any] = {
    "tuning": {"full": {**OPTIONS["tuning"]["full"], "epochs": 2}},
    "method": {
        "map-tuning": {
            name: {**recipe, "epochs": 2} if isinstance(recipe, dict) else recipe
            for name, recipe in OPTIONS["method"]["map-tuning"].items()
        }
    },
}
"""For where it does not matter how well anything was learnt."""


def grid(folder: Path, **changes: Any) -> Grid:
    """A grid over the toy world in ``folder``."""
    values: dict[str, Any] = {
        "task": "toy-relations",
        "method": "none,map-tuning",
        "backbone": str(folder / "bert"),
        "knowledge": str(folder / "kb"),
        "setting": "task-specific",
        "control": "none,foreign",
        "options": OPTIONS,
    }
    return make_grid({**values, **changes}, "test")


def run(chosen: Grid, place: Place, **options: Any) -> list[Result]:
    """Plans and runs a grid."""
    return runner.run(runner.plan(runner.resolve(chosen), place), place, **options)
