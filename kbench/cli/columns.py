"""What stands in the columns of a table, whatever it is printed as."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import mean
from typing import TypeAlias

from kbench.errors import UsageError, nearest
from kbench.metrics import AveragePrecision
from kbench.results.identity import Names, content, options, table_key, told_apart
from kbench.results.tables import Estimate, Row
from kbench.spec import Control, Setting
from kbench.store import Score

__all__ = [
    "ASKED",
    "IDENTITY",
    "NAMES",
    "Columns",
    "blank",
    "columns_of",
    "headings",
    "legend",
    "options_of",
    "tables_of",
]

Columns: TypeAlias = dict[str, str]
"""Text by heading."""

IDENTITY = ("method", "setting", "knowledge", "options")
"""Columns that tell the rows of a table apart."""
NAMES = {
    "score": "score",
    "by-sum": "by sum",
    "average-precision": "average precision",
    "delta": "Δ none",
    "gain": "knowledge gain",
    "kind": "kind",
    "individual": "individual",
    "net": "net gain",
    "shared": "shared",
    "covered": "covered",
    "trained": "trained",
    "seconds": "seconds",
    "locality": "broken",
    "latency": "ms (without)",
    "memory": "memory",
    "knowledge-bytes": "knowledge size",
    "retention": "retention",
    "repair": "repair",
    "mcnemar": "McNemar",
    "kl": "KL (unlinked)",
    "first-token": "same first token",
    "perplexity": "perplexity",
    "follow": "follow rate",
    "context": "answer in context",
    "tokens": "tokens",
}
"""Columns by the name they are asked for, beside those that tell the runs apart."""
ASKED = (
    "retention",
    "repair",
    "McNemar",
    "KL (unlinked)",
    "same first token",
    "perplexity",
    "follow rate",
    "answer in context",
    "tokens",
)
"""Headings that are shown only where they are asked for."""
_LEGEND = (
    "In per cent. Brackets: 95% bootstrap interval over test examples, and over seeds where there "
    "are several. Δ none: against the same frozen model without knowledge. Knowledge gain: against "
    "the same method with every entity's knowledge swapped for one's that has nothing in common "
    "with it (foreign). Covered: test examples with a linked entity. Trained: parameters of the "
    "plug, and the seconds of processor time they took (wall: of wall clock, where processor time "
    "is not known)."
)
_MORE = {
    "by sum": "By sum: the score if candidates were compared by their log-probability as it is.",
    "average precision": "Average precision: of the ranking of all labels, without a threshold.",
    "kind": "Kind and individual: the two parts of the knowledge gain, what any entity of the same "
    "type would have told and what only this one tells.",
    "shared": "Shared: test examples whose swapped entity tells the gold label, or has a type in "
    "common.",
    "net gain": "Net gain: the lesser of Δ none and knowledge gain; rows are in its order.",
    "broken": "Broken: of the examples without a linked entity that the model without knowledge "
    "has right, those that became wrong.",
    "ms (without)": "Ms: wall clock to evaluate an example, and without knowledge.",
    "retention": "Retention: of what the model without knowledge has right, the share that stays "
    "right.",
    "repair": "Repair: of what it has wrong, the share that becomes right.",
    "McNemar": "McNemar: p of the exact test between the two, of one seed.",
    "KL (unlinked)": "KL: how far what is said at the first answer token moves, in nats, on all "
    "test examples and in brackets on those without a linked entity.",
    "same first token": "Same first token: how often it is the same, likewise.",
    "perplexity": "Perplexity: of plain text with linked names, times that without the plug.",
    "follow rate": "Follow rate: of the examples with a known false value, those answered by it.",
    "answer in context": "Answer in context: the score where the texts that were brought spell "
    "out an answer / where they do not.",
    "tokens": "Tokens: of an example.",
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
    return [*IDENTITY, *(NAMES[name] for name in names)]


def legend(shown: Iterable[str]) -> str:
    """Returns what a reader must know of the columns shown."""
    return " ".join([_LEGEND, *(text for name, text in _MORE.items() if name in shown)])


def tables_of(all_rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Returns a heading and the rows of each table: task, backbone, tuning, metric and limit.

    The heading says too what all rows share beyond the defaults: options, linker, precision. What
    differs among them is in the column ``options``. The yardstick is the first of its table; then
    come the methods by their net gain, each with its controls below it, and then those that have
    none.
    """
    nets = {
        _true(row): row.net.value
        for row in all_rows
        if row.chosen and row.first.spec.control == Control.NONE and row.net
    }
    tables = []
    ordered = sorted(all_rows, key=lambda row: _order(row, nets.get(_true(row))))
    for _, several in groupby(ordered, key=_table):
        rows = [*several]
        shared, _ = _told_apart(rows)
        tables.append((_heading(rows[0], shared), rows))
    return tables


def options_of(all_rows: Sequence[Row]) -> dict[int, str]:
    """Returns what tells each row from the others of its table beside its columns, by its id()."""
    told: dict[int, str] = {}
    for _, rows in tables_of(all_rows):
        _, own = _told_apart(rows)
        told |= {id(row): text for row, text in zip(rows, own, strict=True)}
    return told


def _told_apart(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    names = rows[0].names or Names(result for row in rows for result in row.results)
    return told_apart([row.first for row in rows], names)


def _true(row: Row) -> str:
    """The same text for runs that differ in their control alone."""
    return str((_table(row), {**content(row.first), "control": ""}, options(row.first)))


def _order(row: Row, net: float | None) -> tuple[object, ...]:
    spec = row.first.spec
    setting, control = list(Setting).index(spec.setting), list(Control).index(spec.control)
    informed, place = spec.knowledge is not None, math.inf if net is None else -net
    known = row.name("knowledge") if informed else ""
    own = (spec.method, setting, known, str(options(row.first)), control)
    return _table(row), informed, place, *own


def _table(row: Row) -> tuple[str, ...]:
    """What rows of one table share; those that failed, whose data nobody read, have their own."""
    shown = tuple(row.name(name) for name in ("task", "backbone", "tuning"))
    return (*shown, str(row.first.main_metric), str(row.first.spec.limit), *table_key(row.first))


def _heading(row: Row, shared: Sequence[str]) -> str:
    spec = row.first.spec
    words = [row.name("task"), row.name("backbone"), spec.tuning, *shared]
    words += [row.first.main_metric] if row.first.main_metric else []
    words += [f"--limit {spec.limit}: not comparable"] if spec.limit else []
    return "  ·  ".join(words)


def columns_of(row: Row, told: str = "") -> Columns:
    """Returns the columns of a row.

    Args:
        row: the row.
        told: what tells it from others beside them, as of :func:`options_of`.
    """
    result, cost = row.first, row.cost
    spec = result.spec
    informed = spec.knowledge is not None
    control = "" if spec.control == Control.NONE else f"{spec.control} "
    trained = informed and row.score is not None
    memory = cost.get("peak_device_memory_bytes", cost.get("peak_memory_bytes"))
    return {
        "method": "\n".join(filter(None, (spec.method, row.choice.text if row.choice else ""))),
        "setting": str(spec.setting) if informed else "",
        "knowledge": f"{control}{row.name('knowledge')}" if informed else "",
        "options": told,
        "score": _estimate(row.score, sign="") if row.score else _standing(row),
        "by sum": _mean(row, f"{result.main_metric}_by_sum"),
        "average precision": _mean(row, AveragePrecision.name),
        "Δ none": _estimate(row.delta, sign="+"),
        "knowledge gain": _estimate(row.gain, sign="+"),
        "kind": _estimate(row.kind, sign="+"),
        "individual": _estimate(row.individual, sign="+"),
        "net gain": _estimate(row.net, sign="+"),
        "shared": "" if row.shared is None else f"{100 * row.shared:.0f}%",
        "covered": "" if row.coverage is None else f"{100 * row.coverage:.0f}%",
        "trained": f"{cost.get('trainable_parameters', 0):,.0f}" if trained else "",
        "seconds": _seconds(row) if trained else "",
        "broken": _locality(row),
        "ms (without)": _latency(row),
        "memory": _bytes(memory),
        "knowledge size": _bytes(cost.get("knowledge_bytes")),
        **_turned(row),
        **_moved(row),
        "follow rate": _share(row.follow),
        "answer in context": _context(row),
        "tokens": "" if row.tokens is None else f"{row.tokens:.1f}",
    }


def _turned(row: Row) -> Columns:
    """What became of the examples that the model without knowledge has right, and wrong."""
    turned = row.turned
    shares = ("", "", None) if turned is None else (
        _of(turned.retention, turned.right), _of(turned.repair, turned.wrong), turned.p
    )  # fmt: skip
    kept, repaired, p = shares
    test = "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
    return {"retention": kept, "repair": repaired, "McNemar": test}


def _moved(row: Row) -> Columns:
    """How far the plug moves what the model says."""
    moved = row.moved
    pairs = {"KL (unlinked)": ("kl", "{:.4f}"), "same first token": ("same_first", "{:.1%}")}
    columns = {}
    for heading, (name, form) in pairs.items():
        shown = [form.format(moved[n]) for n in (name, f"{name}_unlinked") if n in moved]
        columns[heading] = f"{shown[0]} ({shown[1]})" if len(shown) > 1 else "".join(shown)
    ratio = moved.get("perplexity_ratio")
    return {**columns, "perplexity": "" if ratio is None else f"× {ratio:.3g}"}


def _of(share: float | None, n: int) -> str:
    return "" if share is None else f"{100 * share:.1f}% of {n}"


def _share(score: Score | None) -> str:
    return "" if score is None else _of(score.value, score.n)


def _context(row: Row) -> str:
    """The scores with an answer in the context and without one."""
    if not row.context:
        return ""
    sides = (_share(row.context.get(name)) or "–" for name in ("answered", "unanswered"))
    return " / ".join(sides)


def _mean(row: Row, metric: str) -> str:
    """Another metric of the runs of a row, where all of them have it."""
    scores = [result.metrics.get(metric) for result in row.results]
    values = [score.value for score in scores if score is not None]
    return f"{100 * mean(values):.1f}" if values and len(values) == len(scores) else ""


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
