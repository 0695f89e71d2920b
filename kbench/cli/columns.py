"""What stands in the columns of a table, whatever it is printed as."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TypeAlias

from kbench.errors import UsageError, nearest
from kbench.results.tables import Estimate, Row
from kbench.spec import Control, Setting

__all__ = ["NAMES", "Columns", "blank", "columns_of", "headings", "legend", "tables_of"]

Columns: TypeAlias = dict[str, str]
"""Text by heading."""

NAMES = {
    "score": "score",
    "delta": "Δ none",
    "gain": "knowledge gain",
    "net": "net gain",
    "covered": "covered",
    "trained": "trained",
    "seconds": "seconds",
    "locality": "broken",
    "latency": "ms (without)",
    "memory": "memory",
    "knowledge-bytes": "knowledge size",
}
"""Columns by the name they are asked for, beside those that tell the runs apart."""
_LEGEND = (
    "In per cent. Brackets: 95% bootstrap interval over test examples, and over seeds where there "
    "are several. Δ none: against the same frozen model without knowledge. Knowledge gain: against "
    "the same method with every entity's knowledge swapped for another's (shuffled). Covered: test "
    "examples with a linked entity. Trained: parameters of the plug, and the seconds "
    "of processor time they took (wall: of wall clock, where processor time is not known)."
)
_MORE = {
    "net gain": "Net gain: the lesser of Δ none and knowledge gain; rows are in its order.",
    "broken": "Broken: of the examples without a linked entity that the model without knowledge "
    "has right, those that became wrong.",
    "ms (without)": "Ms: wall clock to evaluate an example, and without knowledge.",
    "memory": "Memory: the peak of the process or device.",
}
_UNITS = ("B", "kB", "MB", "GB", "TB")


def headings(columns: str | None) -> list[str] | None:
    """Understands a comma list of columns; None for all.

    Raises:
        UsageError: there is no such column.
    """
    if columns is None:
        return None
    names = [name.strip() for name in columns.split(",") if name.strip()]
    for name in names:
        if name not in NAMES:
            raise UsageError(f"--columns: no column is called {name!r}{nearest(name, NAMES)}")
    return ["method", "setting", "knowledge", *(NAMES[name] for name in names)]


def legend(shown: Iterable[str]) -> str:
    """Returns what a reader must know of the columns shown."""
    return " ".join([_LEGEND, *(text for name, text in _MORE.items() if name in shown)])


def tables_of(all_rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Returns a heading and the rows of each table: task, backbone, tuning, metric and limit.

    The yardstick is the first of its table; then come the methods by their net gain, each with
    its controls below it, and then those that have none.
    """
    nets: dict[str, float] = {}
    for row in all_rows:
        if row.chosen and row.first.spec.control == Control.NONE and row.net:
            nets[_true(row)] = row.net.value
    ordered = sorted(all_rows, key=lambda row: _order(row, nets.get(_true(row))))
    return [(heading, [*rows]) for heading, rows in groupby(ordered, key=_heading)]


def _true(row: Row) -> str:
    """Tells the runs that differ in their control alone from all others."""
    return repr(
        (_heading(row), row.first.spec.model_dump(mode="json", exclude={"control", "seed"}))
    )


def _order(row: Row, net: float | None) -> tuple[str, bool, float, str, int, str, str, int]:
    spec = row.first.spec
    setting, control = list(Setting).index(spec.setting), list(Control).index(spec.control)
    known, place = spec.knowledge or "", math.inf if net is None else -net
    return _heading(row), bool(known), place, spec.method, setting, known, _true(row), control


def _heading(row: Row) -> str:
    spec = row.first.spec
    words = [spec.task, spec.backbone, spec.tuning]
    words += [row.first.main_metric] if row.first.main_metric else []
    words += [f"--limit {spec.limit}: not comparable"] if spec.limit else []
    return "  ·  ".join(words)


def columns_of(row: Row) -> Columns:
    """Returns the columns of a row."""
    result, cost = row.first, row.cost
    spec = result.spec
    informed = spec.knowledge is not None
    control = "" if spec.control == Control.NONE else f"{spec.control} "
    trained = informed and row.score is not None
    memory = cost.get("peak_device_memory_bytes", cost.get("peak_memory_bytes"))
    return {
        "method": "\n".join(filter(None, (spec.method, row.choice.text if row.choice else ""))),
        "setting": str(spec.setting) if informed else "",
        "knowledge": f"{control}{_short(spec.knowledge)}" if spec.knowledge else "",
        "score": _estimate(row.score, sign="") if row.score else _standing(row),
        "Δ none": _estimate(row.delta, sign="+"),
        "knowledge gain": _estimate(row.gain, sign="+"),
        "net gain": _estimate(row.net, sign="+"),
        "covered": "" if row.coverage is None else f"{100 * row.coverage:.0f}%",
        "trained": f"{cost.get('trainable_parameters', 0):,.0f}" if trained else "",
        "seconds": _seconds(row) if trained else "",
        "broken": _locality(row),
        "ms (without)": _latency(row),
        "memory": _bytes(memory),
        "knowledge size": _bytes(cost.get("knowledge_bytes")),
    }


def _seconds(row: Row) -> str:
    """Processor time, for machines are shared; wall clock where there is nothing else."""
    spent = row.training_processor_seconds
    return f"{row.training_seconds or 0:.0f} s wall" if spent is None else f"{spent:.0f} s"


def _standing(row: Row) -> str:
    return str(row.first.status) if row.chosen else "–"


def blank(several: Sequence[Columns]) -> set[str]:
    """Returns the headings under which no row has anything."""
    names = several[0] if several else {}
    return {name for name in names if not any(row[name] for row in several)}


def _short(knowledge: str) -> str:
    return knowledge.rstrip("/").rsplit("/", maxsplit=1)[-1]


def _estimate(estimate: Estimate | None, sign: str) -> str:
    if estimate is None:
        return ""
    value = f"{100 * estimate.value:{sign}.1f}"
    if estimate.low is None or estimate.high is None:
        return value if estimate.deviation is None else f"{value} ± {100 * estimate.deviation:.1f}"
    return f"{value} [{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"


def _locality(row: Row) -> str:
    return "" if row.locality is None else f"{100 * row.locality.value:.1f}% of {row.locality.n}"


def _latency(row: Row) -> str:
    seconds = row.cost.get("evaluate_seconds_per_example")
    if seconds is None:
        return ""
    without = "" if row.seconds_without is None else f" ({1000 * row.seconds_without:.2f})"
    return f"{1000 * seconds:.2f}{without}"


def _bytes(count: float | None) -> str:
    if not count:
        return ""
    power = next(n for n in range(len(_UNITS)) if count < 1000 ** (n + 1) or n == len(_UNITS) - 1)
    return f"{count / 1000**power:.{1 if power else 0}f} {_UNITS[power]}"
