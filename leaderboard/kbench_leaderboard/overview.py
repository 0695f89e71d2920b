"""The front page: which method to use, as one matrix of methods × tasks a model, and an order.

A panel is of one backbone, tuning and revision of the engine. Its order is by the mean rank of the
net gain over the tasks of the comparison, those that at least half of its methods have; who lacks
one of them takes no part, and is named with what is missing. Averages of figures are of these
tasks: their intervals are over seeds and examples.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from statistics import mean
from typing import TypeAlias

import numpy as np

from kbench.data.files import canonical_digest
from kbench.errors import KbenchError
from kbench.metrics import Array, Standing, standings
from kbench.parts.find import task_kind
from kbench.parts.registry import Kind, find
from kbench.parts.source_text import constant
from kbench.results.identity import Names
from kbench.results.ranking import net_replicates
from kbench.results.tables import Estimate
from kbench.spec import Control, Setting
from kbench.store import Result
from kbench_leaderboard.board import Group, Line

__all__ = ["FIGURES", "Cell", "Column", "Missing", "Panel", "Tally", "panels"]

FIGURES = {
    "gain": "knowledge gain",
    "net": "net gain",
    "delta": "Δ none",
    "kind": "kind",
    "individual": "individual",
    "score": "score",
}
"""What a cell can show, and how it is called; the scores under each control come beside it."""
_PANELS = 12
"""Models that the front page shows; the tables have all."""
_SHARE = 0.5
"""Share of the methods that a task of the comparison has at least."""
_SIDES = {"gain": ("own", "foreign"), "delta": ("own", "none"), "kind": ("same_type", "foreign"),
          "individual": ("own", "same_type")}  # fmt: skip
_NEEDED = (("gain", "no run with foreign knowledge"), ("delta", "no run without knowledge"))
"""What a row needs for a net gain."""


@dataclass(frozen=True)
class Column:
    """A task of a panel.

    Attributes:
        group: its results.
        label: its name, with what tells it from another column of the same task.
        compared: whether the order is over it.
    """

    group: Group
    label: str
    compared: bool = True


@dataclass(frozen=True)
class Cell:
    """A method on a task.

    Attributes:
        line: its row on the board.
        under: its score under each control, by the name of the control; ``none`` without knowledge.
    """

    line: Line
    under: Mapping[str, Estimate]

    def figure(self, name: str) -> Estimate | None:
        """Returns one of :data:`FIGURES`, or the score under a control."""
        found: Estimate | None = getattr(self.line.row, name) if name in FIGURES else None
        return found or self.under.get(name)

    def replicates(self, name: str) -> Array | None:
        """Returns a figure in every resample. ``[resamples]``; None where it is not known."""
        sides = self.line.sides
        if self.figure(name) is None or "own" not in sides:
            return None
        if name == "score":
            return sides["own"]
        if name == "net":
            both = {"foreign", "none"} <= sides.keys()
            return net_replicates(sides["own"], sides["foreign"], sides["none"]) if both else None
        one, two = _SIDES[name]
        return sides[one] - sides[two] if {one, two} <= sides.keys() else None


@dataclass(frozen=True)
class Tally:
    """A method, in a setting, on all tasks of a panel.

    Attributes:
        method: its name.
        setting: empty for what needs no knowledge.
        note: what else tells it from the others: knowledge, options.
        cells: one a column; None where it has no result.
        averages: of each figure over the tasks of the comparison, if it has them all.
        standing: by mean rank of the net gain; None if it takes no part in the order.
        here: the same by the average net gain on these tasks alone.
    """

    method: str
    setting: str
    note: str
    cells: tuple[Cell | None, ...]
    averages: Mapping[str, Estimate] = field(default_factory=dict)
    standing: Standing | None = None
    here: Standing | None = None

    @property
    def name(self) -> str:
        """What it is called, for people."""
        told = ", ".join(filter(None, (self.setting, self.note)))
        return f"{self.method} ({told})" if told else self.method

    @property
    def seeds(self) -> int:
        """How many seeds it has at least on each task."""
        return min(len(cell.line.row.results) for cell in self.cells if cell)


@dataclass(frozen=True)
class Missing:
    """A method that takes no part in the order.

    Attributes:
        name: of the method, for people.
        text: what is missing.
        result: a run that failed or was skipped, if that is why.
    """

    name: str
    text: str
    result: Result | None = None


@dataclass(frozen=True)
class Panel:
    """All methods on all tasks of one downstream model.

    Attributes:
        backbone: its name.
        tuning: its name.
        reads: ``encoder`` or ``decoder``; empty where it is not known.
        revision: of the engine, if it is not the one here; else empty.
        columns: the tasks.
        rows: the methods, by setting, each by the order.
        missing: who takes no part in the order, and why.
    """

    backbone: str
    tuning: str
    reads: str
    revision: str
    columns: tuple[Column, ...]
    rows: tuple[Tally, ...]
    missing: tuple[Missing, ...] = ()

    @property
    def title(self) -> str:
        """A short name for people."""
        made = f"engine revision {self.revision}" if self.revision else ""
        return ", ".join(filter(None, (self.backbone, self.tuning, made)))

    @property
    def key(self) -> str:
        """Tells it from the other panels; fit for an anchor."""
        told = [self.backbone, self.tuning, *(column.group.key for column in self.columns)]
        return "p" + canonical_digest(told)[:12]

    @property
    def compared(self) -> list[Column]:
        """The tasks that the order is over."""
        return [column for column in self.columns if column.compared]

    @property
    def order(self) -> list[Tally]:
        """Who takes part in the order, by mean rank."""
        ranked = [row for row in self.rows if row.standing]
        return sorted(ranked, key=_place)

    @property
    def first(self) -> list[Tally]:
        """Those that share the first rank."""
        return [row for row in self.order if row.standing and row.standing.rank == 1]

    @property
    def best(self) -> Tally | None:
        """Of these the one that gains most on average; None where none gains beyond chance."""
        gains = [row for row in self.first if (row.averages["net"].low or 0.0) > 0]
        return max(gains, key=lambda row: row.averages["net"].value, default=None)

    @property
    def leads(self) -> list[Tally]:
        """Of each setting the one that gains most on average; none where the order has one alone.

        A model that is tuned around a plug is another model, and a general plug has seen no task:
        who may choose a setting is told which, and who may not, what is best in theirs.
        """
        found: dict[str, Tally] = {}
        for row in sorted(self.order, key=lambda row: -row.averages["net"].value):
            found.setdefault(row.setting, row)
        names = [name for name in map(str, Setting) if name in found]
        return [found[name] for name in names] if len(found) > 1 else []

    @property
    def seeds(self) -> int:
        """How many seeds those of the order have at most: with one, no interval is over seeds."""
        return max((row.seeds for row in self.order), default=0)

    @property
    def critical(self) -> tuple[float, float] | None:
        """The least and the largest critical difference to the best mean rank."""
        stands = [row.standing for row in self.order if row.standing and row.standing.behind]
        told = [standing.critical for standing in stands if standing.critical is not None]
        return (min(told), max(told)) if told else None

    @property
    def figures(self) -> list[str]:
        """The figures and controls that some cell has."""
        cells = [cell for row in self.rows for cell in row.cells if cell]
        names = [*FIGURES, *map(str, Control)]
        return [name for name in names if any(cell.figure(name) for cell in cells)]


_Key: TypeAlias = tuple[str, str, str]


def panels(groups: Iterable[Group], failed: Sequence[Result], names: Names) -> list[Panel]:
    """Returns the panels of the front page: the fullest of each backbone, then the others.

    Args:
        groups: of the board.
        failed: runs without a score.
        names: of the parts of all of them.
    """
    parts: dict[tuple[str, str, str], list[Group]] = defaultdict(list)
    for group in groups:
        revision = "" if group.current else group.revision
        parts[group.backbone, group.tuning, revision].append(group)
    by_backbone: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for key in sorted(parts, key=lambda key: (key[2] != "", -_size(parts[key]), key)):
        by_backbone[key[0]].append(key)
    first = sorted(by_backbone.values(), key=lambda keys: -_size(parts[keys[0]]))
    first.sort(key=lambda keys: _reads(parts[keys[0]][0].lines[0].first) != "encoder")
    order = filter(None, chain.from_iterable(zip_longest(*first)))
    return [
        _panel(parts[key], key[2], _ended(key, failed, names))
        for key, _ in zip(order, range(_PANELS), strict=False)
    ]


def _size(groups: Sequence[Group]) -> int:
    return sum(line.ranked for group in groups for line in group.lines)


def _reads(result: Result) -> str:
    """How a backbone reads, as far as that can be told without loading it."""
    spec = result.spec
    try:
        left = constant(find(Kind.BACKBONES, spec.backbone), "left_to_right")
        return "decoder" if left is True else "encoder"
    except KbenchError:
        pass
    try:
        kind = task_kind(spec.task)
    except KbenchError:
        return ""
    return "decoder" if spec.tuning == kind.decoder_tuning != kind.tuning else ""


def _ended(key: tuple[str, str, str], failed: Sequence[Result], names: Names) -> list[Result]:
    """The runs of a panel, with true knowledge, that have no score."""
    return [
        result
        for result in failed
        if result.spec.control == Control.NONE
        and (names.of(result, "backbone"), names.of(result, "tuning")) == key[:2]
    ]


def _panel(groups: Sequence[Group], revision: str, ended: Sequence[Result]) -> Panel:
    labels = Counter(group.task for group in groups)
    columns = [Column(g, g.task if labels[g.task] == 1 else _told_apart(g)) for g in groups]
    rows = [*_tallies(groups)]
    able = [row for row in rows if any(cell and cell.replicates("net") is not None
                                       for cell in row.cells)]  # fmt: skip
    columns = [
        Column(column.group, column.label, _has(able, at) >= max(1, _SHARE * len(able)))
        for at, column in enumerate(columns)
    ]
    over = [at for at, column in enumerate(columns) if column.compared]
    rows = _ordered(_with_standings(rows, over))
    first = groups[0].lines[0].first
    missing = [*_missing(rows, columns, ended)]
    return Panel(groups[0].backbone, groups[0].tuning, _reads(first), revision, tuple(columns),
                 tuple(rows), tuple(missing))  # fmt: skip


def _told_apart(group: Group) -> str:
    return ", ".join([group.task, *group.shared, group.variant, group.data[:6]])


def _has(rows: Sequence[Tally], at: int) -> int:
    cells = (row.cells[at] for row in rows)
    return sum(cell is not None and cell.replicates("net") is not None for cell in cells)


def _tallies(groups: Sequence[Group]) -> Iterator[Tally]:
    """Yields a row for each method and setting; more where these are not all that differs."""
    found: dict[tuple[str, str], list[tuple[int, Line]]] = defaultdict(list)
    for at, group in enumerate(groups):
        for line in group.lines:
            if line.ranked:
                spec = line.first.spec
                setting = str(spec.setting) if spec.knowledge is not None else ""
                found[spec.method, setting].append((at, line))
    under = [_controls(group) for group in groups]
    for (method, setting), several in found.items():
        for note, lines in _several(several).items():
            cells: list[Cell | None] = [None] * len(groups)
            for at, line in lines:
                cells[at] = Cell(line, _under(line, under[at]))
            yield Tally(method, setting, note, tuple(cells))


def _several(lines: Sequence[tuple[int, Line]]) -> dict[str, list[tuple[int, Line]]]:
    """Parts the lines of a method such that none has two on a task, by as little as does it."""
    ways: tuple[Callable[[Line], str], ...] = (
        lambda _: "",
        lambda line: line.row.name("knowledge"),
        lambda line: line.options,
        lambda line: ", ".join(filter(None, (line.row.name("knowledge"), line.options))),
        lambda line: line.first.id,
    )
    parts: dict[str, list[tuple[int, Line]]] = {}
    for way in ways:
        parts = defaultdict(list)
        for at, line in lines:
            parts[way(line)].append((at, line))
        if all(len({at for at, _ in each}) == len(each) for each in parts.values()):
            break
    return parts


def _controls(group: Group) -> dict[tuple[str, ...], dict[str, Estimate]]:
    """The scores under controls of each run of a group."""
    found: dict[tuple[str, ...], dict[str, Estimate]] = defaultdict(dict)
    for line in group.lines:
        control = line.first.spec.control
        if control != Control.NONE and line.row.score is not None:
            found[line.cell][str(control)] = line.row.score
    return found


def _under(
    line: Line, controls: Mapping[tuple[str, ...], dict[str, Estimate]]
) -> dict[str, Estimate]:
    under = dict(controls.get(line.cell, {})) if line.first.spec.knowledge is not None else {}
    scores = [result.score for result in line.row.none or ()]
    known = [score for score in scores if score]
    if known:
        one = known[0] if len(known) == 1 else None
        ends = (one.low, one.high) if one else (None, None)
        under["none"] = Estimate(mean(score.value for score in known), *ends)
    return under


def _with_standings(rows: Sequence[Tally], over: Sequence[int]) -> list[Tally]:
    """Gives each row its averages and how it stands over some columns, if it has them all."""
    averages: list[dict[str, Estimate]] = [{} for _ in rows]
    stand: dict[int, tuple[Standing, Standing]] = {}
    for name in FIGURES if over else ():
        at, values, drawn = _complete(rows, over, name)
        if not at:
            continue
        mean_of = drawn.mean(axis=1)
        ends = np.quantile(mean_of, [0.025, 0.975], axis=1)
        for number, value, low, high in zip(at, values.mean(axis=1), *ends, strict=True):
            averages[number][name] = Estimate(float(value), float(low), float(high))
        if name == "net":
            alone = standings(values.mean(axis=1)[:, None], mean_of[:, None])
            stand = dict(zip(at, zip(standings(values, drawn), alone, strict=True), strict=True))
    return [
        replace(row, averages=told, standing=stands[0], here=stands[1])
        for number, (row, told) in enumerate(zip(rows, averages, strict=True))
        for stands in [stand.get(number, (None, None))]
    ]


def _complete(
    rows: Sequence[Tally], over: Sequence[int], name: str
) -> tuple[list[int], Array, Array]:
    """Returns which rows have a figure on all of some columns, and it in every resample."""
    at, values, drawn = [], [], []
    for number, row in enumerate(rows):
        cells = [cell for place in over if (cell := row.cells[place])]
        figures = [figure.value for cell in cells if (figure := cell.figure(name))]
        replicates = [found for cell in cells if (found := cell.replicates(name)) is not None]
        if len(figures) == len(replicates) == len(over):
            at.append(number)
            values.append(figures)
            drawn.append(replicates)
    return at, np.array(values), np.array(drawn)


def _place(row: Tally) -> tuple[float, float, str]:
    """Where a row stands: by mean rank, of those that share it by the average on these tasks."""
    if row.standing is None:
        return float("inf"), 0.0, row.name
    return round(row.standing.mean_rank, 6), -row.averages["net"].value, row.name


def _ordered(rows: Sequence[Tally]) -> list[Tally]:
    """By setting, that with the best row first and what needs no knowledge last; then the order."""
    best: dict[str, tuple[float, float, str]] = {}
    for row in sorted(rows, key=_place):
        best.setdefault(row.setting, _place(row))
    return sorted(rows, key=lambda row: (not row.setting, best[row.setting], _place(row)))


def _missing(
    rows: Sequence[Tally], columns: Sequence[Column], ended: Sequence[Result]
) -> Iterator[Missing]:
    """Yields who takes no part in the order."""
    by_run: dict[_Key, Result] = {
        (result.spec.task, result.spec.method, str(result.spec.setting)): result
        for result in reversed(ended)
    }
    shown = set()
    for row in rows:
        shown.add((row.method, row.setting))
        if row.standing or not row.setting:
            continue
        broken: Result | None = None
        reasons: dict[str, list[str]] = defaultdict(list)
        for column, cell in zip(columns, row.cells, strict=True):
            if not column.compared:
                continue
            lacks = _lacks(cell)
            if cell is None:
                task = column.group.lines[0].first.spec.task
                ended_so = by_run.get((task, row.method, row.setting))
                broken = broken or ended_so
                lacks = f"{ended_so.status}: {ended_so.reason}" if ended_so else lacks
            if lacks:
                reasons[lacks].append(column.label)
        text = "; ".join(f"{', '.join(tasks)}: {lacks}" for lacks, tasks in reasons.items())
        yield Missing(row.name, text or "no task of the comparison", broken)
    wholly: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in ended:
        setting = str(result.spec.setting) if result.spec.knowledge is not None else ""
        if (result.spec.method, setting) not in shown:
            wholly[result.spec.method, setting].append(result)
    for (method, setting), several in wholly.items():
        tasks = ", ".join(sorted({result.spec.task for result in several}))
        name = f"{method} ({setting})" if setting else method
        text = f"{tasks}: {several[0].status}: {several[0].reason}"
        yield Missing(name, text, several[0])


def _lacks(cell: Cell | None) -> str:
    """What a cell lacks to be ranked; empty if nothing."""
    if cell is None:
        return "no result"
    if cell.replicates("net") is not None:
        return ""
    lacking = [text for figure, text in _NEEDED if cell.figure(figure) is None]
    return " and ".join(lacking) or "other test examples than the others"
