"""Tables and lines in a terminal of any width: text is wrapped, columns go, no number is ever cut.

A table that is too wide is made narrower in this order: texts are wrapped; intervals take lines of
their own; columns go, those of the highest rank first, and what went is said below the
table; words are cut that were to be whole. What has rank 0 never goes: where even that is too
wide, lines are longer than the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kbench.cli.messages import plain

__all__ = ["Column", "fitted", "pairs", "prose", "show", "table", "taller", "widths", "wrapped"]

_ATOM = re.compile(r"[<+\-−±(\[]*\d(?:[\d,.:eE+\-]*\d)?[\]%*,;)]*|\b[0-9a-f]{8,64}\b")
"""What is never cut: a number with its sign, bracket and unit; a digest."""
_AFTER = "-_/.:=,·"
"""Signs after which a word is rather wrapped than elsewhere."""
_SIGNS = 256
"""Signs without a width, and blanks, that a line may have beside others."""
_INTERVAL = re.compile(r"(\[[^\[\],\n]+,) *(?=[^\[\]\n]+\])")
_FLOOR = 10
"""Columns that a text has at least, if it is so long, before other columns go."""
_LEAST = 4
_WORD = 24


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading; may have several lines, as cells may.
        cells: from the top.
        side: where they stand.
        text: whether they may be wrapped: no figures.
        rank: those of the highest go first where there is no room; 0 stays.
        style: of the cells.
        whole: whether its words are cut only where all columns that may go have gone.
    """

    name: str
    cells: Sequence[str | Text]
    side: Literal["left", "right"] = "left"
    text: bool = False
    rank: int = 0
    style: str = ""
    whole: bool = False

    @property
    def full(self) -> int:
        """The width that it takes unless it is wrapped."""
        return max(map(_width, (self.name, *self.cells)))

    def least(self, floor: int) -> int:
        """The width below which it is not to be wrapped."""
        if not self.text:
            return self.full
        longest = max((_longest_atom(_plain(cell)) for cell in self.cells), default=0)
        if self.whole:
            longest = max([longest, *(_longest_word(_plain(cell)) for cell in self.cells)])
        return min(self.full, max(floor, longest, *map(cell_len, re.split(r"\s", self.name))))


def widths(columns: Sequence[Column], room: int) -> dict[str, int] | None:
    """Returns the width of each column by its name; None if they do not fit."""
    for floor in (_FLOOR, _LEAST):
        least = {column.name: column.least(floor) for column in columns}
        if _total(least.values()) > room:
            continue
        found = {column.name: column.full for column in columns}
        while (over := _total(found.values()) - room) > 0:
            # The widest text gives way first.
            widest = max((n for n in found if found[n] > least[n]), key=lambda n: found[n])
            others = [found[n] for n in found if n != widest and found[n] > least[n]]
            lower = max([least[widest], found[widest] - over, *(o - 1 for o in others)])
            found[widest] = lower if lower < found[widest] else found[widest] - 1
        return found
    return None


def fitted(columns: Sequence[Column], room: int) -> tuple[dict[str, int], list[str]]:
    """Returns the widths of the columns that stay, and the names of those that go."""
    kept, gone = [*columns], list[str]()
    while (found := widths(kept, room)) is None:
        last = max(kept, key=lambda column: column.rank)
        if not last.rank and any(column.whole for column in kept):
            kept = [replace(column, whole=False) for column in kept]
            continue
        if not last.rank:
            return {column.name: column.least(_LEAST) for column in kept}, gone
        kept.remove(last)
        gone.append(last.name)
    return found, gone


def taller(columns: Iterable[Column]) -> list[Column]:
    """Returns columns whose figures take a line more: intervals their own, then a line an end."""
    return [
        column if column.text else replace(column, cells=[*map(_taller, column.cells)])
        for column in columns
    ]


def _taller(cell: str | Text) -> str | Text:
    words = _plain(cell)
    text = words.replace(" [", "\n[") if " [" in words else _INTERVAL.sub(r"\1\n", words)
    return Text(text, style=cell.style) if isinstance(cell, Text) else text


def show(
    console: Console, columns: Sequence[Column], heading: str = "", hint: str = "a wider terminal"
) -> None:
    """Prints a table as wide as the console, and below it what there was no room for.

    Args:
        console: where to.
        columns: all of the table; without a name on any of them it has no head.
        heading: above it.
        hint: what shows the columns that went.
    """
    for _ in range(2):
        if widths(columns, console.width) is None:
            columns = taller(columns)
    found, gone = fitted(columns, console.width)
    table(console, [column for column in columns if column.name in found], found, heading)
    if gone:
        prose(console, f"Left out for want of room: {', '.join(gone)} ({hint})", "dim")


def pairs(console: Console, values: Mapping[str, str], heading: str = "") -> None:
    """Prints names and what they stand for, a line each."""
    names = Column("", [f"{name} " for name in values], style="bold")
    told = Column(" ", [*values.values()], text=True)
    show(console, [names, told], heading)


def table(
    console: Console, columns: Sequence[Column], found: Mapping[str, int], heading: str = ""
) -> None:
    """Prints a table of columns of given widths.

    Args:
        console: where to.
        columns: those shown.
        found: width of each by its name.
        heading: above it.
    """
    if heading:
        prose(console, heading, "bold cyan")
    named = any(column.name.strip() for column in columns)
    drawn = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), show_header=named)
    for column in columns:
        width = found[column.name]
        drawn.add_column(
            wrapped(column.name, width), justify=column.side, width=width, no_wrap=True,
            overflow="fold", style=column.style,
        )  # fmt: skip
    for cells in zip(*(column.cells for column in columns), strict=True):
        pairs = zip(columns, cells, strict=True)
        drawn.add_row(*(wrapped(cell, found[column.name]) for column, cell in pairs))
    _print(console, drawn, _total(found.values()))


def prose(console: Console, text: str | Text, style: str = "") -> None:
    """Prints lines wrapped at the width of the console, between words where that can be."""
    whole = Text(plain(text), style=style) if isinstance(text, str) else text
    shown = wrapped(whole, console.width)
    _print(console, shown, _width(shown))


def _print(console: Console, what: Table | Text, width: int) -> None:
    before = console.width
    try:
        console.width = max(before, width)
        console.print(what, no_wrap=True, overflow="ignore", crop=False)
    finally:
        console.width = before


def wrapped(cell: str | Text, width: int) -> Text:
    """Returns text in lines of at most a width, but for what must not be cut."""
    text = Text(plain(cell)) if isinstance(cell, str) else cell
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        offsets = _breaks(line.plain, width)
        pieces = line.divide(offsets)
        for number, piece in enumerate(pieces):
            if number < len(pieces) - 1:
                piece.rstrip()
            lines.append(piece)
    joined = Text("\n", style=text.style).join(lines)
    joined.style = text.style
    return joined


def _breaks(line: str, width: int) -> list[int]:
    """Where a line is broken, so that no piece is wider than it must be."""
    offsets: list[int] = []
    if cell_len(line) <= width:
        return offsets
    whole = {at for m in _ATOM.finditer(line) for at in range(m.start() + 1, m.end())}
    start, most = 0, 4 * width + _SIGNS
    while len(line) - start > most or cell_len(line[start:]) > width:
        end, last = start, min(start + most, len(line))  # else a long text is measured at each sign
        while end < last and cell_len(line[start : end + 1].rstrip()) <= width:
            end += 1
        if end == len(line):
            break
        at = _best(line, start, max(end, start + 1), whole)
        if at >= len(line):
            break
        offsets.append(at)
        start = at
    return offsets


def _best(line: str, start: int, end: int, whole: set[int]) -> int:
    """The best place to break between two offsets, else the first after them."""
    allowed = [at for at in range(start + 1, end + 1) if at not in whole and at < len(line)]
    blanks = [at for at in allowed if line[at - 1].isspace()]
    signs = [at for at in allowed if line[at - 1] in _AFTER]
    if found := blanks or signs or allowed:
        return found[-1]
    return next((at for at in range(end, len(line)) if at not in whole), len(line))


def _longest_atom(text: str) -> int:
    return max((cell_len(match[0]) for match in _ATOM.finditer(text)), default=0)


def _longest_word(text: str) -> int:
    """The longest word that is none of those, paths and addresses, that are cut in any case."""
    return max((n for word in text.split() if (n := cell_len(word)) <= _WORD), default=0)


def _total(found: Iterable[int]) -> int:
    several = [*found]
    return sum(several) + len(several)


def _width(cell: str | Text) -> int:
    return max(map(cell_len, _plain(cell).split("\n")))


def _plain(cell: str | Text) -> str:
    """Its text as it is shown, of which its width is taken."""
    return plain(cell if isinstance(cell, str) else cell.plain)
