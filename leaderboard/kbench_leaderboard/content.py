"""All that the pages of a site show, before it is text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from kbench.data import Example, Label
from kbench.results.comparison import judge
from kbench.results.example_diff import Injected
from kbench.results.identity import Names
from kbench.results.published import Figure
from kbench.store import Predictions, Result
from kbench_leaderboard.board import Group, Line, family
from kbench_leaderboard.charts import Chart
from kbench_leaderboard.compared import shown
from kbench_leaderboard.sources import Sources

__all__ = ["Built", "Content", "Family", "Sample", "Shown", "samples"]

_SHOWN = 20


@dataclass(frozen=True)
class Sample:
    """One prediction, as a run's page shows it.

    Attributes:
        id: of the example.
        label: the gold one.
        prediction: of the run.
        right: whether they are the same.
        score: the probability of the prediction.
        linked: whether knowledge was brought in.
        degree: facts of the entity; -1 if it is not known.
        text: pieces, and whether each is a mention, a question with its blank; empty where the data
            are not at hand.
        knowledge: what was brought in, likewise.
    """

    id: str
    label: str
    prediction: str
    right: bool
    score: float
    linked: bool
    degree: int
    text: list[tuple[str, bool]]
    knowledge: list[Injected]


def samples(result: Result, told: Predictions | None, sources: Sources) -> list[Sample]:
    """Returns the first predictions of a run, with text and knowledge where they are at hand."""
    if told is None:
        return []
    at_hand = sources.examples(result)
    examples = [at_hand[name] for name in told.ids[:_SHOWN] if name in at_hand]
    first = slice(_SHOWN)
    right = [*map(judge(result), told.labels[first], told.predictions[first])]
    brought = dict(zip((e.id for e in examples), sources.knowledge(result, examples), strict=True))
    return [
        Sample(
            str(name),
            _text(told.labels[at]),
            _text(told.predictions[at]),
            right[at],
            told.scores[at],
            bool(told.linked[at]),
            told.degrees[at],
            _pieces(at_hand[name]) if name in at_hand else [],
            brought.get(name, []),
        )
        for at, name in enumerate(told.ids[:_SHOWN])
    ]


def _pieces(example: Example) -> list[tuple[str, bool]]:
    text, spans = shown(example)
    pieces, position = [], 0
    for start, end in spans:
        pieces.append((text[position:start], False))
        pieces.append((text[start:end], True))
        position = end
    return [*pieces, (text[position:], False)]


def _text(label: Label) -> str:
    return label if isinstance(label, str) else ", ".join(map(str, label))


@dataclass
class Built:
    """What became of the results.

    Attributes:
        runs: that have a page.
        failed: runs among them that failed or were skipped.
        limited: left out, for they were run with ``--limit``.
        twice: left out, for the same run is there already.
        damaged: where and why a result could not be read.
        asked: runs of the grid that they are of, if it is known.
        lacking: of these, that are not there.
    """

    runs: int = 0
    failed: int = 0
    limited: int = 0
    twice: int = 0
    damaged: list[str] = field(default_factory=list)
    asked: int = 0
    lacking: int = 0


@dataclass(frozen=True)
class Shown:
    """A group with its chart, if it has one."""

    group: Group
    chart: Chart | None


@dataclass(frozen=True)
class Content:
    """All that the pages show."""

    built: Built
    shown: list[Shown]
    failed: list[Result]
    published: list[Figure]
    names: Names

    @property
    def lines(self) -> Iterator[tuple[Group, Line]]:
        """Every line with its group."""
        return ((each.group, line) for each in self.shown for line in each.group.lines)

    def families(self) -> Iterator[Family]:
        """Yields the families that have a result, by name."""
        by_family: dict[str, list[Shown]] = defaultdict(list)
        failed: dict[str, list[Result]] = defaultdict(list)
        for each in self.shown:
            by_family[each.group.family].append(each)
        for result in self.failed:
            failed[family(result)].append(result)
        for name in sorted({*by_family, *failed}):
            lines = [line for each in by_family[name] for line in each.group.lines]
            tasks = {line.first.spec.task for line in lines}
            told = [figure for figure in self.published if figure.task in tasks]
            yield Family(name, by_family[name], failed[name], told)


@dataclass(frozen=True)
class Family:
    """A task family: its groups, the runs that have no score, and what is published."""

    name: str
    shown: list[Shown]
    failed: list[Result]
    published: list[Figure]

    @property
    def first_of_tasks(self) -> list[Shown]:
        """The first group of every task: a page with the charts of all would be slow to open."""
        first = {each.group.task: each for each in reversed(self.shown)}
        return [each for each in self.shown if first[each.group.task] is each]

    @property
    def lines(self) -> list[tuple[Group, Line]]:
        """Every line with its group."""
        return [(each.group, line) for each in self.shown for line in each.group.lines]
