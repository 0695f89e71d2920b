"""Rows as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kbench.spec import Control
from kbench.tables import Estimate, Row

__all__ = ["print_table"]

_COLUMNS = (
    ("method", "left"),
    ("setting", "left"),
    ("knowledge", "left"),
    ("score", "right"),
    ("Δ none", "right"),
    ("knowledge gain", "right"),
    ("covered", "right"),
    ("trained", "right"),
    ("seconds", "right"),
)


def print_table(found: Sequence[Row], console: Console) -> None:
    """Prints rows under a heading for each task, backbone, tuning and limit."""
    if not found:
        console.print("no results")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, side in _COLUMNS:
        table.add_column(name, justify=side, no_wrap=name != "setting")  # type: ignore[arg-type]
    heading = ""
    for row in sorted(found, key=lambda row: _heading(row)):
        if _heading(row) != heading:
            if heading:
                table.add_row()
            heading = _heading(row)
            table.add_row(Text(heading, style="bold cyan"))
        table.add_row(*_cells(row))
    console.print(table)
    for row in found:
        if row.first.reason:
            console.print(
                Text(f"{row.first.status}: {row.first.spec.title}: {row.first.reason}"), style="dim"
            )
    console.print(
        "In per cent. Brackets: 95% bootstrap interval over test examples; ±: standard deviation "
        "over seeds. Δ none: against the same frozen model without knowledge. Knowledge gain: "
        "against the same method with every entity's knowledge swapped for another's. Covered: "
        "test examples with a linked entity. Trained: parameters and seconds of the plug.",
        style="dim",
    )


def _heading(row: Row) -> str:
    spec = row.first.spec
    words = [spec.task, spec.backbone, spec.tuning]
    words += [row.first.main_metric] if row.first.main_metric else []
    words += [f"--limit {spec.limit}, not comparable"] if spec.limit else []
    return " · ".join(words)


def _cells(row: Row) -> list[Text]:
    result = row.first
    spec, cost = result.spec, result.cost
    knowledge = "" if spec.knowledge is None else spec.knowledge
    if spec.control != Control.NONE:
        knowledge = f"{spec.control} {knowledge}"
    setting = "" if spec.knowledge is None else str(spec.setting)
    style = "dim" if spec.control != Control.NONE else ""
    cells = [spec.method, setting, knowledge]
    cells.append(_estimate(row.score, sign=False) if row.score else str(result.status))
    cells += [_estimate(row.delta), _estimate(row.gain)]
    cells.append(f"{100 * result.coverage.examples:.0f}%" if result.coverage else "")
    trained = cost.get("trainable_parameters", 0)
    cells.append(f"{trained:,.0f}" if spec.knowledge is not None and row.score else "")
    seconds = cost.get("train_seconds", 0) + cost.get("start_seconds", 0)
    cells.append(f"{seconds:.0f}" if spec.knowledge is not None and row.score else "")
    return [Text(cell, style=style) for cell in cells]


def _estimate(estimate: Estimate | None, sign: bool = True) -> str:
    if estimate is None:
        return ""
    value = f"{100 * estimate.value:+.1f}" if sign else f"{100 * estimate.value:.1f}"
    if estimate.deviation is not None:
        return f"{value} ± {100 * estimate.deviation:.1f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
