"""Results as a board: groups of what can be compared, rows over their seeds, and ranks.

A group is of one task, test data, backbone, tuning, metric and revision of the engine, by content:
another revision would make other predictions of the same run. Within it a rank is one
more than the number of rows that are better beyond chance: the 95% interval of their paired
bootstrap difference lies above 0. So rows that cannot be told apart share a number, and a row that
ties with a better and a worse one, which do differ, stands between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from kbench.data.files import canonical_digest
from kbench.errors import KbenchError
from kbench.metrics import Array, bootstrap_replicates
from kbench.parts.find import task_kind
from kbench.pipeline.revision import ENGINE_REVISION
from kbench.results.choice import untold
from kbench.results.comparison import PredictionCache, metric_of
from kbench.results.identity import Names, content, table_key, told_apart
from kbench.results.ranking import net_replicates
from kbench.results.selection import Group as Runs
from kbench.results.tables import Row, rows
from kbench.spec import Control
from kbench.store import Predictions, Result, Results, Status
from kbench_leaderboard.submission import Entry, read

__all__ = [
    "OTHER",
    "Difficulty",
    "Group",
    "Line",
    "Shelf",
    "beside",
    "family",
    "group_of",
    "key_of",
    "parted",
    "ranks",
]

OTHER = "other tasks"
"""The family of tasks that are not installed where the site is built."""


class Shelf(Results):
    """Results out of several folders; predictions are read when asked for, and kept for a group.

    Args:
        folders: the folder of each result, by its id.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        super().__init__(Path())  # there is no folder of all: whatever lies anywhere is asked below
        self._folders = folders
        self._read: dict[str, Entry] = {}

    def files(self, result: Result) -> tuple[Path, Path]:
        """Returns where a result and its predictions lie: what is remembered of them goes by it."""
        one, two = super().files(result)
        folder = self._folders[result.id]
        return folder / one.name, folder / two.name

    def predictions(self, result: Result) -> Predictions | None:
        return self._entry(result).predictions

    def problem(self, result: Result) -> str:
        """Returns why the predictions of a result cannot be read; empty if they can."""
        return self._entry(result).problem

    def _entry(self, result: Result) -> Entry:
        if result.id not in self._read:
            (self._read[result.id],) = read(self._folders[result.id])
        return self._read[result.id]

    def forget(self) -> None:
        """Lets go of all predictions, for they are large."""
        self._read.clear()


@dataclass(frozen=True)
class Line:
    """A row of the board; a rank is None where there is nothing to rank, as of a control.

    ``options`` says what tells it from the others of its group beside method and knowledge, and
    ``sides`` has the scores of an entry and of what it is read against (``own``, ``foreign``,
    ``none``, ``same_type``, as far as they are there) in every resample, of the same draws.
    """

    row: Row
    by_net: int | None
    by_score: int | None
    options: str = ""
    sides: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)

    @property
    def first(self) -> Result:
        """The result that stands for what all seeds share."""
        return self.row.first

    @property
    def ranked(self) -> bool:
        """Whether it is an entry of its own: no control, scored, and of a sweep the best on dev."""
        return _is_entry(self.row)

    @cached_property
    def cell(self) -> tuple[str, ...]:
        """What it shares, within its group, with its controls alone."""
        spec = self.first.spec
        return spec.method, str(spec.setting), self.row.name("knowledge"), self.options

    @property
    def name(self) -> str:
        """What tells it from the other lines of its group, for people."""
        names = self.row.names or Names(self.row.results)
        name = ", ".join(filter(None, (names.title(self.first), self.options)))
        choice = self.row.choice.text if self.row.choice else ""
        return f"{name} ({choice})" if choice else name


@dataclass(frozen=True)
class Difficulty:
    """How many of the test examples the entries of a group have right, in their first seeds.

    Attributes:
        examples: all.
        by_all: that every entry has right.
        by_none: that no entry has right.
    """

    examples: int
    by_all: int
    by_none: int


@dataclass(frozen=True)
class Group:
    """What can be compared. ``lines`` are in the order of their ranks, by net gain, then score.

    ``shared`` says what all of them share beyond the defaults: options, linker, precision.
    """

    family: str
    task: str
    backbone: str
    tuning: str
    metric: str
    variant: str
    data: str
    lines: tuple[Line, ...]
    difficulty: Difficulty | None = None
    shared: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """A short name for people."""
        words = [self.task, self.backbone, self.tuning, *self.shared, self.metric]
        words += [] if self.current else [f"engine revision {self.revision}"]
        return " / ".join(words)

    @property
    def current(self) -> bool:
        """Whether the engine that made its results is the one here, as far as they say."""
        return self.revision in ("", str(ENGINE_REVISION))

    @property
    def revision(self) -> str:
        """The revision of the engine that made its results; empty where it is not said."""
        return _revision(self.lines[0].first)

    @property
    def key(self) -> str:
        """Tells it from all other groups; fit for a file name and an anchor."""
        return key_of(self.lines[0].first)

    @property
    def results(self) -> Iterator[Result]:
        """Every result in it."""
        return (result for line in self.lines for result in line.row.results)


def beside(group: Group, line: Line, result: Result) -> Iterator[tuple[str, Result]]:
    """Yields what a result is to be read against: its controls, and the run without knowledge.

    All are of its seed; each comes with a few words on what it is.
    """
    if result.spec.knowledge is None:
        return
    own = [other for other in group.lines if other.cell == line.cell]
    of_seed = (
        (str(other.first.spec.control), each)
        for other in own
        for each in other.row.results
        if each.spec.seed == result.spec.seed and each.id != result.id
    )
    for control, each in of_seed:
        yield ("true knowledge" if control == Control.NONE else f"{control} knowledge"), each
    yardsticks = next((other.row.none for other in own if other.row.none), None) or ()
    yield from (("no knowledge", r) for r in yardsticks if r.spec.seed == result.spec.seed)


def parted(results: Iterable[Result], names: Names) -> list[list[Result]]:
    """Parts results that ended well into groups, by family, task, backbone and tuning.

    Args:
        results: any.
        names: of the parts of all of them.

    Returns:
        what can be compared, each sorted by id.
    """
    parts: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        if result.status == Status.OK and result.score is not None:
            shown = (family(result), *(names.of(result, n) for n in ("task", "backbone", "tuning")))
            parts.setdefault((*shown, *_board_key(result)), []).append(result)
    return [sorted(parts[key], key=lambda result: result.id) for key in sorted(parts)]


def key_of(result: Result) -> str:
    """Tells the group of a result from all others; fit for a file name and an anchor."""
    return "g" + canonical_digest([*_board_key(result)])[:12]


def _board_key(result: Result) -> tuple[str, ...]:
    """What results share that can be ranked."""
    return (*table_key(result), _revision(result))


def _revision(result: Result) -> str:
    """The revision of the engine that made a result; empty where it is not said."""
    return str(result.provenance.revision) if result.provenance else ""


def family(result: Result) -> str:
    """Returns the family of a result's task."""
    try:
        return str(task_kind(result.spec.task).family)
    except KbenchError:
        return OTHER


def group_of(results: Sequence[Result], shelf: Shelf, names: Names) -> Group:
    """Returns the group of results that :func:`parted` put together, ranked.

    Args:
        results: of one group.
        shelf: their predictions.
        names: of the parts of all results.
    """
    made = [row if row.chosen else untold(row) for row in rows(results, shelf, names=names)]
    tables = PredictionCache(shelf)
    shared, told = told_apart([row.first for row in made], names)
    entries = [row for row in made if _is_entry(row)]
    several = [runs for row in entries for runs in _sides(row).values()]
    drawn = _drawn([*{_ids(runs): runs for runs in several}.values()], tables)  # a yardstick once
    sides = [_replicates(row, drawn) if _is_entry(row) else {} for row in made]
    nets = [_net(row, own) for row, own in zip(made, sides, strict=True)]
    scores = [own.get("own") for own in sides]
    ranked = zip(made, ranks(nets), ranks(scores), told, sides, strict=True)
    lines = tuple(sorted((Line(*values) for values in ranked), key=_order))
    first = made[0].first
    assert first.score is not None
    task, backbone, tuning = (names.of(first, name) for name in ("task", "backbone", "tuning"))
    return Group(
        family=family(first),
        task=task,
        backbone=backbone,
        tuning=tuning,
        metric=str(first.main_metric),
        variant=first.score.variant,
        data=content(first)["data"],
        lines=lines,
        difficulty=_difficulty(entries, tables),
        shared=tuple(shared),
    )


def _sides(row: Row) -> dict[str, Runs]:
    """An entry, and what it is read against, as far as that is there."""
    sides = {
        "own": row.results,
        "foreign": row.foreign,
        "none": row.none,
        "same_type": row.same_type,
    }
    return {name: runs for name, runs in sides.items() if runs}


def _replicates(row: Row, drawn: Mapping[tuple[str, ...], Array]) -> dict[str, Array]:
    """The scores of an entry and of what it is read against in every resample."""
    there = {name: drawn.get(_ids(runs)) for name, runs in _sides(row).items()}
    return {name: values for name, values in there.items() if values is not None}


def _net(row: Row, sides: Mapping[str, Array]) -> Array | None:
    """Returns replicates of the net gain of a row; None where it has none."""
    if row.net is None or not {"own", "foreign", "none"} <= sides.keys():
        return None
    return net_replicates(sides["own"], sides["foreign"], sides["none"])


def _is_entry(row: Row) -> bool:
    return row.score is not None and row.first.spec.control == Control.NONE and row.chosen


def _ids(runs: Runs) -> tuple[str, ...]:
    return tuple(result.id for result in runs)


def _order(line: Line) -> tuple[object, ...]:
    last = 1_000_000_000
    value = line.row.score.value if line.row.score else 0.0
    return line.by_net or last, line.by_score or last, -value, line.first.id


def ranks(drawn: Sequence[Array | None]) -> list[int | None]:
    """Returns the rank of each row from its bootstrap replicates, all of the same draws.

    Args:
        drawn: ``[resamples]`` each; None for a row that is not ranked.
    """
    there = [row for row in drawn if row is not None]
    every = np.stack(there, axis=1) if there else np.zeros((1, 0))

    def rank(own: Array) -> int:
        lows = np.quantile(every - own[:, None], 0.025, axis=0)
        return 1 + int((lows > 0).sum())

    return [None if row is None else rank(row) for row in drawn]


def _drawn(several: Sequence[Runs], tables: PredictionCache) -> dict[tuple[str, ...], Array]:
    """Returns bootstrap replicates of the score of runs by their ids.

    Runs over other examples than most are left out: they are not paired with the others. Nothing
    is there for a task that is not installed.
    """
    try:
        alike = _alike(several, tables)
        if not alike:
            return {}
        metric = metric_of(alike[0][0], alike[0][0].main_metric or "")
        ids = tables.shared(alike[0])
        drawn = bootstrap_replicates([(metric, tables.of(runs, metric, ids)) for runs in alike])
    except KbenchError:
        return {}
    return {_ids(runs): values for runs, values in zip(alike, drawn, strict=True)}


def _alike(several: Sequence[Runs], tables: PredictionCache) -> list[Runs]:
    """Returns the largest set of runs that are all over the same examples."""
    sets: list[list[Runs]] = []
    for runs in several:
        own = next((each for each in sets if not tables.unlike(each[0] + runs)), None)
        if own is None:
            sets.append(own := [])
        own.append(runs)
    return max(sets, key=len, default=[])


def _difficulty(entries: Sequence[Row], tables: PredictionCache) -> Difficulty | None:
    try:
        told = [tables.rights(row.first) for row in entries]
        if not told or tables.unlike([row.first for row in entries]):
            return None
    except KbenchError:
        return None
    right = [*zip(*told, strict=True)]
    return Difficulty(len(right), sum(map(all, right)), sum(not any(each) for each in right))
