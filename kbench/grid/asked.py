"""The runs that a grid file asks for, without anything that they are made of."""

from __future__ import annotations

from pathlib import Path

from kbench.grid.grids import make_grids, read_grid
from kbench.spec import RunSpec

__all__ = ["asked_for"]


def asked_for(grid: Path) -> list[RunSpec]:
    """Returns the runs of a grid file; no backbone is downloaded to see which way it reads.

    Raises:
        KbenchError: there is no such file, it is no grid, or a name in it is unknown.
    """
    from kbench.grid import runner  # loads what runs models

    return runner.resolve(*make_grids(read_grid(grid), grid.name), offline=True)
