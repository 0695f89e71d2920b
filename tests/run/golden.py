"""The addresses of many runs, written out: ``python -m tests.run.golden`` writes them anew.

Whoever moves a module or renames a class changes none of them. Whoever changes what comes of the
same inputs raises a revision and writes them anew in the same commit.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from kbench.grid import runner
from kbench.grid.grids import make_grids, read_grid
from kbench.grid.plan import Cell, Place
from kbench.parts import registry
from kbench.parts.catalogue import Kind

PATH = Path(__file__).with_name("golden.json")
_EVERY: tuple[dict[str, Any], ...] = (
    {"method": "all", "setting": "general,task-specific,fine-tuning"},
    {"method": "none,map-tuning", "tuning": "all"},
    {"method": "ra", "setting": "general", "control": "foreign,same-type,shuffled,random,zero"},
    {"method": "map-tuning", "dtype": "bfloat16", "limit": 50, "seed": 3},
)


def addresses(folder: Path) -> dict[str, Any]:
    """Addresses of the runs of the demos, and of every method and tuning on every family.

    Args:
        folder: where nothing is stored.
    """
    place = Place(folder / "out", folder / "artifacts", "cpu")
    every = [{"task": "atlas-*", "control": "none", **values} for values in _EVERY]
    demos = {
        name: read_grid(Path(str(files("kbench.interface") / f"{name}.yaml")))
        for name in ("demo", "demo-decoder")
    }
    return {
        **{
            name: _of(runner.plan(runner.resolve(*make_grids(demo, name)), place))
            for name, demo in demos.items()
        },
        "every": _of(
            runner.plan(
                runner.resolve(*(grid for values in every for grid in make_grids(values, "every"))),
                place,
            )
        ),
        "heads": {
            name: registry.get(Kind.TASKS, name).head_name for name in registry.names(Kind.TASKS)
        },
    }


def _of(cells: list[Cell]) -> dict[str, dict[str, str | None]]:
    return {
        cell.spec.title: {
            "model": cell.model,
            "start": cell.start,
            "plug": cell.plug,
            "result": cell.id,
        }
        for cell in cells
    }


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        PATH.write_text(json.dumps(addresses(Path(folder)), indent=1) + "\n", encoding="utf-8")
