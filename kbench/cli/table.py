"""`kbench table`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbench.cli import options as shared
from kbench.errors import UsageError, nearest
from kbench.result import Result

if TYPE_CHECKING:
    from kbench.published import Figure
    from kbench.spec import RunSpec

__all__ = ["table"]

_FILTERS = ("task", "method", "setting", "tuning", "backbone", "knowledge", "control")


def _options(command: click.Command) -> click.Command:
    for name in reversed(_FILTERS):
        option = click.Option([f"--{name}"], help=f"Only this {name}: a comma list of globs.")
        command.params.insert(0, option)
    return command


@_options
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

    if not out.is_dir():
        raise UsageError(f"no folder {out}; run `kbench run` first, or give --out")
    store = Results(out)
    # Yardsticks and controls are needed even where they are not to be shown.
    found = _measured(list(store), metric) if metric else list(store)
    shown = [row for row in rows(found, store) if _chosen(row.first.spec, filters)]
    figures = beside(shown, lambda figure: _chosen(figure, filters, FILTERS)) if published else []
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


def _chosen(
    thing: RunSpec | Figure, filters: Mapping[str, str | None], names: Iterable[str] = _FILTERS
) -> bool:
    return all(
        _matches(getattr(thing, name) or "", wanted.split(","))
        for name in names
        if (wanted := filters[name])
    )


def _matches(value: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(value, glob.strip()) for glob in globs)
