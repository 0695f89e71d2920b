"""Is a submission what it says? What can be known without running it again is checked here.

That the predictions are those of the model cannot be: whoever doubts it repeats the run by the
command in its provenance. All else is made again or looked up: what the two files of a result say
of each other (:mod:`kbench_leaderboard.untrue`), what is installed here says of it
(:mod:`kbench_leaderboard.installed`), and what the results of a submission say of each other
(:mod:`kbench_leaderboard.together`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbench.cli.messages import steers
from kbench.errors import KbenchError, lacking, with_type
from kbench.parts.find import task_kind
from kbench.parts.registry import Kind, find
from kbench.parts.source_text import constant
from kbench.store import Predictions, Result, Status
from kbench_leaderboard.in_time import InTime
from kbench_leaderboard.submission import Entry
from kbench_leaderboard.together import Together
from kbench_leaderboard.untrue import checked, guarded, untrue

if TYPE_CHECKING:
    from kbench_leaderboard.installed import Installed

__all__ = ["Problem", "verify"]

_OWN = "custom"
_MARKUP = re.compile(r"<\s*[A-Za-z/!?]|javascript:", re.IGNORECASE)
_NAME = "a name in "
_LONGEST = 500
"""Characters of a finding, which may quote what a stranger wrote."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a result of a submission, in a line."""

    where: str
    text: str


def verify(entries: Iterable[Entry], data: Path | None = None) -> list[Problem]:
    """Returns everything that is wrong with a submission; of an empty one, that it is empty.

    Args:
        entries: its results.
        data: where data of tasks are that do not bring theirs, as for ``kbench run --data``.
    """
    from kbench_leaderboard.installed import Installed  # loads what runs models

    problems: list[Problem] = []
    together, installed, several = Together(), Installed(data), False
    for entry in entries:
        found = [*guarded(_of_one(entry, installed))]
        if entry.result is not None:
            several = True
            found += guarded(together.add(entry))
        problems += [Problem(entry.where, _cut(text)) for text in found]
    if not (problems or several):
        return [Problem("", "holds no result")]
    if isinstance(entries, InTime) and entries.ended:
        return problems  # what was not read is not missing
    return [*problems, *_beside(together, installed)]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"


def _beside(together: Together, installed: Installed) -> Iterator[Problem]:
    try:
        for found in together.findings(installed.trains):
            yield Problem(found[0], _cut(found[1]))
    except Exception as error:  # as of one result that nobody could have made
        if lacking(error):
            raise
        yield Problem("", f"cannot be checked as a whole ({with_type(error)})")


def _of_one(entry: Entry, installed: Installed) -> Iterator[str]:
    result = entry.result
    if result is None:
        yield entry.problem
        return
    for where, text in _texts(result.as_json()):
        broken = where.startswith(_NAME) and "\n" in text
        if broken or _MARKUP.search(text) or steers(text):
            yield f"{where} holds markup or control characters: {text[:40]!a}"
    if result.spec.limit is not None:
        yield f"was run with --limit {result.spec.limit}, so it compares with nothing"
    yield from untrue(entry)
    whole = entry.predictions is not None and result.provenance is not None
    if result.status == Status.OK and entry.predictions is not None and whole:
        yield from checked(_missing, entry, entry.predictions)
        yield from checked(_address, entry, entry.predictions)
    yield from installed.findings(entry)


def _missing(entry: Entry, result: Result, predictions: Predictions) -> Iterator[str]:
    kind = task_kind(result.spec.task)
    metrics = kind.metrics
    with suppress(KbenchError):  # one that is made of its data, which are elsewhere
        metrics = kind(None, result.spec.options_of("task")).metrics  # options may say which
    for metric in metrics:
        if metric.name not in result.metrics and result.spec.task != _OWN:
            yield f"metric {metric.name} is missing"


def _address(entry: Entry, result: Result, predictions: Predictions) -> Iterator[str]:
    """The id again, from what the file says that the run was made of."""
    spec = result.spec
    if spec.task == _OWN:
        yield "is of a data set of one's own, which nobody else can check"
        return
    method = constant(find(Kind.METHODS, spec.method), "revision")
    if not isinstance(method, str):
        yield f"method {spec.method} does not say its revision in its source"
        return
    from kbench.results.remaking import stated_id  # loads what runs models

    right = stated_id(result, method)
    if right != result.id:
        yield (
            f"its id does not follow from what it says of data, method ({spec.method}, here of "
            f"revision {method}), model and plug: one of them was changed, or is of another version"
        )


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yields every text in a JSON value, keys too, with the place where it is."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield f"{_NAME}{where or 'the result'}", str(key)
            yield from _texts(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, where)
