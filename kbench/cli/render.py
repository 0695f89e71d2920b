"""Rows as tables in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from rich.console import Console as RichConsole
from rich.text import Text

from kbench.cli.columns import (
    IDENTITY,
    NAMES,
    Columns,
    blank,
    columns_of,
    legend,
    options_of,
    tables_of,
)
from kbench.cli.layout import Column, fitted, prose, table, taller, widths
from kbench.results.notes import notes
from kbench.results.tables import Row
from kbench.spec import Control
from kbench.store import Status

__all__ = ["print_table"]

_ALWAYS = (
    *IDENTITY,
    "score",
    "Δ none",
    "knowledge gain",
    "covered",
    "trained",
    "seconds",
)
_IF_ROOM = (
    "kind",
    "individual",
    "net gain",
    "shared",
    "interval",
    "broken",
    "ms (without)",
    "memory",
    "knowledge size",
)
"""Shown in this order of preference where the terminal is wide enough."""
_RANKS = {"trained": 3, "seconds": 3, "covered": 3, "Δ none": 2, "knowledge gain": 1}
"""Where it is narrow, what has the highest goes first; all else of a row stays."""
_BAR = 20
"""Signs of an interval bar."""


def print_table(
    all_rows: Sequence[Row],
    console: RichConsole,
    best: frozenset[str] = frozenset(),
    columns: Sequence[str] | None = None,
) -> None:
    """Prints a table for each task, backbone, tuning and limit, all with the same columns.

    Where the terminal is narrow, cells that belong together are stacked; then intervals take two
    lines, and columns go, which is said; columns that were asked for go on in a further table
    instead. Where it is wide, there are more of them, and bars of the intervals.

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
    told = options_of(all_rows)
    ordered = [row for _, rows in tables for row in rows]
    cells = [{**columns_of(row, told[id(row)]), "interval": bars[id(row)]} for row in ordered]
    if columns:
        asked = [name for name in columns if name not in blank(cells) & {"options"}]
        shown, gone = _asked(cells, asked, ordered, best, console.width), list[str]()
    else:
        shown, gone = _chosen(cells, ordered, best, console.width)
    for number, (block, found) in enumerate(shown, 1):
        start = 0
        for heading, rows in tables:
            end = start + len(rows)
            table(
                console,
                [replace(column, cells=column.cells[start:end]) for column in block],
                found,
                heading,
            )
            # Columns that go on below are of the same rows: what is said of these is said once.
            told_of = rows if number == len(shown) else []
            for note in notes([result for row in told_of for result in row.results]):
                prose(console, note, "italic")
            console.print()
            start = end
    for row in (row for row in ordered if row.first.reason):
        style = "red" if row.first.status == Status.FAILED else "dim"
        prose(console, f"{row.first.status}: {row.first.spec.label}: {row.first.reason}", style)
    bold = " Bold: the best, and what a paired test does not tell from it." if best else ""
    names = {name for block, _ in shown for column in block for name in _in(column.name)}
    prose(console, legend(names) + bold + _lacking(gone), "dim")


def _in(heading: str) -> list[str]:
    return [heading, heading.replace("\n", " ")]


def _lacking(gone: Sequence[str]) -> str:
    """What is said of columns for which there is no room."""
    known = {heading: name for name, heading in NAMES.items()}
    names = [name for name in gone if name in known]
    if not names:
        return ""
    asked = ",".join(known[name] for name in names)
    return (
        f" Left out for want of room: {', '.join(names)}; a wider terminal shows them, or "
        f"`kbench table --columns {asked}`."
    )


_Shown = list[tuple[list[Column], dict[str, int]]]
"""Columns that are printed beside each other, with their widths."""


def _chosen(
    cells: Sequence[Columns], rows: Sequence[Row], best: frozenset[str], width: int
) -> tuple[_Shown, list[str]]:
    """Chooses what fits: the columns, and the names of those for which there is no room."""
    empty = blank(cells)
    names = [name for name in _ALWAYS if name != "options" or name not in empty]
    wanted = [name for name in _IF_ROOM if name not in empty]
    make: Callable[[Sequence[str]], list[Column]] = partial(_made, cells, rows=rows, best=best)
    if _unwrapped(make(names), width):
        for name in wanted:
            names += [name] if _unwrapped(make([*names, name]), width) else []
        return [_with_widths(make(names), width)], [name for name in wanted if name not in names]
    stacked = [_stacked(each) for each in cells]
    known = [*stacked[0]]
    make = partial(_made, stacked, rows=rows, best=best)
    if widths(make(known), width) is not None:
        barred = [
            {**one, "interval": two["interval"]} for one, two in zip(stacked, cells, strict=True)
        ]
        wider = _made(barred, [*known, "interval"], rows, best)
        room = "interval" in wanted and _unwrapped(wider, width)
        return [_with_widths(wider if room else make(known), width)], wanted
    columns = taller(make(known))
    found, gone = fitted(columns, width)
    kept = [column for column in columns if column.name in found]
    lost = [each for name in gone for each in _UNSTACKED.get(name, (name,))]
    return [(kept, found)], [*lost, *wanted]


def _unwrapped(columns: Sequence[Column], width: int) -> bool:
    """Whether columns fit without any text being wrapped."""
    return sum(column.full + 1 for column in columns) <= width


def _with_widths(columns: list[Column], width: int) -> tuple[list[Column], dict[str, int]]:
    return columns, fitted(columns, width)[0]


def _asked(
    cells: Sequence[Columns],
    names: Sequence[str],
    rows: Sequence[Row],
    best: frozenset[str],
    width: int,
) -> _Shown:
    """Columns that were asked for: those without room go on below, each row's name again."""
    flat = _made(cells, names, rows, best)
    for columns in (flat, taller(flat)):
        if widths(columns, width) is not None:
            return [_with_widths(columns, width)]
    figures = [name for name in names if name not in IDENTITY]
    tall = [
        {**_named(each), **{name.replace(" ", "\n"): each[name] for name in figures}}
        for each in cells
    ]
    columns = taller(taller(_made(tall, [*tall[0]], rows, best)))
    words = [column for column in columns if column.text]
    blocks, block = list[list[Column]](), [*words]
    for column in columns[len(words) :]:
        if widths([*block, column], width) is None and len(block) > len(words):
            blocks.append(block)
            block = [*words]
        block.append(replace(column, rank=0))
    return [_with_widths(each, width) for each in (*blocks, block)]


def _made(
    cells: Sequence[Columns], names: Sequence[str], rows: Sequence[Row], best: frozenset[str]
) -> list[Column]:
    """The columns of these names: broken knowledge dimmed, the score of the best in bold."""

    def styled(name: str, row: Row, text: str) -> Text:
        broken = row.first.spec.control != Control.NONE
        bold = name == "score" and row.first.id in best
        return Text(text, style="bold" if bold else "dim" if broken else "")

    columns = []
    for name in names:
        plain = name.replace("\n", " ")
        words = plain in IDENTITY or plain == "setting knowledge"
        columns.append(
            Column(
                name,
                [styled(name, row, each[name]) for row, each in zip(rows, cells, strict=True)],
                side="left" if words or name == "interval" else "right",
                text=words,
                rank=_RANKS.get(plain, 0 if words or name == "score" else 4),
            )
        )
    return columns


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


_UNSTACKED = {"trained": ("trained", "seconds"), "knowledge\ngain": ("knowledge gain",)}
"""What stands in a column of a narrow table."""


def _stacked(values: Columns) -> Columns:
    """The same in fewer, taller columns."""
    covered = f"{values['covered']} covered" if values["covered"] else ""
    figures = {
        name: values[name].replace(" [", "\n[").replace(", ", ",")
        for name in ("score", "Δ none", "knowledge gain")
    }
    return {
        **_named(values, covered),
        **{name.replace("knowledge gain", "knowledge\ngain"): v for name, v in figures.items()},
        "trained": f"{values['trained']}\n{values['seconds']}".strip(),
    }


def _named(values: Columns, *more: str) -> Columns:
    """What tells a row from the others, in two columns."""
    method = (values["method"], values["options"], *more)
    return {
        "method": "\n".join(filter(None, method)),
        "setting\nknowledge": f"{values['setting']}\n{values['knowledge']}".strip(),
    }
