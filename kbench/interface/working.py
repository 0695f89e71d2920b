"""A plan that is looked at, and a plan that is carried out: one way for a call and the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kbench.grid import runner
from kbench.grid.estimate import GpuHours, Machine, Memory, WorkKind
from kbench.grid.executor import Executor
from kbench.grid.plan import CANNOT, Cell, Events, Place
from kbench.grid.tracker import Tracker, find_trackers, tracked
from kbench.grid.workload import memories, works
from kbench.interface.asking import Asked, Means
from kbench.parts.run_parts import PartLoader
from kbench.store import Artifacts, Result

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["A100", "Plan", "Todo", "planned", "prepared"]

A100 = 19.5
"""Peak of an A100 in float32, in TFLOP/s: what estimates are for where nothing else is said."""


@dataclass(frozen=True)
class Plan:
    """What a grid would do: every run, how it stands, and what it costs.

    Attributes:
        cells: the runs.
        models: downstream models that would be trained.
        plugs: plugs that would be trained.
        estimate: GPU hours.
        memory: what each backbone takes on a device, by its name and how its weights are held.
        notes: what is to be said of options that no run has.
    """

    cells: Sequence[Cell]
    models: int
    plugs: int
    estimate: GpuHours
    memory: Mapping[tuple[str, str], Memory]
    notes: Sequence[str] = ()

    @property
    def runs(self) -> DataFrame:
        """A line a run: ``plan``, how it stands, ``id``, ``obstacle``, and what the run is."""
        from kbench.interface.frames import plan_frame

        return plan_frame(self.cells)

    @property
    def lines(self) -> list[str]:
        """What there is to say beside the runs."""
        missing = dict.fromkeys(what for cell in self.cells for what in cell.missing)
        return [
            work_line(self.cells, self.models, self.plugs),
            *reasons(self.cells),
            *(f"not there yet: {what}" for what in missing),
            *(memory.line(*key) for key, memory in self.memory.items()),
            *self.estimate.lines(),
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Todo:
    """A plan that is about to be carried out.

    Attributes:
        cells: the runs.
        place: where.
        executor: by whom.
        notes: what is to be said of options that no run has.
        trackers: who else is told, by name.
    """

    cells: Sequence[Cell]
    place: Place
    executor: Executor
    notes: Sequence[str]
    trackers: Mapping[str, Tracker]

    @property
    def left(self) -> list[Cell]:
        """The runs that are not stored and can be."""
        return [cell for cell in self.cells if not cell.done and cell.standing != CANNOT]

    @property
    def line(self) -> str:
        """What has to be done, in a line."""
        stored = self.executor.stored(self.place)
        models = {c.model for c in self.left if c.model and ("model", c.model) not in stored}
        plugs = {c.plug for c in self.left if c.plug and ("plug", c.plug) not in stored}
        return work_line(self.cells, len(models), len(plugs))

    def run(self, events: Events | None = None, *, fail_fast: bool = False) -> list[Result]:
        """Runs what is not stored; returns the results of all runs. See :func:`runner.run`."""
        events = tracked(events or Events(), self.trackers, self.cells, self.place.out)
        return runner.run(
            self.cells, self.place, executor=self.executor, fail_fast=fail_fast, events=events
        )


def planned(asked: Asked, out: Path, tflops: float = A100) -> Plan:
    """Returns a plan to look at.

    Nothing is downloaded, and data that are not there yet are no error.

    Args:
        asked: the grids.
        out: the folder of results.
        tflops: peak of the GPU, in TFLOP/s.

    Raises:
        UsageError: a name or option is unknown.
    """
    place, loader = Place.default(out), PartLoader(download=False)
    specs, turns, notes = asked.specs(offline=True)
    cells = runner.plan(specs, place, offline=True, loader=loader, turns=turns)
    made = works(cells, loader, Artifacts(place.artifacts))
    return Plan(
        cells,
        sum(work.stage == WorkKind.TUNING for work in made),
        sum(work.stage in (WorkKind.GENERAL, WorkKind.TASK) for work in made),
        GpuHours.of(made, Machine(1e12 * tflops)),
        memories(cells, loader),
        notes,
    )


def prepared(asked: Asked, means: Means) -> Todo:
    """Returns a plan to carry out.

    Raises:
        UsageError: a name or option is unknown, or something cannot be done so.
    """
    if asked.demo and means.executor == "local":
        # A thread each: the same bits on every machine of a kind, and no faster with more.
        means = replace(means, threads=means.threads or 1)
    place, executor, trackers = means.place(), means.worker(), find_trackers(means.track)
    specs, turns, notes = asked.specs()
    return Todo(runner.plan(specs, place, turns=turns), place, executor, notes, trackers)


def work_line(cells: Sequence[Cell], models: int, plugs: int) -> str:
    """Returns what has to be done for a plan, in a line."""
    done = sum(cell.done for cell in cells)
    cannot = sum(cell.standing == CANNOT for cell in cells)
    rest = f", {cannot} cannot" if cannot else ""
    return (
        f"{len(cells)} runs: {done} stored, {len(cells) - done - cannot} to run{rest}; "
        f"to train: {models} downstream models, {plugs} plugs"
    )


def reasons(cells: Sequence[Cell]) -> list[str]:
    """Returns why runs of a plan cannot be, each reason once with the runs that it is about."""
    about: dict[str, list[str]] = {}
    for cell in cells:
        if cell.standing == CANNOT:
            about.setdefault(cell.obstacle, []).append(cell.spec.title)
    return [f"cannot run: {_of(titles)}: {reason}" for reason, titles in about.items()]


def _of(titles: Sequence[str]) -> str:
    return titles[0] if len(titles) == 1 else f"{titles[0]} and {len(titles) - 1} more"
