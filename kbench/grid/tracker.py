"""Trackers: what keeps records of experiments elsewhere is told of a grid while it runs."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from kbench.errors import UsageError, with_type
from kbench.grid.plan import Cell, Events
from kbench.parts import registry
from kbench.parts.catalogue import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from kbench.store import Result

__all__ = ["Record", "Tracker", "TrackerWarning", "find_trackers", "record_of", "tracked"]


class TrackerWarning(UserWarning):
    """A tracker failed; the grid goes on without it."""


class Tracker(ABC):
    """Is told of a grid by three calls. Registered under ``kbench.trackers``.

    A tracker records what kbench has stored in any case: one that fails is left out from then on,
    with a warning, and no run is lost. It is made before anything runs, in the process that was
    called; what it needs is imported then, and where that is missing it raises
    :class:`~kbench.errors.UsageError`.
    """

    @abstractmethod
    def grid(self, cells: Sequence[Cell], out: Path) -> None:
        """A grid begins.

        Args:
            cells: all its runs, those that are stored already too.
            out: the folder of results.
        """

    def stage(self, title: str, done: int, steps: int) -> None:  # noqa: B027  (few want it)
        """A stage (a tuning, a fit) has taken a step. Called often; does nothing by default.

        Args:
            title: of the stage.
            done: steps.
            steps: in all.
        """

    @abstractmethod
    def result(self, result: Result) -> None:
        """A run has ended, well or not. Called for those that were run now."""


@dataclass(frozen=True)
class Record:
    """A result as trackers keep it.

    Attributes:
        name: of the run, for people.
        parameters: what was chosen, as text by name; options by their path.
        metrics: figures by name: ``score`` and its interval, every metric, cost, coverage.
        curves: figures by epoch, by name: training losses and scores on dev.
    """

    name: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[float]]

    @property
    def epochs(self) -> list[dict[str, float]]:
        """The curves epoch by epoch: figures by name, and ``epoch`` from 1."""
        longest = max(map(len, self.curves.values()), default=0)
        return [
            {"epoch": epoch + 1.0}
            | {name: values[epoch] for name, values in self.curves.items() if epoch < len(values)}
            for epoch in range(longest)
        ]


def record_of(result: Result) -> Record:
    """Returns what a tracker keeps of a result. All figures are finite."""
    spec = result.spec.model_dump(mode="json", exclude={"options"})
    chosen = {**spec, **dict(result.spec.settings)}
    parameters = {"id": result.id, "status": str(result.status)}
    parameters |= {name: str(value) for name, value in chosen.items() if value is not None}
    if result.reason:
        parameters["reason"] = result.reason
    metrics = {f"cost/{name}": value for name, value in result.cost.items()}
    for name, score in result.metrics.items():
        metrics[f"metric/{name}"] = score.value
    if result.score:
        metrics["score"] = result.score.value
        # No slash: a tracker of files cannot have both `score` and `score/low`.
        metrics |= {f"score_{end}": getattr(result.score, end) for end in ("low", "high")}
    if result.dev is not None:
        metrics["dev"] = result.dev
    if result.coverage:
        metrics["coverage"] = result.coverage.examples
    curves = {
        f"{part}/{name}": [*values]
        for part in ("model", "plug")
        for name, values in _history(result, part).items()
    }
    return Record(result.spec.label, parameters, _finite(metrics), curves)


def _history(result: Result, part: str) -> dict[str, Sequence[float]]:
    trained = result.training.get(part)
    history = trained.get("history") if isinstance(trained, Mapping) else None
    found = {name: (history or {}).get(name) for name in ("losses", "dev")}
    return {name: values for name, values in found.items() if values}


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {
        name: value for name, value in metrics.items() if value is not None and math.isfinite(value)
    }


def find_trackers(names: Sequence[str]) -> dict[str, Tracker]:
    """Returns trackers by name, made.

    Raises:
        UsageError: there is none of a name, or what it needs is not installed.
        PluginError: it does not load, or two distributions offer the name.
    """
    kinds = {name: cast("type[Tracker]", registry.get(Kind.TRACKERS, name)) for name in names}
    made = {}
    for name, kind in kinds.items():
        try:
            made[name] = kind()
        except ImportError as cause:
            lacks = cause.name or with_type(cause)
            raise UsageError(f"--track {name} needs {lacks}, which is not installed") from cause
    return made


def tracked(
    events: Events, trackers: Mapping[str, Tracker], cells: Sequence[Cell], out: Path
) -> Events:
    """Returns events that tell trackers too; tells them that the grid begins.

    Args:
        events: what is told otherwise.
        trackers: by name. One that raises anything is told nothing more.
        cells: of the grid.
        out: the folder of results.
    """
    if not trackers:
        return events
    left = dict(trackers)

    def tell(call: Callable[[Tracker], None]) -> None:
        for name, tracker in [*left.items()]:
            try:
                call(tracker)
            except Exception as cause:  # records are no part of a run
                del left[name]
                told = f"--track {name}: {with_type(cause)}; it is told nothing more"
                warnings.warn(told, TrackerWarning, stacklevel=2)

    def step(then: Callable[..., None] | None) -> Callable[..., None]:
        def both(*said: Any) -> None:
            if then:
                then(*said)
            title, done, steps = said[-3:]  # the process comes before them, where there are several
            tell(lambda tracker: tracker.stage(title, done, steps))

        return both

    def finished(cell: Cell, result: Result) -> None:
        if events.finished:
            events.finished(cell, result)
        tell(lambda tracker: tracker.result(result))

    tell(lambda tracker: tracker.grid(cells, out))
    return replace(events, step=step(events.step), beside=step(events.beside), finished=finished)
