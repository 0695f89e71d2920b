"""Why a result is no ranked row of the board, in a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kbench.pipeline.revision import ENGINE_REVISION
from kbench.results.choice import choices
from kbench.results.identity import differences
from kbench.spec import Control
from kbench.store import Result, Status
from kbench_leaderboard.merge import told_apart
from kbench_leaderboard.submission import Entry, predictions_of

__all__ = ["absent", "unreadable"]


def unreadable(entry: Entry) -> str:
    """Why a result can be no part of a site at all; empty if it can."""
    result = entry.result
    if entry.problem or result is None:
        return entry.problem
    if result.id != entry.folder.name:
        return f"says it is {result.id}"
    if result.status == Status.OK and result.score is None:
        return "has no score of its main metric"
    if result.status == Status.OK and not predictions_of(entry.folder).is_file():
        return "has no predictions, without which it is compared with nothing"
    return ""


def absent(entries: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """Yields each result that is no row with a rank by net gain, and why.

    Args:
        entries: of all results of a board: what is beside a result decides.

    Returns:
        its folder, and the reason in a line.
    """
    shown: dict[str, Result] = {}
    for entry in entries:
        result = entry.result
        if problem := unreadable(entry):
            yield entry.where, f"left out: {problem}"
        elif result is None:
            continue
        elif result.spec.limit is not None:
            yield entry.where, f"left out: it was run with --limit {result.spec.limit}"
        elif (other := shown.get(result.id)) is not None:
            said = ", and says otherwise there" if told_apart(other, result) else ""
            yield entry.where, f"left out: it is there twice{said}"
        elif result.status != Status.OK:
            yield entry.where, f"listed as {result.status}: {result.reason}"
        else:
            shown[result.id] = result
    yield from _unranked([*shown.values()])


def _unranked(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    told = choices(results)
    beside: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        beside.setdefault((result.spec.task, result.spec.seed), []).append(result)
    for result in results:
        choice, made = told.get(result.id), result.provenance
        near = beside[result.spec.task, result.spec.seed]
        if result.spec.control != Control.NONE:
            yield result.id, "shown under its control, and not ranked"
        elif choice is not None and not choice.chosen:
            yield result.id, f"shown without scores: {choice.text}"
        elif result.spec.knowledge is not None and (lacking := _lacking(result, near)):
            yield result.id, f"ranked by score alone: {lacking}"
        elif made is not None and made.revision != ENGINE_REVISION:
            yield (
                result.id,
                f"ranked apart, among rows of engine revision {made.revision}; here it is "
                f"{ENGINE_REVISION}",
            )


def _lacking(result: Result, near: Sequence[Result]) -> str:
    """What a net gain is made of and is not there."""
    if not any(differences(result, one) == ["control"] and _is_foreign(one) for one in near):
        return f"its foreign control of seed {result.spec.seed} is not there"
    plain = (one for one in near if one.spec.knowledge is None)
    if not any({*differences(result, one)} <= {"method"} for one in plain):
        return f"the model without knowledge of seed {result.spec.seed} is not there"
    return ""


def _is_foreign(result: Result) -> bool:
    return result.spec.control == Control.FOREIGN
