"""`kbench validate`."""

from __future__ import annotations

from pathlib import Path

import click

from kbench.cli.messages import say

__all__ = ["validate"]


@click.command("validate")
@click.argument("grids", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
def validate(grids: tuple[Path, ...]) -> int:
    """Check grid files: keys, values, names of parts, and options; no data or model is loaded.

    What no run would read is told as a warning. `kbench run GRID --dry-run` also looks at data, and
    says what a grid costs.
    """
    from kbench.grid import runner
    from kbench.grid.grids import make_grids, read_grid

    for path in grids:
        chosen = make_grids(read_grid(path), str(path))
        specs = runner.resolve(*chosen, offline=True)
        runner.check_options(specs)
        for line in runner.unused(chosen, specs, (), ()):
            say(f"warning: {path}: {line}", err=True)
        kinds = ("task", "backbone", "tuning", "method", "knowledge", "control", "seed")
        several = [f"{kind} {len({getattr(s, kind) for s in specs} - {None})}" for kind in kinds]
        say(f"{path}: {len(specs):,} runs ({', '.join(several)})")
    return 0
