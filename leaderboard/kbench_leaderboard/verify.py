"""Is a submission what it says? What can be known without running it again is checked here.

That the predictions are those of the model cannot be: whoever doubts it repeats the run by the
command in its provenance. All else is made again or looked up: the schema, the id from what the
run was made of, the digest of the predictions, every metric and its interval, the coverage, that
nothing frozen has changed, and that no control, yardstick or seed is left out.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from kbench.data.files import canonical_digest, file_digest
from kbench.errors import KbenchError, with_type
from kbench.knowledge.linking import revised
from kbench.metrics import is_beside
from kbench.parts.find import task_kind
from kbench.parts.registry import Kind, find
from kbench.parts.source_text import constant
from kbench.results.choice import Choice, choices
from kbench.results.identity import Names, content, differences, options
from kbench.results.rescoring import Again, rescored
from kbench.spec import Control
from kbench.store import Predictions, Result, Status, result_address
from kbench_leaderboard.submission import Entry

__all__ = ["Problem", "verify"]

_EXACT = 1e-9
"""A share that differs by rounding alone is the same."""
_OWN = "custom"
_MARKUP = re.compile(r"<\s*[A-Za-z/!?]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|javascript:", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """What is wrong with a result of a submission, in a line."""

    where: str
    text: str


def verify(entries: Iterable[Entry]) -> list[Problem]:
    """Returns everything that is wrong with a submission; of an empty one, that it is empty."""
    problems: list[Problem] = []
    results: dict[str, Result] = {}
    for entry in entries:
        problems += [Problem(entry.where, text) for text in _of_one(entry)]
        if entry.result is not None:
            results[entry.where] = entry.result
    if not (problems or results):
        return [Problem("", "holds no result")]
    return problems + list(_left_out(results))


def _of_one(entry: Entry) -> Iterator[str]:
    result = entry.result
    if result is None:
        yield entry.problem
        return
    if result.id != entry.folder.name:
        yield f"says it is {result.id}"
    for where, text in _texts(result.as_json()):
        if _MARKUP.search(text):
            yield f"{where} holds markup or control characters: {text[:40]!r}"
    if result.spec.limit is not None:
        yield f"was run with --limit {result.spec.limit}, so it compares with nothing"
    if result.status != Status.OK:
        if not result.reason:
            yield f"is {result.status} without a reason"
        return
    yield from _complete(result, entry.predictions)
    if entry.predictions is not None and result.provenance is not None:
        yield from _checked(_predictions, entry, entry.predictions)
        yield from _checked(_metrics, entry, entry.predictions)
        yield from _checked(_address, entry, entry.predictions)


def _checked(
    check: Callable[[Entry, Result, Predictions], Iterator[str]],
    entry: Entry,
    predictions: Predictions,
) -> Iterator[str]:
    """Runs a check on what a stranger wrote: whatever it raises is a finding, not a crash."""
    assert entry.result is not None
    try:
        yield from check(entry, entry.result, predictions)
    except KbenchError as error:
        yield str(error)
    except Exception as error:
        yield f"cannot be checked ({with_type(error)})"


def _complete(result: Result, predictions: Predictions | None) -> Iterator[str]:
    if result.provenance is None:
        yield "has no provenance"
    if predictions is None:
        yield "has no predictions"
    if not result.metrics or result.score is None:
        yield "has no score of its main metric"
    if result.frozen is None or not result.frozen.before:
        yield "does not say that the frozen weights stayed the same"
    elif result.frozen.before != result.frozen.after:
        yield "changed the frozen weights"
    if result.spec.knowledge is not None and result.coverage is None:
        yield "has knowledge and does not say how much of it arrived"


def _predictions(entry: Entry, result: Result, predictions: Predictions) -> Iterator[str]:
    assert result.provenance is not None
    stated = result.provenance.digests.get("predictions")
    if stated is None:
        yield "does not state the digest of its predictions"
    elif stated != file_digest(entry.folder / "predictions.parquet"):
        yield "predictions are not those whose digest is stated"
    if len({*predictions.ids}) != len(predictions.ids) or None in predictions.ids:
        yield "predictions are not one for each example"
    if not all(s is not None and math.isfinite(s) and 0 <= s <= 1 for s in predictions.scores):
        yield "predictions have scores that are no probabilities"
    kept = result.counts.get("test_kept", len(predictions.ids))
    if kept != len(predictions.ids):
        yield f"predictions are {len(predictions.ids)}, of {kept} examples that were kept"
    if result.coverage is not None and predictions.ids:
        share = sum(map(bool, predictions.linked)) / len(predictions.ids)
        if abs(share - result.coverage.examples) > _EXACT:
            yield f"coverage is stated as {result.coverage.examples:.4f} and is {share:.4f}"


def _metrics(entry: Entry, result: Result, predictions: Predictions) -> Iterator[str]:
    for metric in task_kind(result.spec.task).metrics:
        if metric.name not in result.metrics and result.spec.task != _OWN:
            yield f"metric {metric.name} is missing"
    made = rescored(result, predictions)
    for name, stated in result.metrics.items():
        score = Again(name, stated, made.get(name))
        if score.made is None:
            yield f"metric {name} ({stated.variant}) is none of task {result.spec.task}"
        elif score.moved in ("n", "value"):
            yield (
                f"metric {name} is stated as {stated.value:.6f} of {stated.n}, "
                f"its predictions give {score.made.value:.6f} of {score.made.n}"
            )
        elif score.moved:
            yield (
                f"the interval of {name} is stated as [{stated.low:.4f}, {stated.high:.4f}], "
                f"its predictions give [{score.made.low:.4f}, {score.made.high:.4f}]"
            )


def _address(entry: Entry, result: Result, predictions: Predictions) -> Iterator[str]:
    """The id again, from what the file says that the run was made of."""
    spec, made = result.spec, result.provenance
    assert made is not None
    if spec.task == _OWN:
        yield "is of a data set of one's own, which nobody else can check"
        return
    task = task_kind(spec.task)
    method = constant(find(Kind.METHODS, spec.method), "revision")
    if not isinstance(method, str):
        yield f"method {spec.method} does not say its revision in its source"
        return
    linker = result.coverage.linker if result.coverage else spec.linker or task.linking
    right = result_address(
        spec,
        engine=made.revision,
        task=(made.digests.get("data"), task.card.revision),
        # The result's own: a task may have others by its options, and its data, which are not here.
        # What it has beside its task's own is of no address.
        metrics=[s.variant for s in result.metrics.values() if not is_beside(s.variant)],
        method=method,
        linker=revised(linker),
        made={name: made.addresses.get(name) for name in ("model", "plug")},
    )
    if right != result.id:
        yield (
            f"its id does not follow from what it says of data, method ({spec.method}, here of "
            f"revision {method}), model and plug: one of them was changed, or is of another version"
        )


def _left_out(read: Mapping[str, Result]) -> Iterator[Problem]:
    """Names what belongs to a result and is not there, by the folder that the result lies in."""
    results = [*read.values()]
    there, chosen, names = {_cell(r) for r in results}, choices(results), Names(results)
    seeds: dict[str, set[int]] = defaultdict(set)
    digests: dict[str, set[str]] = defaultdict(set)
    for result in results:
        seeds[_cell(result, seed=None)].add(result.spec.seed)
        if result.status == Status.OK and result.provenance is not None:
            digests[_data(result, names)].add(str(result.provenance.digests.get("data")))
    every = {seed for several in seeds.values() for seed in several}
    for where, result in read.items():
        if lacking := sorted(every - seeds[_cell(result, seed=None)]):
            yield Problem(where, f"is there without seed {', '.join(map(str, lacking))}")
        if result.status != Status.OK or result.provenance is None:
            continue
        if len(several := digests[_data(result, names)]) > 1:
            yield Problem(
                where, f"{_data(result, names)} is there with {len(several)} different test data"
            )
        choice = chosen.get(result.id, Choice(1, chosen=True))  # of a seed run twice, the latest
        if not choice.settled:
            yield Problem(
                where, f"is one of {choice.tried} variants, of which none is chosen: {choice.why}"
            )
        yield from (Problem(where, text) for text in _alone(result, results, there, choice))


def _alone(
    result: Result, results: Sequence[Result], there: Set[str], choice: Choice
) -> Iterator[str]:
    """Yields what a result is to be read against and is not there."""
    if result.spec.knowledge is None or result.spec.control != Control.NONE:
        return
    # What dev did not choose is not shown, and needs no control.
    asked = choice.chosen and _reads(result)
    if asked and _cell(result, control="foreign") not in there:
        yield "is there without its foreign control"
    if not any(_yardstick(result, other) for other in results):
        yield "is there without the model without knowledge"


def _reads(result: Result) -> bool:
    try:
        entry = find(Kind.METHODS, result.spec.method)
    except KbenchError:
        return True  # that it is not installed is said elsewhere
    return constant(entry, "reads_knowledge") is not False


def _cell(result: Result, **other: Any) -> str:
    """A run by content, with its seed; two that differ in nothing else are one."""
    fields = {**content(result), "seed": result.spec.seed, **other}
    return canonical_digest([fields, options(result)])


def _data(result: Result, names: Names) -> str:
    own = {path: value for path, value in options(result).items() if path.startswith("task.")}
    return f"task {names.task(result).partition('@')[0]} {own or ''}".strip()


def _yardstick(result: Result, other: Result) -> bool:
    return (
        other.spec.knowledge is None
        and other.status == Status.OK
        and other.spec.seed == result.spec.seed
        and {*differences(result, other)} <= {"method", "data"}
    )


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yields every text in a JSON value, keys too, with the place where it is."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield f"a name in {where or 'the result'}", str(key)
            yield from _texts(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, where)
