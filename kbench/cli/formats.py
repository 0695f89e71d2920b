"""Rows as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence

from kbench.cli.columns import ASKED, IDENTITY, blank, columns_of, legend, options_of, tables_of
from kbench.errors import one_line
from kbench.results.notes import notes
from kbench.results.shown import flat
from kbench.results.tables import Row

__all__ = ["as_csv", "as_latex", "as_markdown"]

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "Δ": r"$\Delta$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|&])")
_MINUS = re.compile(r"(?<![\w-])-(?=\d)")


def as_markdown(
    all_rows: Sequence[Row], best: Collection[str], columns: Sequence[str] | None = None
) -> str:
    """Returns a table for each task, backbone, tuning and limit; the best and what ties in bold."""
    names, lines = _grid(all_rows, columns)
    sides = ["---" if name in IDENTITY else "---:" for name in names]
    parts = []
    for heading, rows in tables_of(all_rows):
        parts += [f"### {_plain(heading)}", "", _piped(map(_plain, names)), f"|{'|'.join(sides)}|"]
        for row in rows:
            values = {name: _plain(cell) for name, cell in lines[id(row)].items()}
            if row.first.id in best and "score" in values:
                values["score"] = _bold(values["score"], "**{}**")
            parts.append(_piped(values.values()))
        parts.append("")
        for note in _notes(rows):
            parts += [_plain(note), ""]
    return "\n".join([*parts, legend(names)])


def as_latex(
    all_rows: Sequence[Row], best: Collection[str], columns: Sequence[str] | None = None
) -> str:
    """Returns a booktabs tabular for each task, backbone, tuning and limit; likewise in bold."""
    names, lines = _grid(all_rows, columns)
    sides = "".join("l" if name in IDENTITY else "r" for name in names)
    parts = [r"% needs \usepackage{booktabs}", f"% {legend(names)}"]
    for heading, rows in tables_of(all_rows):
        parts += [f"% {one_line(heading)}", rf"\begin{{tabular}}{{{sides}}}", r"\toprule"]
        parts += [_latex_row(map(_escaped, names)), r"\midrule"]
        for row in rows:
            values = {name: _escaped(cell) for name, cell in lines[id(row)].items()}
            if row.first.id in best and "score" in values:
                values["score"] = _bold(values["score"], r"\textbf{{{}}}")
            parts.append(_latex_row(values.values()))
        parts += [r"\bottomrule", r"\end{tabular}"]
        parts += [*(f"% {one_line(note)}" for note in _notes(rows)), ""]
    return "\n".join(parts)


def _notes(rows: Sequence[Row]) -> list[str]:
    return notes([result for row in rows for result in row.results])


def as_csv(rows: Sequence[Row], best: Collection[str]) -> str:
    """Returns all figures, a line a row: fractions and SI units, empty where there is none."""
    lines = [flat(row, row.first.id in best) for row in rows]
    if not lines:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _grid(
    rows: Sequence[Row], columns: Sequence[str] | None
) -> tuple[list[str], dict[int, dict[str, str]]]:
    """Returns the headings, and the cells of each row: those asked for, or all with anything."""
    told = options_of(rows)
    lines = {id(row): columns_of(row, told[id(row)]) for row in rows}
    empty = blank([*lines.values()])
    known = next(iter(lines.values()), {})
    if columns:  # what is asked for is shown, blank or not
        empty &= {"options"}
    shown = columns or [name for name in known if name not in ASKED]
    names = [name for name in shown if name not in empty]
    return names, {key: {name: line[name] for name in names} for key, line in lines.items()}


def _bold(text: str, form: str) -> str:
    """Sets the score in bold, not its interval."""
    value, sign, rest = text.partition(" ")
    return form.format(value) + sign + rest


def _piped(values: Iterable[str]) -> str:
    return f"| {' | '.join(values)} |"


def _latex_row(values: Iterable[str]) -> str:
    return f"{' & '.join(values)} \\\\"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def _escaped(text: str) -> str:
    """Text that LaTeX shows as it is, with the minus of figures."""
    shown = "".join(_LATEX.get(sign, sign) for sign in one_line(text))
    return _MINUS.sub("$-$", shown)
