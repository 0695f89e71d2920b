"""What a result says that its own two files contradict: known without any part of the run.

Every figure that follows from the predictions is made again, and whatever follows from the run's
name is compared with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from kbench.data.files import file_digest
from kbench.errors import KbenchError, PluginError, UsageError, lacking, with_type
from kbench.metrics import is_beside
from kbench.pipeline.revision import ENGINE_REVISION, VERSION
from kbench.results.comparison import metrics_of
from kbench.results.rescoring import Again, rescored, rescored_parts
from kbench.results.tables import MOVED
from kbench.spec import Control, Setting
from kbench.store import Predictions, Provenance, Result, Score, Status
from kbench_leaderboard.submission import FILES, Entry

__all__ = ["checked", "differing", "guarded", "unsound", "untrue"]

_EXACT = 1e-9
"""A share that differs by rounding alone is the same."""
_DIGEST, _ADDRESS = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{32}")
_VERSION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})*)[0-9A-Za-z.+-]{0,40}")
_OF_ENDED = ("metrics", "buckets", "coverage", "dev", "frozen", "main_metric", "locality")
"""Fields that only a run which ended well has."""


def unsound(entry: Entry) -> Iterator[str]:
    """Yields what makes a result none that could be taken over: its scores have no ground.

    Less than :func:`untrue` finds: results of other versions of kbench are sound too.
    """
    result = entry.result
    assert result is not None
    if result.id != entry.folder.name:
        yield f"says it is {result.id}"
    if result.status != Status.OK:
        yield from _without_scores(entry, result)
    elif entry.predictions is None or result.score is None:
        yield "ended well and has no predictions or no score"
    else:
        yield from checked(_signed, entry, entry.predictions)
        yield from checked(_moved, entry, entry.predictions)


def _moved(entry: Entry, result: Result, predictions: Predictions) -> Iterator[str]:
    """Metrics that predictions do not give, as far as their task is here and has them still."""
    made: dict[str, Score] = {}
    with suppress(UsageError, PluginError):
        made = rescored(result, predictions)
    for name, stated in result.metrics.items():
        if Again(name, stated, made.get(name)).moved in ("n", "value"):
            yield f"metric {name} is stated as {stated.value:.6f}, its predictions give another"


def untrue(entry: Entry) -> Iterator[str]:
    """Yields what the files of a result contradict, in a line each."""
    result = entry.result
    assert result is not None
    if result.id != entry.folder.name:
        yield f"says it is {result.id}"
    if result.provenance is not None:
        yield from _provenance(result, result.provenance)
    if result.status != Status.OK:
        yield from _without_scores(entry, result)
        return
    yield from _complete(result, entry.predictions)
    if entry.predictions is not None and result.provenance is not None:
        for check in (_predictions, _counts, _metrics, _buckets):
            yield from checked(check, entry, entry.predictions)


def checked(
    check: Callable[[Entry, Result, Predictions], Iterator[str]],
    entry: Entry,
    predictions: Predictions,
) -> Iterator[str]:
    """Runs a check of predictions; see :func:`guarded`."""
    assert entry.result is not None
    yield from guarded(check(entry, entry.result, predictions))


def guarded(findings: Iterable[str]) -> Iterator[str]:
    """Yields findings about what a stranger wrote: whatever is raised is one more, not a crash.

    Raises:
        ModuleNotFoundError: an extra of kbench is not installed, which no stranger can help.
    """
    try:
        yield from findings
    except KbenchError as error:
        yield str(error)
    except Exception as error:
        if lacking(error):
            raise
        yield f"cannot be checked ({with_type(error)})"


def _without_scores(entry: Entry, result: Result) -> Iterator[str]:
    if not result.reason:
        yield f"is {result.status} without a reason"
    for name in _OF_ENDED:
        if getattr(result, name):
            yield f"is {result.status} and has {name}"
    if entry.predictions is not None or result.predictions is not None:
        yield f"is {result.status} and has predictions"


def _complete(result: Result, predictions: Predictions | None) -> Iterator[str]:
    if result.provenance is None:
        yield "has no provenance"
    if predictions is None or result.predictions != FILES[1]:
        yield f"has no predictions in {FILES[1]}"
    if not result.metrics or result.score is None:
        yield "has no score of its main metric"
    if result.reason:
        yield "ended well and has a reason why it did not"
    if result.frozen is None or not result.frozen.before:
        yield "does not say that the frozen weights stayed the same"
    elif result.frozen.before != result.frozen.after:
        yield "changed the frozen weights"
    elif not _DIGEST.fullmatch(result.frozen.before):
        yield "the frozen weights have no SHA-256"
    yield from _informed(result)


def _informed(result: Result) -> Iterator[str]:
    if result.spec.knowledge is not None and result.coverage is None:
        yield "has knowledge and does not say how much of it arrived"
    if result.spec.knowledge is None and (result.coverage or result.buckets or result.locality):
        yield "has no knowledge and says how much of it arrived"
    if result.dev is not None and result.spec.control != Control.NONE:
        yield "is of a control and has a score on dev, by which options are chosen"
    elif (told := _dev(result)) and result.dev != told[0]:
        yield f"its score on dev is stated as {result.dev}, its training found {told[0]}"


def _dev(result: Result) -> tuple[float, ...]:
    """The score on dev that a run says it was trained or chosen by, if it says one."""
    spec, told = result.spec, result.training
    if spec.control != Control.NONE:
        return ()
    choice = told.get("choice")
    if isinstance(choice, dict) and isinstance(found := choice.get("dev"), list) and found:
        return (max(found),)
    plugged = spec.knowledge is not None and spec.setting != Setting.FINE_TUNING
    last = told.get("plug" if plugged else "tuning")
    history = last.get("history") if isinstance(last, dict) else None
    if not isinstance(history, dict):
        return ()
    found, at = history.get("dev"), history.get("best")
    if not isinstance(found, list) or not found:
        return ()
    return (found[at] if isinstance(at, int) and 0 <= at < len(found) else math.nan,)


def _provenance(result: Result, made: Provenance) -> Iterator[str]:
    """What of its origin cannot be."""
    if made.command != result.spec.command():
        yield "its command is not the one that repeats it"
    if made.revision != ENGINE_REVISION:
        yield (
            f"was made by revision {made.revision} of the engine, and this is {ENGINE_REVISION}: "
            "run it again"
        )
    version = _VERSION.fullmatch(made.kbench)
    if not version or _release(version[1]) > _release(VERSION):
        yield f"was made by kbench {made.kbench[:40]}, and this is {VERSION}"
    numbers = {**result.cost, "seconds": made.seconds, **result.counts}
    below = [name for name, value in numbers.items() if not 0 <= value < math.inf]
    if below:
        yield f"{below[0]} is {numbers[below[0]]}, which is below 0 or no number"
    yield from _moved_by_plug(result)
    yield from _started(made)
    yield from _digests(result, made)


def _moved_by_plug(result: Result) -> Iterator[str]:
    """What cannot be of how far a plug moves what the model says."""
    for name, value in result.locality.items():
        if name not in MOVED:
            yield f"its locality has {name[:40]}, which kbench does not measure"
        elif not 0 <= value <= MOVED[name]:
            yield f"its locality states {name} as {value}"


def _release(version: str) -> list[int]:
    found = _VERSION.fullmatch(version)
    return [int(number) for number in found[1].split(".")] if found else []


def _started(made: Provenance) -> Iterator[str]:
    try:
        began = datetime.fromisoformat(made.started)
    except ValueError:
        yield "does not say when it started"
        return
    began = began if began.tzinfo else began.replace(tzinfo=UTC)
    if began > datetime.now(UTC) + timedelta(days=1):
        yield f"started at {made.started}, which is to come"


def _digests(result: Result, made: Provenance) -> Iterator[str]:
    for known, form, several in (
        ("digest", _DIGEST, made.digests),
        ("address", _ADDRESS, made.addresses),
    ):
        for name, value in several.items():
            if value is not None and not form.fullmatch(value):
                yield f"its {known} of {name} is none"
    if result.status != Status.OK:
        return
    for name in ("data", "backbone"):
        if made.digests.get(name) is None:
            yield f"does not state the digest of its {name}"
    informed = result.spec.knowledge is not None
    beside = {
        "digest of its knowledge": made.digests.get("knowledge"),
        "address of its plug": made.addresses.get("plug"),
    }
    for what, stated in beside.items():
        if (stated is not None) != informed:
            said = "does not state the" if informed else "has no knowledge and states the"
            yield f"{said} {what}"
    if made.addresses.get("model") is None:
        yield "does not state the address of its model"


def _signed(entry: Entry, result: Result, predictions: Predictions) -> Iterator[str]:
    stated = result.provenance and result.provenance.digests.get("predictions")
    if not stated:
        yield "does not state the digest of its predictions"
    elif stated != file_digest(entry.folder / FILES[1]):
        yield "predictions are not those whose digest is stated"


def _predictions(entry: Entry, result: Result, predictions: Predictions) -> Iterator[str]:
    yield from _signed(entry, result, predictions)
    if not predictions.ids:
        yield "predictions are of no example"
    if len({*predictions.ids}) != len(predictions.ids) or None in predictions.ids:
        yield "predictions are not one for each example"
    if not all(s is not None and math.isfinite(s) and 0 <= s <= 1 for s in predictions.scores):
        yield "predictions have scores that are no probabilities"
    if predictions.injected and result.spec.control != Control.VALUE_SWAPPED:
        yield "predictions have false values, and the run swapped none"
    yield from _linked(result, predictions)
    if predictions.likelihoods is not None:
        again = predictions.by(predictions.likelihoods.scorer).predictions
        if [*map(_plain, again)] != [*map(_plain, predictions.predictions)]:
            yield "predictions are not those that the likelihoods of the candidates give"


def _plain(label: object) -> object:
    return label if isinstance(label, str) else tuple(label)  # type: ignore[arg-type]


def _linked(result: Result, predictions: Predictions) -> Iterator[str]:
    known = [*zip(predictions.linked, predictions.degrees, strict=True)]
    if any(d is None or d < -1 or bool(linked) != (d >= 0) for linked, d in known):
        yield "predictions are linked and have no number of facts, or the other way round"
    if result.spec.knowledge is None and any(predictions.linked):
        yield "predictions are linked, and the run has no knowledge"
    if result.coverage is None or not predictions.ids:
        return
    share = sum(map(bool, predictions.linked)) / len(predictions.ids)
    if abs(share - result.coverage.examples) > _EXACT:
        yield f"coverage is stated as {result.coverage.examples:.4f} and is {share:.4f}"
    if result.spec.linker not in (None, result.coverage.linker):
        yield f"was linked by {result.coverage.linker}, and its spec says {result.spec.linker}"


def _counts(entry: Entry, result: Result, predictions: Predictions) -> Iterator[str]:
    counts = result.counts
    for split in ("train", "dev", "test"):
        kept, total = counts.get(f"{split}_kept"), counts.get(f"{split}_total")
        if None in (kept, total) and (split == "test" or kept is not total):
            yield f"does not say how many {split} examples there are, and how many were kept"
        elif kept is not None and total is not None and kept > total:
            yield f"kept {kept} of {total} {split} examples"
    kept = counts.get("test_kept", len(predictions.ids))
    if kept != len(predictions.ids):
        yield f"predictions are {len(predictions.ids)}, of {kept} examples that were kept"
    again = predictions.spread
    if predictions.in_context:
        again["test_answer_in_context"] = sum(map(bool, predictions.in_context))
    for name, number in again.items():
        if counts.get(name, number) != number:
            yield f"{name} is stated as {counts[name]}, its predictions give {number}"


def _metrics(entry: Entry, result: Result, predictions: Predictions) -> Iterator[str]:
    made = rescored(result, predictions)
    own = [name for name, score in result.metrics.items() if not is_beside(score.variant)]
    if own[:1] != [result.main_metric]:
        yield f"its main metric is {result.main_metric}, and that of the task is {own[:1]}"
    for name, stated in result.metrics.items():
        score = Again(name, stated, made.get(name))
        if score.made is None:
            yield f"metric {name} ({stated.variant}) is none of task {result.spec.task}"
        elif score.moved in ("n", "value"):
            yield (
                f"metric {name} is stated as {stated.value:.6f} of {stated.n}, "
                f"its predictions give {score.made.value:.6f} of {score.made.n}"
            )
        elif score.moved or stated.low > stated.high:
            yield (
                f"the interval of {name} is stated as [{stated.low:.4f}, {stated.high:.4f}], "
                f"its predictions give [{score.made.low:.4f}, {score.made.high:.4f}]"
            )


def _buckets(entry: Entry, result: Result, predictions: Predictions) -> Iterator[str]:
    metric = next((m for m in metrics_of(result) if m.name == result.main_metric), None)
    if metric is None or result.coverage is None:
        return  # told before
    made = rescored_parts(result, predictions)
    told = result.buckets.get("popularity", {})
    if "popularity" not in made:
        if told and len(metric.measure(predictions)) == len(predictions):
            yield "its scores by popularity part the examples as no numbers of facts do"
        made["popularity"] = dict(told)
    yield from differing(result.buckets, made)


def differing(
    stated: Mapping[str, Mapping[str, Score]], made: Mapping[str, Mapping[str, Score]]
) -> Iterator[str]:
    """Yields where the scores of parts of the examples are not those made again."""
    for kind in {**made, **stated}:
        ours, theirs = stated.get(kind, {}), made.get(kind, {})
        for name in {**theirs, **ours}:
            own, score = ours.get(name), theirs.get(name)
            if own is None or score is None:
                there = "is missing" if own is None else "is there, and no example is in it"
                yield f"its score by {kind}, {name}, {there}"
            elif own.variant != score.variant:
                yield f"its score by {kind}, {name}, is of {own.variant[:60]}"
            elif (again := Again(f"{kind} {name}", own, score)).moved or own.low > own.high:
                yield f"its score by {kind}, {name}: {again.differs or 'low is above high'}"
