"""What came of a run, as a result: scores, or why there are none; and where it comes from."""

from __future__ import annotations

import os
import sysconfig
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import kbench
from kbench import __version__
from kbench.errors import KbenchError, Unsupported, one_line, with_type
from kbench.knowledge.exchange import Exchanged
from kbench.knowledge.leakage import leakage
from kbench.knowledge.sharing import sharing
from kbench.metrics import beside
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.find import offered, revisions
from kbench.parts.run_parts import Parts
from kbench.pipeline import provenance
from kbench.pipeline.buckets import Popularity, by_context, by_entity, degrees, estimate
from kbench.pipeline.costs import knowledge_cost
from kbench.pipeline.evaluation import Evaluation
from kbench.pipeline.preparation import Prepared
from kbench.pipeline.revision import ENGINE_REVISION
from kbench.spec import Control, RunSpec
from kbench.store import Coverage, Frozen, Predictions, Provenance, Result, Results, Score, Status

__all__ = ["Clock", "blame", "ended", "origin", "result_of", "save", "trace"]

_LIBRARIES = (
    *("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pandas", "pyarrow"),
    *("pykeen", "peft", "datasets", "pydantic"),
)
_OTHERS = (
    str(Path(kbench.__file__).parent) + os.sep,  # kbench_mine beside it is somebody's plugin
    *(f"{sysconfig.get_path('stdlib')}/{name}.py" for name in ("contextlib", "functools")),
    "<frozen",
)
"""Whose frames say little of what a part did wrong: the engine's, and its libraries'."""
_LONGEST_TRACE = 100_000
_LONGEST = 2000
"""Characters of a reason: a plugin may put a whole file into its error."""


@dataclass(frozen=True)
class Clock:
    """When something began; the seconds since are right even if the clock is set meanwhile."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    ticks: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since then."""
        return time.perf_counter() - self.ticks


def ended(key: str, spec: RunSpec, status: Status, reason: str) -> Result:
    """Returns the result of a run that gave no scores."""
    text = one_line(reason)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text):,} characters)"
    return Result(id=key, status=status, reason=text, spec=spec)


def blame(error: BaseException) -> str:
    """Returns what a part raised and where; errors of kbench speak for themselves.

    What raises is often deep in a library, and what was wrong is in the part that called it: the
    last place that is neither in a library nor in the engine is named first.
    """
    if isinstance(error, KbenchError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _of_others(frame.filename)]
    places = dict.fromkeys(map(_place, [*own[-1:], frames[-1]]))
    return f"{with_type(error)} ({', raised in '.join(places)})"


def _of_others(path: str) -> bool:
    return path.startswith(_OTHERS) or any(f"/site-packages/{name}/" in path for name in _LIBRARIES)


def _place(frame: traceback.FrameSummary) -> str:
    return f"{Path(frame.filename).name}, line {frame.lineno}, {frame.name}"


def trace(error: BaseException) -> str:
    """Returns the trace of what was raised: its end, where a plugin says more than anyone reads."""
    return "".join(traceback.format_exception(error))[-_LONGEST_TRACE:]


def save(results: Results, result: Result, predictions: Predictions | None = None) -> Result:
    """Stores a result and returns what is stored; a failed one where it cannot be.

    What was refused is no result of an experiment: it is returned, and not stored.
    """
    if result.status == Status.REFUSED:
        return result
    try:
        return results.save(result, predictions)
    except Exception as error:  # a plugin's words that no file can hold, a full disk
        reason = f"the result cannot be stored: {blame(error)}"
    failed = ended(result.id, result.spec, Status.FAILED, reason)
    try:
        return results.save(failed.model_copy(update={"provenance": result.provenance}))
    except Exception:  # what cannot be written at all is told, if not stored
        return failed


def origin(
    spec: RunSpec,
    clock: Clock,
    hardware: Mapping[str, str | int],
    digests: dict[str, str | None],
    addresses: dict[str, str | None],
) -> Provenance:
    """Returns where a result comes from.

    Args:
        spec: the run.
        clock: when it began.
        hardware: what is to be said beside the machine: device, threads.
        digests: of data, backbone and knowledge.
        addresses: of the downstream model and the plug.
    """
    entry = registry.find(Kind.METHODS, spec.method)
    return Provenance(
        kbench=__version__,
        revision=ENGINE_REVISION,
        versions=provenance.versions(),
        git=provenance.git_state("kbench"),
        plugin=provenance.plugin(entry.target, entry.distribution),
        hardware={**provenance.hardware(), **hardware},
        digests=digests,
        addresses=addresses,
        parts=offered(spec),
        revisions=revisions(spec.task, spec.tuning, spec.method),
        command=spec.command(),
        started=clock.started.isoformat(timespec="seconds"),
        seconds=clock.seconds,
    )


def result_of(key: str, parts: Parts, evaluation: Evaluation) -> tuple[Result, Predictions]:
    """Returns the result of a run that came to its end, and its predictions.

    Raises:
        KbenchError: a metric gave no fraction.
    """
    prepared, task = evaluation.prepared, parts.task
    links, known = prepared.links, parts.base_knowledge
    said, false = evaluation.predicted.labels, evaluation.false
    named = prepared.gold.named(said)
    predictions = Predictions(
        ids=[example.id for example in prepared.examples],
        labels=prepared.gold.labels,
        predictions=false.named(said, named) if false else named,
        scores=evaluation.predicted.scores,
        linked=[max(rows, default=-1) >= 0 for rows in links.rows],
        degrees=degrees(prepared.examples, links, known),
        strata=prepared.strata,
        relations=prepared.relations if any(m.by_relation for m in task.metrics) else (),
        injected=false.labels if false else (),
        in_context=prepared.answered or (),
        likelihoods=evaluation.predicted.likelihoods,
    )
    metrics = {
        m.name: estimate(m, m.measure(predictions))
        for m in (*task.metrics, *beside(task.metrics, predictions))
    }
    coverage, parted, leaks = None, dict[str, dict[str, Score]](), dict[str, int]()
    if known is not None:
        coverage = Coverage(
            examples=links.examples,
            mentions=links.mentions,
            linker=links.linker,
            threshold=task.link_threshold,
            ambiguous=links.ambiguous,
        )
        parted = by_entity(task.main_metric, predictions, Popularity.of(known))
        parted |= by_context(task.main_metric, predictions)
        leaks = leakage(prepared.examples, known, links.linker) | _swapped(parts, prepared)
    result = Result(
        id=key,
        status=Status.OK,
        spec=parts.spec,
        main_metric=task.main_metric.name,
        metrics=metrics,
        dev=evaluation.dev,
        coverage=coverage,
        buckets=parted,
        locality=dict(evaluation.locality),
        counts={**evaluation.counts, **predictions.spread, **leaks, **_injected(evaluation)},
        cost={**evaluation.cost, **knowledge_cost(known)},
        training=dict(evaluation.training),
        frozen=Frozen(before=evaluation.before, after=evaluation.after),
        predictions="predictions.parquet",
    )
    return result, predictions


def _swapped(parts: Parts, prepared: Prepared) -> dict[str, int]:
    """Counts of how many test examples another entity's knowledge may tell what is asked.

    Of a run with the true knowledge: if it were shuffled, which says what anyone's would tell.
    """
    base, seen, prefix = parts.base_knowledge, parts.knowledge, "test_swapped"
    if base is not None and parts.spec.control == Control.NONE and parts.method.reads_knowledge:
        seen, prefix = parts.control_of(base, Control.SHUFFLED), "test_if_shuffled"
    if base is None or not isinstance(seen, Exchanged):
        return {}
    covers = partial(parts.method.covers, base)
    try:
        found = sharing(prepared.examples, seen, parts.linker, covers, parts.gold_of(base))
    except Unsupported:  # nobody is there to be swapped with
        return {}
    return {f"{prefix}{suffix}": number for suffix, number in found.items()}


def _injected(evaluation: Evaluation) -> dict[str, int]:
    """Counts test examples with a false value, and those of them whose head can say it."""
    false = evaluation.false
    if false is None:
        return {}
    return {"test_false_known": false.known, "test_false_sayable": sum(map(bool, false.labels))}
