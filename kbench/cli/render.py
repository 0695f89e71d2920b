"""Rows as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kbench.result import Status
from kbench.spec import Control, Setting
from kbench.tables import Estimate, Row

__all__ = ["print_table"]

_LEGEND = (
    "In per cent. Brackets: 95% bootstrap interval over test examples, and over seeds where there "
    "are several. Δ none: against the same frozen model without knowledge. Knowledge gain: against "
    "the same method with every entity's knowledge swapped for another's (shuffled). Covered: test "
    "examples with a linked entity. Trained: parameters of the plug, and the seconds they took."
)
_NAME = 10
"""Columns that a method's name has at least."""
_RIGHT = frozenset({"score", "Δ none", "knowledge gain", "covered", "trained", "seconds"})

Cells = dict[str, str]


def print_table(found: Sequence[Row], console: Console) -> None:
    """Prints a table for each task, backbone, tuning and limit, all with the same columns.

    Where the terminal is narrow, cells that belong together are stacked.
    """
    if not found:
        console.print("no results")
        return
    ordered = sorted(found, key=_order)
    cells = {id(row): _cells(row) for row in ordered}
    names = list(cells[id(ordered[0])])
    if _total(list(cells.values()), names) > console.width:
        cells = {key: _stacked(value) for key, value in cells.items()}
        names = list(cells[id(ordered[0])])
    widths = _widths(list(cells.values()), names)
    # A long name gives way before a figure does.
    over = max(0, sum(widths.values()) + len(names) - console.width)
    widths["method"] = max(_NAME, widths["method"] - over)
    for heading, rows in groupby(ordered, key=_heading):
        title = Text(heading, style="bold cyan")
        table = Table(
            box=None, header_style="bold", padding=(0, 1, 0, 0), title=title, title_justify="left"
        )
        for name in names:
            table.add_column(
                name,
                justify=_side(name),
                width=widths[name],
                no_wrap=name != "method",
                overflow="fold",
            )
        for row in rows:
            style = "dim" if row.first.spec.control != Control.NONE else ""
            table.add_row(*(Text(cell, style=style) for cell in cells[id(row)].values()))
        console.print(table)
        console.print()
    for row in ordered:
        if row.first.reason:
            style = "red" if row.first.status == Status.FAILED else "dim"
            problem = f"{row.first.status}: {row.first.spec.title}: {row.first.reason}"
            console.print(Text(problem, style=style))
    console.print(_LEGEND, style="dim")


def _side(name: str) -> Literal["left", "right"]:
    return "right" if name.replace("\n", " ") in _RIGHT else "left"


def _order(row: Row) -> tuple[str, bool, str, int, str, int]:
    spec = row.first.spec
    setting, control = list(Setting).index(spec.setting), list(Control).index(spec.control)
    known = spec.knowledge or ""
    return _heading(row), bool(known), spec.method, setting, known, control


def _heading(row: Row) -> str:
    spec = row.first.spec
    words = [spec.task, spec.backbone, spec.tuning]
    words += [row.first.main_metric] if row.first.main_metric else []
    words += [f"--limit {spec.limit}: not comparable"] if spec.limit else []
    return "  ·  ".join(words)


def _cells(row: Row) -> Cells:
    result = row.first
    spec, cost = result.spec, result.cost
    informed = spec.knowledge is not None
    control = "" if spec.control == Control.NONE else f"{spec.control} "
    trained = informed and row.score is not None
    seconds = cost.get("train_seconds", 0) + cost.get("start_seconds", 0)
    return {
        "method": spec.method,
        "setting": str(spec.setting) if informed else "",
        "knowledge": f"{control}{_short(spec.knowledge)}" if spec.knowledge else "",
        "score": _estimate(row.score, sign="") if row.score else str(result.status),
        "Δ none": _estimate(row.delta, sign="+"),
        "knowledge gain": _estimate(row.gain, sign="+"),
        "covered": f"{100 * result.coverage.examples:.0f}%" if result.coverage else "",
        "trained": f"{cost.get('trainable_parameters', 0):,.0f}" if trained else "",
        "seconds": f"{seconds:.0f} s" if trained else "",
    }


def _stacked(cells: Cells) -> Cells:
    """The same in fewer, taller columns."""
    covered = f"{cells['covered']} covered" if cells["covered"] else ""
    figures = {
        name: cells[name].replace(" [", "\n[").replace(", ", ",")
        for name in ("score", "Δ none", "knowledge gain")
    }
    return {
        "method": f"{cells['method']}\n{covered}".rstrip(),
        "setting\nknowledge": f"{cells['setting']}\n{cells['knowledge']}".strip(),
        **{name.replace("knowledge gain", "knowledge\ngain"): v for name, v in figures.items()},
        "trained": f"{cells['trained']}\n{cells['seconds']}".strip(),
    }


def _widths(cells: list[Cells], names: list[str]) -> dict[str, int]:
    return {
        name: max(
            len(part) for row in cells for part in (*row[name].split("\n"), *name.split("\n"))
        )
        for name in names
    }


def _total(cells: list[Cells], names: list[str]) -> int:
    return sum(_widths(cells, names).values()) + len(names)


def _short(knowledge: str) -> str:
    return knowledge.rstrip("/").rsplit("/", maxsplit=1)[-1]


def _estimate(estimate: Estimate | None, sign: str) -> str:
    if estimate is None:
        return ""
    value = f"{100 * estimate.value:{sign}.1f}"
    if estimate.low is None or estimate.high is None:
        return value if estimate.deviation is None else f"{value} ± {100 * estimate.deviation:.1f}"
    return f"{value} [{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"
