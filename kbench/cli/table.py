"""`kbench table`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import click

from kbench.cli import options as shared
from kbench.errors import UsageError, nearest
from kbench.result import Result

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
@click.option("--json", "as_json", is_flag=True, help="Print rows as JSON Lines.")
def table(out: Path, metric: str | None, as_json: bool, **filters: str | None) -> None:
    """Show stored results: score, difference to no knowledge, knowledge gain, cost."""
    from rich.console import Console

    from kbench.cli.render import print_table
    from kbench.store import Results
    from kbench.tables import rows

    if not out.is_dir():
        raise UsageError(f"no folder {out}; run `kbench run` first, or give --out")
    store = Results(out)
    # Yardsticks and controls are needed even where they are not to be shown.
    found = _measured(list(store), metric) if metric else list(store)
    shown = [row for row in rows(found, store) if _chosen(row.first, filters)]
    if as_json:
        for row in shown:
            print(json.dumps(row.as_json(), ensure_ascii=False))
    else:
        print_table(shown, Console())


def _measured(results: Sequence[Result], metric: str) -> list[Result]:
    """Returns the results that have a metric, with it in the place of their main one."""
    known = {name: None for result in results for name in result.metrics}
    if metric not in known:
        raise UsageError(f"no stored result has a metric {metric!r}{nearest(metric, known)}")
    return [r.model_copy(update={"main_metric": metric}) for r in results if metric in r.metrics]


def _chosen(result: Result, filters: dict[str, str | None]) -> bool:
    return all(
        _matches(getattr(result.spec, name) or "", wanted.split(","))
        for name, wanted in filters.items()
        if wanted
    )


def _matches(value: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(value, glob.strip()) for glob in globs)
