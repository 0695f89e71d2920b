"""`kbench table`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from kbench.cli import options as shared
from kbench.errors import UsageError, nearest
from kbench.result import Result

__all__ = ["table"]

_FILTERS = ("task", "method", "setting", "tuning", "backbone", "knowledge", "control")


@shared.filters(_FILTERS)
@click.command("table")
@shared.out
@click.option("--metric", help="Another metric than the main one, such as macro_f1.")
@click.option(
    "--published", is_flag=True, help="Beside them, what papers publish; for the eye, not ranked."
)
@click.option("--json", "as_json", is_flag=True, help="Print rows as JSON Lines.")
def table(
    out: Path, metric: str | None, published: bool, as_json: bool, **filters: str | None
) -> None:
    """Show stored results: score, difference to no knowledge, knowledge gain, cost."""
    from rich.console import Console

    from kbench.cli.published import FILTERS, beside, print_published
    from kbench.cli.render import print_table
    from kbench.store import Results
    from kbench.tables import rows

    store = Results(shared.opened(out))
    # Yardsticks and controls are needed even where they are not to be shown.
    found = _measured(list(store), metric) if metric else list(store)
    shown = [row for row in rows(found, store) if shared.chosen(row.first.spec, filters, _FILTERS)]
    figures = (
        beside(shown, lambda figure: shared.chosen(figure, filters, FILTERS)) if published else []
    )
    if as_json:
        for value in (*(row.as_json() for row in shown), *(f.as_json() for f in figures)):
            print(json.dumps(value, ensure_ascii=False))
        return
    print_table(shown, Console())
    if published:
        print_published(figures, shown, Console())


def _measured(results: Sequence[Result], metric: str) -> list[Result]:
    """Returns the results that have a metric, with it in the place of their main one."""
    known = {name: None for result in results for name in result.metrics}
    if metric not in known:
        raise UsageError(f"no stored result has a metric {metric!r}{nearest(metric, known)}")
    return [r.model_copy(update={"main_metric": metric}) for r in results if metric in r.metrics]
