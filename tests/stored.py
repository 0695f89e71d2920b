"""Results made by hand, for what reads a folder of results: no model is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from kbench.data import Label
from kbench.data.files import canonical_digest
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.pipeline.buckets import estimate
from kbench.pipeline.revision import ENGINE_REVISION
from kbench.spec import RunSpec, Setting
from kbench.store import Predictions, Result, Results, Status
from kbench.store.result import Coverage, Provenance
from kbench.task import Task


def spec(**changes: Any) -> RunSpec:
    """A run of map-tuning on toy-relations."""
    values: dict[str, Any] = {
        "task": "toy-relations",
        "backbone": "bert",
        "tuning": "full",
        "method": "map-tuning",
        "setting": Setting.GENERAL,
        "knowledge": "kb",
        "control": "none",
        "seed": 0,
    }
    values |= changes
    if values["method"] == "none":
        values |= {"knowledge": None, "control": "none"}
    return RunSpec(**values)


def predictions(
    gold: Sequence[Label],
    guessed: Sequence[Label],
    ids: Sequence[str] | None = None,
    degrees: Sequence[int] | None = None,
) -> Predictions:
    """Predictions on examples called e0, e1, …; those of degree -1 are not linked."""
    degrees = [3] * len(gold) if degrees is None else degrees
    return Predictions(
        ids=[f"e{n}" for n in range(len(gold))] if ids is None else [*ids],
        labels=[*gold],
        predictions=[*guessed],
        scores=[0.5] * len(gold),
        linked=[degree >= 0 for degree in degrees],
        degrees=[*degrees],
        strata=[""] * len(gold),
    )


def provenance(digest: str = "d1", **digests: str | None) -> Provenance:
    """As of a run, with the digest of its data."""
    return Provenance(
        kbench="0",
        revision=ENGINE_REVISION,
        versions={},
        git={},
        plugin={},
        hardware={},
        digests={"data": digest, "knowledge": "k", **digests},
        addresses={},
        command="kbench run",
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
    )


def store(
    folder: Path,
    found: Predictions,
    *,
    digest: str = "d1",
    cost: dict[str, float] | None = None,
    knowledge: str = "k",
    dev: float | None = None,
    made: dict[str, Any] | None = None,
    **changes: Any,
) -> Result:
    """Writes a result that scores what was predicted, as its task does; returns it.

    What was ``made`` takes the place of fields of its provenance.
    """
    chosen = spec(**changes)
    task = cast("type[Task]", registry.get(Kind.TASKS, chosen.task))
    metrics = {metric.name: estimate(metric, metric.measure(found)) for metric in task.metrics}
    share = sum(found.linked) / max(1, len(found.linked))
    coverage = Coverage(examples=share, mentions=share, linker=chosen.linker or "gold")
    result = Result(
        id=canonical_digest([chosen.model_dump(mode="json"), digest])[:32],
        status=Status.OK,
        spec=chosen,
        main_metric=task.metrics[0].name,
        metrics=metrics,
        dev=dev,
        coverage=coverage if chosen.knowledge else None,
        cost=cost or {},
        provenance=_updated(provenance(digest, knowledge=knowledge), made or {}),
        predictions="predictions.parquet",
    )
    Results(folder).save(result, found)
    return result


def _updated(origin: Provenance, made: dict[str, Any]) -> Provenance:
    digests = {**origin.digests, **made.get("digests", {})}
    return origin.model_copy(update={**made, "digests": digests})
