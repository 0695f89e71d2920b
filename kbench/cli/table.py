"""`kbench table`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbench.cli import options as shared
from kbench.cli.messages import say, say_json
from kbench.data.files import is_folder
from kbench.errors import UsageError

if TYPE_CHECKING:
    from kbench.results.published import Figure
    from kbench.results.tables import Row

__all__ = ["table"]

_FILTERS = ("task", "method", "setting", "tuning", "backbone", "knowledge", "control")
_FORMATS = ("rich", "markdown", "latex", "csv", "json")


@shared.filters(_FILTERS)
@click.command("table")
@shared.out
@click.option("--metric", help="Another metric than the main one, such as macro_f1.")
@click.option(
    "--all", "everything", is_flag=True, help="Also the variants that dev did not choose."
)
@click.option(
    "--published",
    is_flag=True,
    help="Beside them, or where there are none, what papers publish; for the eye, not ranked.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    default="rich",
    show_default=True,
    help="In the terminal, or as text for elsewhere.",
)
@click.option("--columns", help="Only these figures, such as score,gain,locality,latency.")
@click.option("--json", "as_json", is_flag=True, help="Print rows as JSON Lines.")
def table(
    out: Path,
    metric: str | None,
    everything: bool,
    published: bool,
    form: str,
    columns: str | None,
    as_json: bool,
    **filters: str | None,
) -> None:
    """Show stored results: score, difference to no knowledge, knowledge gain, cost.

    Of runs that differ in options alone the one that is best on dev is shown (docs/results.md).
    In bold is the best score of each table, and what a paired test does not tell from it.
    """
    from kbench.cli.columns import headings
    from kbench.cli.published import FILTERS, alone, beside
    from kbench.results.shown import shown as shown_of
    from kbench.store import Results

    form = "json" if as_json else form
    if published and form not in ("rich", "json"):
        raise UsageError(f"--published is shown by --format rich and json, not {form}")
    names = headings(columns)

    def wanted(row: Row) -> bool:
        return shared.chosen(row.first, filters, _FILTERS, row.names)

    def known(figure: Figure) -> bool:
        return shared.chosen(figure, filters, FILTERS)

    if published and not is_folder(out):
        _print_alone(alone(known), form)
        return
    store = Results(shared.opened(out))
    found = shown_of(store, metric=metric, everything=everything, fits=wanted)
    shown, best = found.rows, found.best
    figures = beside(shown, known) if published else []
    shared.check_fitting([*shown, *figures], filters)
    for line in found.hidden:
        say(line, err=True)
    if form == "json":
        for row in shown:
            say_json({**row.as_json(), "best": row.first.id in best})
        for figure in figures:
            say_json(figure.as_json())
    elif form == "rich":
        _print(shown, best, names, figures if published else None)
    else:
        from kbench.cli.formats import as_csv, as_latex, as_markdown

        made = {
            "markdown": lambda: as_markdown(shown, best, names),
            "latex": lambda: as_latex(shown, best, names),
            "csv": lambda: as_csv(shown, best).rstrip("\n"),
        }
        say(made[form]())


def _print_alone(figures: Sequence[Figure], form: str) -> None:
    """Prints what papers publish where there are no results of one's own."""
    from kbench.cli.published import print_published
    from kbench.cli.terminal import Console

    if form == "json":
        for figure in figures:
            say_json(figure.as_json())
    else:
        print_published(figures, (), Console())


def _print(
    shown: Sequence[Row],
    best: frozenset[str],
    names: Sequence[str] | None,
    figures: Sequence[Figure] | None,
) -> None:
    from kbench.cli.published import print_published
    from kbench.cli.render import print_table
    from kbench.cli.terminal import Console

    print_table(shown, Console(), best, names)
    if figures is not None:
        print_published(figures, shown, Console())
