"""Rows as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.table import Table
from rich.text import Text

from kbench.cli.columns import Columns, blank, columns_of, legend, tables_of
from kbench.cli.terminal import Console
from kbench.results.tables import Row
from kbench.results.unknown_words import unknown_words
from kbench.spec import Control
from kbench.store import Status

__all__ = ["print_table", "titled"]

_NAME = 10
"""Columns that a method's name has at least."""
_LEFT = frozenset({"method", "setting", "knowledge", "setting knowledge", "interval"})
_ALWAYS = (
    "method",
    "setting",
    "knowledge",
    "score",
    "Δ none",
    "knowledge gain",
    "covered",
    "trained",
    "seconds",
)
_IF_ROOM = ("interval", "broken", "ms (without)", "memory", "knowledge size")
"""Shown in this order of preference where the terminal is wide enough."""
_BAR = 20
"""Signs of an interval bar."""


def print_table(
    all_rows: Sequence[Row],
    console: Console,
    best: frozenset[str] = frozenset(),
    columns: Sequence[str] | None = None,
) -> None:
    """Prints a table for each task, backbone, tuning and limit, all with the same columns.

    Where the terminal is narrow, cells that belong together are stacked; where it is wide, there
    are more of them, and bars of the intervals.

    Args:
        all_rows: the rows.
        console: where to.
        best: ids of the rows that are set in bold, as of :func:`kbench.results.tables.leaders`.
        columns: headings to show instead of those that fit.
    """
    if not all_rows:
        console.print("no results")
        return
    tables = tables_of(all_rows)
    bars = {id(row): bar for _, rows in tables for row, bar in zip(rows, _bars(rows), strict=True)}
    everything = {id(row): {**columns_of(row), "interval": bars[id(row)]} for row in all_rows}
    names = list(columns) if columns else _fitting([*everything.values()], console.width)
    shown = {key: {name: value[name] for name in names} for key, value in everything.items()}
    if not columns and _total(list(shown.values())) > console.width:
        shown = {key: _stacked(value) for key, value in shown.items()}
        wider = {key: {**value, "interval": bars[key]} for key, value in shown.items()}
        shown = wider if _total(list(wider.values())) <= console.width else shown
    widths = _widths(list(shown.values()))
    # A long name gives way before a figure does.
    over = max(0, sum(widths.values()) + len(widths) - console.width)
    widths["method"] = max(_NAME, widths["method"] - over)
    for heading, rows in tables:
        table = _table(heading, widths)
        for row in rows:
            table.add_row(*_texts(row, shown[id(row)], row.first.id in best))
        console.print(table)
        console.print()
    for row in (row for _, rows in tables for row in rows if row.first.reason):
        style = "red" if row.first.status == Status.FAILED else "dim"
        problem = f"{row.first.status}: {row.first.spec.title}: {row.first.reason}"
        console.print(Text(problem, style=style))
    for result in (result for row in all_rows for result in row.results):
        if note := unknown_words(result):
            console.print(Text(f"{result.spec.title}: {note}.", style="italic"))
    bold = " Bold: the best, and what a paired test does not tell from it." if best else ""
    console.print(legend(names) + bold, style="dim")


def _texts(row: Row, values: Columns, best: bool) -> list[Text]:
    """What a row shows: broken knowledge dimmed, the score of the best in bold."""
    style = "dim" if row.first.spec.control != Control.NONE else ""
    return [
        Text(text, style="bold" if name == "score" and best else style)
        for name, text in values.items()
    ]


def _fitting(everything: Sequence[Columns], width: int) -> list[str]:
    """The headings for which there is room."""
    names = list(_ALWAYS)
    empty = blank(everything)
    for name in _IF_ROOM:
        wider = [*names, name]
        if name not in empty and _total([{n: c[n] for n in wider} for c in everything]) <= width:
            names = wider
    return names


def _bars(rows: Sequence[Row]) -> list[str]:
    """The intervals of a table's scores, drawn to one scale."""
    ends = [(s.low, s.value, s.high) for row in rows if (s := row.score)]
    known = [(low, value, high) for low, value, high in ends if low is not None is not high]
    if not known:
        return [""] * len(rows)
    least, most = min(low for low, *_ in known), max(high for *_, high in known)
    step = (most - least) / (_BAR - 1) or 1.0
    bars = []
    for row in rows:
        score = row.score
        if score is None or score.low is None or score.high is None:
            bars.append("")
            continue
        low, value, high = (
            round((end - least) / step) for end in (score.low, score.value, score.high)
        )
        signs = [" "] * low + ["─"] * (high - low + 1)
        signs[low], signs[high], signs[value] = "├", "┤", "●"
        bars.append("".join(signs))
    return bars


def titled(heading: str) -> Table:
    """Returns an empty table as all are that show results."""
    return Table(
        box=None,
        header_style="bold",
        padding=(0, 1, 0, 0),
        title=Text(heading, style="bold cyan"),
        title_justify="left",
    )


def _table(heading: str, widths: dict[str, int]) -> Table:
    table = titled(heading)
    for name, width in widths.items():
        table.add_column(
            name, justify=_side(name), width=width, no_wrap=name != "method", overflow="fold"
        )
    return table


def _side(name: str) -> Literal["left", "right"]:
    return "left" if name.replace("\n", " ") in _LEFT else "right"


def _stacked(values: Columns) -> Columns:
    """The same in fewer, taller columns."""
    covered = f"{values['covered']} covered" if values["covered"] else ""
    figures = {
        name: values[name].replace(" [", "\n[").replace(", ", ",")
        for name in ("score", "Δ none", "knowledge gain")
    }
    return {
        "method": f"{values['method']}\n{covered}".rstrip(),
        "setting\nknowledge": f"{values['setting']}\n{values['knowledge']}".strip(),
        **{name.replace("knowledge gain", "knowledge\ngain"): v for name, v in figures.items()},
        "trained": f"{values['trained']}\n{values['seconds']}".strip(),
    }


def _widths(several: list[Columns]) -> dict[str, int]:
    return {
        name: max(
            len(part) for row in several for part in (*row[name].split("\n"), *name.split("\n"))
        )
        for name in several[0]
    }


def _total(several: list[Columns]) -> int:
    widths = _widths(several)
    return sum(widths.values()) + len(widths)
