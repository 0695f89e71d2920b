"""`kbench plot`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbench.cli import options as shared
from kbench.cli.messages import say

if TYPE_CHECKING:
    from kbench.results.tables import Row

__all__ = ["plot"]

_FILTERS = ("task", "method", "setting", "tuning", "backbone", "knowledge")
_KINDS = ("forest", "matrix", "buckets", "cost", "seeds")
_VALUES = ("gain", "delta", "net", "score")


@shared.filters(_FILTERS)
@click.command("plot")
@click.argument("kind", type=click.Choice(_KINDS), metavar="FIGURE")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE...",
)
@click.option(
    "--value",
    type=click.Choice(_VALUES),
    help="What forest, matrix and cost show of a run. Default: the knowledge gain; of forest that "
    "and the difference to no knowledge.",
)
@click.option("--metric", help="Another metric than the main one, such as macro_f1.")
@click.option(
    "--all", "everything", is_flag=True, help="Also the variants that dev did not choose."
)
@shared.out
def plot(
    kind: str,
    files: tuple[Path, ...],
    value: str | None,
    metric: str | None,
    everything: bool,
    out: Path,
    **filters: str | None,
) -> None:
    """Draw stored results for a paper: as PDF, SVG or PNG, with the data as CSV beside it.

    FIGURE is forest (gains with their intervals, over tasks), matrix (methods by tasks), buckets
    (gains by coverage and popularity), cost (gain against seconds of training) or seeds (scores of
    every seed, with true, foreign and no knowledge). The ending of FILE says what is written. One
    column wide.
    """
    from kbench.figures.figure import check_ending, figure
    from kbench.results.shown import shown
    from kbench.store import Results

    def wanted(row: Row) -> bool:
        return shared.chosen(row.first, filters, _FILTERS, row.names)

    for file in files:
        check_ending(file)
    store = Results(shared.opened(out))
    found = shown(store, metric=metric, everything=everything, fits=wanted)
    shared.check_fitting(found.rows, filters)
    for line in found.hidden:
        say(line, err=True)
    drawn = figure(kind, found, store, value)
    for path in dict.fromkeys(path for file in files for path in drawn.save(file)):
        say(str(path))
