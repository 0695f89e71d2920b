"""The grid: plan it, skip what is stored, run the rest, record failures as results."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import cache, partial
from itertools import product
from math import prod
from typing import get_args

from kbench.data.sources import is_hub
from kbench.errors import (
    AbsentError,
    ArtifactError,
    DataError,
    InputError,
    KbenchError,
    Unsupported,
    UsageError,
    VersionError,
)
from kbench.grid.executor import Executor
from kbench.grid.executors.local import Local
from kbench.grid.grids import ALIKE, Grid, check_runs
from kbench.grid.obstacles import Obstacles
from kbench.grid.plan import CANNOT, Cell, Events, Place, refused
from kbench.grid.sweeps import swept
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.find import default_tuning, find_knowledge, normalised
from kbench.parts.run_parts import PartLoader, Parts, impossible
from kbench.pipeline.addresses import addresses, general_plug, result_id
from kbench.spec import Control, OptionKind, RunSpec
from kbench.store import Result, Results, Status
from kbench.store.folder import address, check_writable
from kbench.store.packed import check_unpacked

__all__ = ["check_options", "plan", "resolve", "run", "turns", "unused"]


def resolve(*grids: Grid, offline: bool = False) -> list[RunSpec]:
    """Resolves names, globs and ``all`` of grids, and drops cells that are the same run.

    Where no tuning is asked for, every task has its own, for models that read both ways and for
    those that read from left to right; where no control is, that of the same type is left out of
    knowledge bases without types. An option of several values is as many runs
    (:mod:`kbench.grid.sweeps`).

    Args:
        grids: what is asked for.
        offline: download no backbone, of which then is not known which way it reads.

    Raises:
        UsageError: a name is unknown; the nearest are given. Or there are far too many runs.
    """
    return [spec for spec, _ in turns(*grids, offline=offline)]


def turns(*grids: Grid, offline: bool = False) -> list[tuple[RunSpec, int]]:
    """Resolves grids as :func:`resolve`, and says when each run has its turn.

    Returns:
        each run with the number of the first grid that asks for it.
    """
    # Options are nested dicts and cannot be keys; what a spec looks like stands for it.
    tuning_of = cache(partial(default_tuning, download=not offline))
    found: dict[str, tuple[RunSpec, int]] = {}
    pointless = cache(_is_pointless)
    for number, grid in enumerate(grids):
        for spec in _cells(grid, tuning_of, pointless):
            found.setdefault(repr(spec), (spec, number))
            check_runs(len(found))
    return [*found.values()]


def _cells(
    grid: Grid,
    tuning_of: Callable[[str, str], str],
    pointless: Callable[[Control, str | None], bool],
) -> Iterator[RunSpec]:
    chosen = grid.model_copy(
        update={
            "method": tuple(registry.expand(Kind.METHODS, ",".join(grid.method))),
            "tuning": tuple(registry.expand(Kind.TUNINGS, ",".join(grid.tuning))),
        }
    )
    kinds = {"task": Kind.TASKS, "method": Kind.METHODS, "tuning": Kind.TUNINGS}
    for kind, named in grid.options.items():
        for name in named:
            registry.find(kinds[kind], name)
    asked = "tuning" in grid.model_fields_set
    tasks = registry.expand(Kind.TASKS, ",".join(grid.task))
    pairs = len(tasks) * len(grid.backbone)
    beside = (chosen.method, grid.knowledge, grid.setting, grid.control, grid.seed)
    check_runs(pairs * prod(map(len, beside)) // ALIKE)
    for task, backbone in product(tasks, grid.backbone):
        tuning = chosen.tuning if asked else (tuning_of(task, backbone),)
        own = {"task": (task,), "backbone": (backbone,), "tuning": tuning}
        for spec in chosen.model_copy(update=own).cells():
            if "control" in grid.model_fields_set or not pointless(spec.control, spec.knowledge):
                yield from swept(normalised(spec))


def _is_pointless(control: Control, knowledge: str | None) -> bool:
    """Whether it is a control by types of a knowledge base that has none."""
    if control != Control.SAME_TYPE or knowledge is None:
        return False
    try:
        return not find_knowledge(knowledge).has_types
    except KbenchError:  # told where it is planned
        return False


def unused(
    grids: Sequence[Grid],
    specs: Sequence[RunSpec],
    settings: Sequence[str],
    narrowed: Collection[str] = (),
) -> Iterator[str]:
    """Yields what is to be said of options of a task, tuning or method that no run has.

    Args:
        grids: whose options they are.
        specs: the runs of these.
        settings: those given with ``--set``.
        narrowed: the kinds of which the command line chose: what a file says of others is no
            mistake.
    """
    there = {kind: {str(getattr(spec, kind)) for spec in specs} for kind in get_args(OptionKind)}
    said: dict[tuple[str, str], str] = {}
    for text in settings:
        kind, part = text.split(".")[:2]
        said[kind, part] = f"--set {text!r}"
    for kind, parts in ((kind, parts) for grid in grids for kind, parts in grid.options.items()):
        for part in parts if kind not in narrowed else ():
            said.setdefault((kind, part), f"options.{kind}.{part}")
    for (kind, part), what in said.items():
        if part not in there[kind]:
            known = ", ".join(sorted(there[kind]))
            yield f"{what} changes nothing: no run has {kind} {part}; there is {known}"


def plan(
    specs: Sequence[RunSpec],
    place: Place,
    *,
    offline: bool = False,
    loader: PartLoader | None = None,
    turns: Sequence[int] = (),
) -> list[Cell]:
    """Addresses every run and looks what is stored.

    Args:
        specs: the runs.
        place: where results are.
        offline: whether to take what is not on disk as missing, instead of fetching it or
            refusing the plan.
        loader: of the parts; one of its own if not given.
        turns: when each run is to be made, see :attr:`Cell.turn`; all at once if not given.

    Raises:
        UsageError: a spec cannot be understood (an unknown option or name).
    """
    results = Results(place.out)
    loader = loader or PartLoader(download=not offline)
    runs = [Parts(spec, loader) for spec in specs]
    for parts in runs:  # of all, before a backbone is fetched for the first
        _check_options(parts)
    planned: dict[str, tuple[Cell, Parts]] = {}
    for parts, turn in zip(runs, turns or [0] * len(runs), strict=True):
        cell = replace(_planned(parts, results, offline), turn=turn)
        planned.setdefault(cell.id, (cell, parts))  # two spellings of one run are one cell
    seen = Obstacles()
    # One backbone after the other, for each has to be loaded.
    for key, (cell, parts) in sorted(planned.items(), key=lambda item: item[1][0].spec.backbone):
        if not cell.done and cell.standing != CANNOT and not cell.missing:
            planned[key] = _tried(cell, parts, seen), parts
    return [cell for cell, _ in planned.values()]


def _tried(cell: Cell, parts: Parts, seen: Obstacles) -> Cell:
    """Puts in what its parts say against a run, before any of it is made."""
    try:
        return replace(cell, impossible=seen.of(parts))
    except InputError as error:
        return replace(cell, problem=error)


def check_options(specs: Sequence[RunSpec]) -> None:
    """Refuses options that parts do not have, and values that they do not take; loads no data.

    Raises:
        UsageError: a run has one.
    """
    loader = PartLoader(download=False)
    for spec in specs:
        parts = Parts(spec, loader)
        _check_options(parts)
        with suppress(Unsupported, DataError, ArtifactError):  # no fault of its options
            _check_recipes(parts)


def _check_recipes(parts: Parts) -> None:
    _ = parts.tuning_recipe
    if parts.spec.knowledge is not None and not impossible(parts):
        parts.plug_recipe(parts.spec.setting)


def _check_options(parts: Parts) -> None:
    """Refuses options that are wrong; what else stands against a run is told by its plan."""
    asked: tuple[Callable[[], object], ...] = (
        lambda: parts.task,
        lambda: parts.tuning_options,
        lambda: parts.method,
    )
    for ask in asked:
        try:
            ask()
        except UsageError:
            raise
        except KbenchError:
            continue


def _planned(parts: Parts, results: Results, offline: bool) -> Cell:
    spec, problem = parts.spec, None
    missing: tuple[str, ...] = ()
    try:
        missing = _missing(parts) if offline else ()
        if not missing:
            key, made, start = result_id(parts), addresses(parts), general_plug(parts)
            model = made["model"] if parts.tuning_recipe else None
            cell = Cell(spec, key, None, model, made["plug"], start, None, impossible(parts))
            return _looked_up(cell, results)
    except UsageError:
        raise
    except KbenchError as error:
        problem = error
    # Without addresses there is still a place to say why: the spec's own digest.
    key = address("unaddressed", spec.model_dump(mode="json", exclude=spec.usual))
    reason = str(problem) if isinstance(problem, Unsupported) else impossible(parts)
    cell = Cell(spec, key, problem=problem, impossible=reason, missing=missing)
    return _looked_up(cell, results)


def _looked_up(cell: Cell, results: Results) -> Cell:
    """Puts in what is stored; what another version stored is a problem, and stays."""
    try:
        return replace(cell, stored=results.load(cell.id))
    except VersionError as error:
        return replace(cell, problem=error)


def _missing(parts: Parts) -> tuple[str, ...]:
    """What of data, backbone and knowledge base is not on disk.

    Raises:
        KbenchError: an option or the name of a part is wrong, or what is on disk cannot be used;
            that no download would mend.
    """
    # The options of all parts, which fetch nothing.
    task, _ = parts.task, parts.tuning_options
    _check_recipes(parts)
    if is_hub(task.data):
        missing = [f"data {task.data} is on the hub; it is read when a run needs it"]
    else:
        missing = _absent(task.data, lambda: task.digest)
    missing += _absent(parts.spec.backbone, lambda: parts.backbone.digest)
    return tuple(missing + _absent(parts.spec.knowledge, lambda: parts.base_knowledge))


def _absent(named: str | None, read: Callable[[], object]) -> list[str]:
    """What is said of a part that is not there; what lacks a file of its own is damaged."""
    try:
        read()
    except AbsentError as error:
        return [str(error)]
    except DataError as error:
        if named is not None and os.path.lexists(os.path.expanduser(named)):  # noqa: PTH111
            raise
        return [str(error)]
    return []


def run(
    cells: Sequence[Cell],
    place: Place,
    *,
    executor: Executor | None = None,
    fail_fast: bool = False,
    events: Events | None = None,
) -> list[Result]:
    """Runs the cells that have no good result yet; returns the results of all, in order.

    A run that fails becomes a result with status ``failed``, one that cannot be a result with
    status ``skipped``; neither stops the grid unless ``fail_fast``. One whose input is bad is no
    experiment: its result has the status ``refused`` and is not stored.

    Args:
        cells: the plan.
        place: where results go.
        executor: who does the work; one process on this machine, if not given.
        fail_fast: whether to stop at the first run that fails.
        events: told of what happens.

    Raises:
        ArtifactError: there is something to run, and no place to write it.
    """
    events = events or Events()
    by_id = {cell.id: cell.stored for cell in cells if cell.done and cell.stored}
    bad = {cell.id: refused(cell, cell.refusal) for cell in cells if cell.refusal}
    if bad and fail_fast:
        return [*bad.values()][:1]
    by_id |= bad
    todo = [cell for cell in cells if cell.id not in by_id]
    if todo:
        check_unpacked(place.out)
        check_writable(place.out, Results.instead)
    with closing((executor or Local()).work(todo, place, events)) as work:
        for cell, result in work:
            by_id[cell.id] = result
            if events.finished:
                events.finished(cell, result)
            if fail_fast and result.status in (Status.FAILED, Status.REFUSED):
                break
    return [by_id[cell.id] for cell in cells if cell.id in by_id]
