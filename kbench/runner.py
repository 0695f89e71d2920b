"""The grid: plan it, skip what is stored, run the rest, record failures as results."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Set
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter

import torch

from kbench import registry
from kbench.addresses import addresses, general_plug, result_id
from kbench.catalogue import Kind
from kbench.crew import Crew, Limits, Stopped, Tell
from kbench.errors import KbenchError, Unsupported, UsageError, VersionError
from kbench.files import cache_home
from kbench.outcome import Clock, blame, ended, origin, save, scored
from kbench.parts import Parts, default_tuning, normalised
from kbench.result import Predictions, Provenance, Result, Status
from kbench.sources import is_hub
from kbench.spec import Grid, RunSpec, Setting
from kbench.stages import Stages
from kbench.store import Artifacts, Results, address, check_writable
from kbench.task import ProbeTask

__all__ = ["Cell", "Events", "Place", "plan", "resolve", "run", "sharing"]


@dataclass(frozen=True)
class Place:
    """Where a grid runs.

    Attributes:
        out: folder of results.
        artifacts: folder of downstream models and plugs.
        device: ``cpu``, ``cuda``, ``mps`` or ``auto``.
        threads: CPU threads of each process; None leaves torch's choice.
    """

    out: Path
    artifacts: Path
    device: str = "auto"
    threads: int | None = None

    @classmethod
    def default(cls, out: Path, device: str = "auto") -> Place:
        """Artifacts go to the user's cache."""
        return cls(out, cache_home() / "artifacts", device)


@dataclass(frozen=True)
class Cell:
    """A planned run.

    Attributes:
        spec: the run.
        id: address of its result.
        stored: the result that is there already, of any status.
        model: address of its downstream model; None if that is the backbone as it is.
        plug: address of its plug, or None.
        start: address of the general plug that its plug may start from, or None.
        problem: why its parts cannot even be addressed, or None.
        impossible: why it will be skipped, as far as that is seen from its parts; else empty.
        missing: what has to be fetched or put right before it can run; only in offline plans.
    """

    spec: RunSpec
    id: str
    stored: Result | None = None
    model: str | None = None
    plug: str | None = None
    start: str | None = None
    problem: KbenchError | None = None
    impossible: str = ""
    missing: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether a good result is stored; failed and skipped runs are tried again."""
        return self.stored is not None and self.stored.status == Status.OK

    @property
    def needs(self) -> set[str]:
        """Addresses of all that has to be there, or be made, for the run."""
        return {key for key in (self.model, self.plug, self.start) if key}


@dataclass(frozen=True)
class Events:
    """What a runner tells while it works; every hook may be left out."""

    step: Callable[[str, int, int], None] | None = None
    finished: Callable[[Cell, Result], None] | None = None


def resolve(*grids: Grid) -> list[RunSpec]:
    """Resolves names, globs and ``all`` of grids, and drops cells that are the same run.

    Where no tuning is asked for, every task has its own.

    Raises:
        UsageError: a name is unknown; the nearest are given.
    """
    # Options are nested dicts and cannot be keys; what a spec looks like stands for it.
    return list({repr(spec): spec for grid in grids for spec in _cells(grid)}.values())


def _cells(grid: Grid) -> Iterator[RunSpec]:
    chosen = grid.model_copy(
        update={
            "method": tuple(registry.expand(Kind.METHODS, ",".join(grid.method))),
            "tuning": tuple(registry.expand(Kind.TUNINGS, ",".join(grid.tuning))),
        }
    )
    kinds = {"task": Kind.TASKS, "method": Kind.METHODS, "tuning": Kind.TUNINGS}
    for kind, parts in grid.options.items():
        for name in parts:
            registry.find(kinds[kind], name)
    for task in registry.expand(Kind.TASKS, ",".join(grid.task)):
        asked = "tuning" in grid.model_fields_set
        tuning = chosen.tuning if asked else (default_tuning(task),)
        own = chosen.model_copy(update={"task": (task,), "tuning": tuning})
        yield from map(normalised, own.cells())


def plan(
    specs: Sequence[RunSpec],
    place: Place,
    *,
    offline: bool = False,
    shared: dict[str, Parts] | None = None,
) -> list[Cell]:
    """Addresses every run and looks what is stored.

    Args:
        specs: the runs.
        place: where results are.
        offline: whether to take what is not on disk as missing, instead of fetching it or
            refusing the plan.
        shared: filled with the parts read; see :func:`sharing`.

    Raises:
        UsageError: a spec cannot be understood (an unknown option or name).
    """
    results = Results(place.out)
    shared = {} if shared is None else shared
    return [_planned(sharing(spec, shared, not offline), results, offline) for spec in specs]


def _planned(parts: Parts, results: Results, offline: bool) -> Cell:
    spec, problem = parts.spec, None
    missing = _missing(parts) if offline else ()
    try:
        if not missing:
            key, found, start = result_id(parts), addresses(parts), general_plug(parts)
            model = found["model"] if parts.tuning_recipe else None
            cell = Cell(spec, key, None, model, found["plug"], start, None, _impossible(parts))
            return _looked_up(cell, results)
    except UsageError:
        raise
    except KbenchError as error:
        problem = error
    # Without addresses there is still a place to say why: the spec's own digest.
    key = address("unaddressed", spec.model_dump(mode="json"))
    impossible = str(problem) if isinstance(problem, Unsupported) else _impossible(parts)
    cell = Cell(spec, key, problem=problem, impossible=impossible, missing=missing)
    return _looked_up(cell, results)


def _looked_up(cell: Cell, results: Results) -> Cell:
    """Puts in what is stored; what another version stored is a problem, and stays."""
    try:
        return replace(cell, stored=results.load(cell.id))
    except VersionError as error:
        return replace(cell, problem=error)


def _missing(parts: Parts) -> tuple[str, ...]:
    """What of data, backbone and knowledge base is not on disk, or cannot be read.

    Raises:
        UsageError: an option or the name of a part is wrong; that no download would mend.
    """
    # The options of all parts, which fetch nothing.
    task, _, _ = parts.task, parts.tuning_recipe, parts.tuning_options
    if parts.spec.knowledge is not None and not _impossible(parts):
        parts.plug_recipe(parts.spec.setting)
    if is_hub(task.data):
        found = [f"data {task.data} is on the hub; it is read when a run needs it"]
    else:
        found = _problems(lambda: task.digest)
    found += _problems(lambda: parts.backbone.digest)
    return tuple(found + _problems(lambda: parts.base_knowledge))


def _problems(read: Callable[[], object]) -> list[str]:
    try:
        read()
    except KbenchError as error:
        return [str(error)]
    return []


def sharing(spec: RunSpec, shared: dict[str, Parts], download: bool = True) -> Parts:
    """Makes parts that reuse the task, backbone and knowledge base already read."""
    parts = Parts(spec, download)
    task = repr((spec.task, spec.data, spec.options.get("task")))
    for name, key in (
        ("task", task),
        ("backbone", spec.backbone),
        ("base_knowledge", str(spec.knowledge)),
    ):
        other = shared.setdefault(f"{name} {key}", parts)
        if other is not parts:
            with suppress(KbenchError):  # what cannot be read is told where it is needed
                parts.__dict__[name] = getattr(other, name)
    return parts


def run(
    cells: Sequence[Cell],
    place: Place,
    *,
    jobs: int = 1,
    limits: Limits | None = None,
    fail_fast: bool = False,
    events: Events | None = None,
) -> list[Result]:
    """Runs the cells that have no good result yet; returns the results of all, in order.

    A run that fails becomes a result with status ``failed``, one that cannot be a result with
    status ``skipped``; neither stops the grid unless ``fail_fast``. With several ``jobs`` or with
    ``limits``, runs are in processes of their own, and one that dies is a failed run.

    Raises:
        ArtifactError: there is something to run, and no place to write it.
    """
    events, limits = events or Events(), limits or Limits()
    found = {cell.id: cell.stored for cell in cells if cell.done and cell.stored}
    todo = [cell for cell in cells if cell.id not in found]
    if todo:
        _check_writable(todo, place)
    apart = jobs > 1 or limits
    work = _apart(todo, place, jobs, limits, events) if apart else _here(todo, place, events)
    with closing(work):
        for cell, result in work:
            found[cell.id] = result
            if events.finished:
                events.finished(cell, result)
            if fail_fast and result.status == Status.FAILED:
                break
    return [found[cell.id] for cell in cells if cell.id in found]


def _check_writable(cells: Sequence[Cell], place: Place) -> None:
    check_writable(place.out, Results.instead)
    stored = Artifacts(place.artifacts)
    needs = {("model", cell.model) for cell in cells if cell.model}
    needs |= {("plug", cell.plug) for cell in cells if cell.plug}
    if any(need not in stored for need in needs):
        check_writable(place.artifacts, Artifacts.instead)


def _here(
    cells: Sequence[Cell], place: Place, events: Events
) -> Generator[tuple[Cell, Result], None, None]:
    worker = Worker(place, events)
    for cell in cells:
        yield cell, worker.run(cell)


def _apart(
    cells: Sequence[Cell], place: Place, jobs: int, limits: Limits, events: Events
) -> Generator[tuple[Cell, Result], None, None]:
    threads = place.threads if jobs == 1 else max(1, (os.cpu_count() or 1) // jobs)
    waiting, made = list(cells), set[str]()

    def take(running: Sequence[Cell]) -> Cell | None:
        if not waiting:
            return None
        cell = _next(waiting, running, made)
        waiting.remove(cell)
        return cell

    # Steps of several runs at once would make one bar jump to and fro.
    tell = events.step if jobs == 1 else None
    make = partial(_worker, replace(place, threads=threads))
    crew: Crew[Cell, Result] = Crew(make, jobs, limits, tell)
    with closing(crew.work(take)) as ends:
        for cell, end in ends:
            made |= cell.needs
            yield cell, _stopped(cell, place, end) if isinstance(end, Stopped) else end


def _worker(place: Place, tell: Tell) -> Callable[[Cell], Result]:
    """What a process of its own does with a cell."""
    return Worker(place, Events(step=tell)).run


def _stopped(cell: Cell, place: Place, end: Stopped) -> Result:
    """Stores the result of a run whose process came to no end of its own, or a better one."""
    began = Clock(datetime.now(UTC) - timedelta(seconds=end.seconds), perf_counter() - end.seconds)
    result = ended(cell.id, cell.spec, Status.FAILED, end.reason)
    addresses = {"model": cell.model, "plug": cell.plug}
    comes = origin(cell.spec, began, {"device": place.device}, {}, addresses)
    return save(Results(place.out), result.model_copy(update={"provenance": comes}))


def _next(waiting: Sequence[Cell], running: Iterable[Cell], made: Set[str]) -> Cell:
    """Chooses the first run that need not wait for what another is making; else the first."""
    making = {key for cell in running for key in cell.needs} - made
    return next((cell for cell in waiting if not cell.needs & making), waiting[0])


class Worker:
    """Runs cells one after another in this process, keeping what they share in memory."""

    def __init__(self, place: Place, events: Events) -> None:
        self.place = place
        if place.threads:
            torch.set_num_threads(place.threads)
        self._results = Results(place.out)
        self._stages = Stages(Artifacts(place.artifacts), _device(place.device), events.step)
        self._shared: dict[str, Parts] = {}

    def run(self, cell: Cell) -> Result:
        """Runs a cell and stores its result, whatever happens but an interruption."""
        clock = Clock()
        predictions: Predictions | None = None
        try:
            # Another process on this store may have been faster.
            if stored := self._results.finished(cell.id):
                return stored
            if cell.problem is not None:
                raise cell.problem
            parts = sharing(cell.spec, self._shared)
            if reason := _impossible(parts):
                raise Unsupported(reason)
            result, predictions = scored(cell.id, parts, self._stages.evaluate(parts))
        except Unsupported as reason:
            result = ended(cell.id, cell.spec, Status.SKIPPED, str(reason))
        except (Exception, SystemExit) as error:  # a plugin may fail in any way; the grid goes on
            result = ended(cell.id, cell.spec, Status.FAILED, blame(error))
        if result.status != Status.OK:
            # A run that broke off may have left a model in memory in any state.
            self._stages.forget()
        result = result.model_copy(update={"provenance": self._origin(cell, clock)})
        return save(self._results, result, predictions)

    def _origin(self, cell: Cell, clock: Clock) -> Provenance:
        parts = sharing(cell.spec, self._shared) if cell.problem is None else None
        made: dict[str, str | None] = {"model": None, "plug": None}
        digests: dict[str, str | None] = {}
        if parts:
            with suppress(Exception):  # what cannot be read any more is no reason to say nothing
                # The addresses that the id is made of: a model that nobody trains has one too.
                made, digests = addresses(parts), _digests(parts)
        device, threads = str(self._stages.device), int(torch.get_num_threads())
        hardware: dict[str, str | int] = {"device": device, "threads": threads}
        return origin(cell.spec, clock, hardware, digests, made)


def _impossible(parts: Parts) -> str:
    method, spec = parts.method, parts.spec
    if method.settings and spec.setting not in method.settings:
        known = ", ".join(sorted(method.settings))
        return f"{spec.method} has no {spec.setting} setting (it has {known})"
    try:
        task = parts.task
    except KbenchError:
        return ""  # told where the task is read
    trains, general = parts.tuning_recipe is not None, spec.setting == Setting.GENERAL
    if isinstance(task, ProbeTask) and (trains or not general):
        wants = f"tuning {spec.tuning}" if trains else f"the {spec.setting} setting"
        return (
            f"task {spec.task} is a probe and has no training split, which {wants} needs; probes "
            f"have tuning {task.tuning} and the general setting"
        )
    if parts.plug_is_fixed and not trains:
        return f"tuning {spec.tuning} trains nothing, so no model is tuned with the plug in place"
    return ""


def _digests(parts: Parts) -> dict[str, str | None]:
    return {
        "data": parts.task.digest,
        "backbone": parts.backbone.digest,
        "knowledge": parts.base_knowledge.digest if parts.base_knowledge else None,
    }


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        name = "mps" if name == "cpu" and torch.backends.mps.is_available() else name
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as cause:
        reason = str(cause).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used ({reason}); try --device auto") from None
    return device
