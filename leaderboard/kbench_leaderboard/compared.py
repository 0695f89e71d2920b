"""Every two rows of a group set against each other, and what they predict, for a page to choose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from kbench.data import Example, Label, outermost
from kbench.errors import KbenchError
from kbench.results.comparison import Comparison, PredictionCache, compare, rights
from kbench.results.identity import differences
from kbench.spec import Control
from kbench_leaderboard.board import Group, Line, Shelf

__all__ = ["BLANK", "Compared", "compared", "shown"]

BLANK = "____"
"""What stands where a question asks for something."""

_EXAMPLES = 2000
_TEXT = 600
"""Examples and characters of each that a page holds, to bound its size."""


@dataclass(frozen=True)
class Compared:
    """The comparisons of a group.

    Attributes:
        comparisons: of every two entries, and of each with its own controls; corrected together.
        problem: why there is none, or empty.
        data: names, comparisons and predictions as a JSON value.
    """

    comparisons: Sequence[Comparison]
    problem: str
    data: Mapping[str, Any]


def compared(group: Group, shelf: Shelf, examples: Mapping[str, Example]) -> Compared:
    """Compares the rows of a group, while its predictions are on the shelf."""
    pairs, problem, comparisons = list(_pairs(group, PredictionCache(shelf))), "", []
    try:
        comparisons = compare([(one.row.results, two.row.results) for one, two in pairs], shelf)
    except KbenchError as error:
        problem = str(error)
    if not pairs:
        problem = "no two rows share their test examples and a seed"
    data = {
        "metric": group.metric,
        "runs": [_run(line) for line in group.lines],
        "pairs": [_told(each) for each in comparisons],
        **_predicted(group, shelf, examples),
    }
    return Compared(comparisons, problem, data)


def _pairs(group: Group, tables: PredictionCache) -> Iterator[tuple[Line, Line]]:
    entries = [line for line in group.lines if line.ranked]
    controls: dict[tuple[str, ...], list[Line]] = defaultdict(list)
    for line in group.lines:
        if line.first.spec.control != Control.NONE:
            controls[line.cell].append(line)
    own = [(one, two) for one in entries for two in controls[one.cell] if _is_control(one, two)]
    for one, two in [*combinations(entries, 2), *own]:
        if {*one.row.seeds} & {*two.row.seeds} and _alike(one, two, tables):
            yield one, two


def _is_control(one: Line, two: Line) -> bool:
    return differences(one.first, two.first) == ["control"]


def _alike(one: Line, two: Line, tables: PredictionCache) -> bool:
    try:
        return not tables.unlike(one.row.results + two.row.results)
    except KbenchError:
        return False


def _run(line: Line) -> dict[str, Any]:
    ids = {str(result.spec.seed): result.id for result in line.row.results}
    return {"key": line.first.id, "name": line.name, "seeds": ids}


def _told(each: Comparison) -> dict[str, Any]:
    value = each.as_json()
    kept = ("difference", "by_seed", "test", "p", "p_holm", "detectable", "warnings")
    return {"a": each.ours[0].id, "b": each.theirs[0].id, **{key: value[key] for key in kept}}


def _predicted(
    group: Group, shelf: Shelf, examples: Mapping[str, Example]
) -> dict[str, list[Any] | dict[str, Any] | int]:
    """What each run predicts on the examples of the first: numbers into a list of labels.

    Whether it is right is said beside it: a question has several acceptable answers.
    """
    first = next((told for r in group.results if (told := shelf.predictions(r))), None)
    if first is None:
        return {"examples": [], "labels": [], "predictions": {}, "right": {}, "of": 0}
    ids, labels = first.ids[:_EXAMPLES], dict[str, int]()

    def code(label: Label) -> int:
        return labels.setdefault(_name(label), len(labels))

    shown = [
        {"id": name, "gold": code(gold), **_text(examples.get(name))}
        for name, gold in zip(ids, first.labels, strict=False)
    ]
    predictions, right = {}, {}
    for result in group.results:
        told = shelf.predictions(result)
        if told is not None and told.ids == first.ids and told.labels == first.labels:
            guesses = told.predictions[:_EXAMPLES]
            predictions[result.id] = [code(label) for label in guesses]
            own = rights(result, told)[:_EXAMPLES]
            right[result.id] = "".join(str(int(one)) for one in own)
    return {
        "examples": shown,
        "labels": list(labels),
        "predictions": predictions,
        "right": right,
        "of": len(first.ids),
    }


def _name(label: Label) -> str:
    return label if isinstance(label, str) else ", ".join(sorted(map(str, label)))


def _text(example: Example | None) -> dict[str, Any]:
    if example is None:
        return {}
    text, spans = shown(example)
    cut = text if len(text) <= _TEXT else text[:_TEXT] + "…"
    return {"text": cut, "spans": [(start, end) for start, end in spans if end <= _TEXT]}


def shown(example: Example) -> tuple[str, list[tuple[int, int]]]:
    """Returns a text as pages show it, a question with its blank, and where its mentions are."""
    text, blank = example.text, example.blank
    spans = [(mention.start, mention.end) for mention in outermost(example.mentions)]
    if blank is None:
        return text, spans
    # A mention is before the blank or behind it, or holds it.
    moved = [
        (start + len(BLANK) * (start >= blank), end + len(BLANK) * (end > blank))
        for start, end in spans
    ]
    return text[:blank] + BLANK + text[blank:], moved
