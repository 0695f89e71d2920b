"""The grid: plan it, skip what is stored, run the rest, record failures as results."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import torch

from kbench import __version__, provenance, registry
from kbench.accounting import knowledge_cost
from kbench.addresses import ENGINE_REVISION, addresses, general_plug, result_id
from kbench.buckets import Popularity, by_entity, degrees, estimate
from kbench.catalogue import Kind
from kbench.errors import KbenchError, Unsupported, UsageError
from kbench.files import cache_home
from kbench.leakage import leakage
from kbench.parts import Parts, default_tuning, normalised
from kbench.result import (
    Coverage,
    Frozen,
    Predictions,
    Provenance,
    Result,
    Score,
    Status,
)
from kbench.sources import is_hub
from kbench.spec import Grid, RunSpec, Setting
from kbench.stages import Evaluation, Stages
from kbench.store import Artifacts, Results, address
from kbench.strata import measured
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
    # Options are nested dicts and cannot be keys; the JSON text of a spec stands for it.
    return list({spec.model_dump_json(): spec for grid in grids for spec in _cells(grid)}.values())


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
            return Cell(
                spec,
                key,
                results.load(key),
                found["model"] if parts.tuning_recipe else None,
                found["plug"],
                start,
                impossible=_impossible(parts),
            )
    except UsageError:
        raise
    except KbenchError as error:
        problem = error
    # Without addresses there is still a place to say why: the spec's own digest.
    key = address("unaddressed", spec.model_dump(mode="json"))
    impossible = str(problem) if isinstance(problem, Unsupported) else _impossible(parts)
    return Cell(
        spec, key, results.load(key), problem=problem, impossible=impossible, missing=missing
    )


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
    fail_fast: bool = False,
    events: Events | None = None,
) -> list[Result]:
    """Runs the cells that have no good result yet; returns the results of all, in order.

    A run that fails becomes a result with status ``failed``, one that cannot be a result with
    status ``skipped``; neither stops the grid unless ``fail_fast``.
    """
    events = events or Events()
    found = {cell.id: cell.stored for cell in cells if cell.done and cell.stored}
    todo = [cell for cell in cells if cell.id not in found]
    work = _serial(todo, place, events) if jobs <= 1 else _parallel(todo, place, jobs)
    for cell, result in work:
        found[cell.id] = result
        if events.finished:
            events.finished(cell, result)
        if fail_fast and result.status == Status.FAILED:
            break
    return [found[cell.id] for cell in cells if cell.id in found]


def _serial(cells: Sequence[Cell], place: Place, events: Events) -> Iterator[tuple[Cell, Result]]:
    worker = Worker(place, events)
    for cell in cells:
        yield cell, worker.run(cell)


def _parallel(cells: Sequence[Cell], place: Place, jobs: int) -> Iterator[tuple[Cell, Result]]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    shared = Place(place.out, place.artifacts, place.device, threads)
    waiting, running, made = list(cells), dict[Future[Result], Cell](), set[str]()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = _next(waiting, running.values(), made)
                waiting.remove(cell)
                running[pool.submit(_in_process, cell, shared)] = cell
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(future)
                made |= cell.needs
                yield cell, future.result()


def _next(waiting: Sequence[Cell], running: Iterable[Cell], made: Set[str]) -> Cell:
    """Chooses the first run that need not wait for what another is making; else the first."""
    making = {key for cell in running for key in cell.needs} - made
    return next((cell for cell in waiting if not cell.needs & making), waiting[0])


_worker: Worker | None = None


def _in_process(cell: Cell, place: Place) -> Result:
    global _worker
    if _worker is None or _worker.place != place:
        _worker = Worker(place, Events())
    return _worker.run(cell)


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
        started, clock = datetime.now(UTC), time.perf_counter()
        predictions: Predictions | None = None
        try:
            if cell.problem is not None:
                raise cell.problem
            parts = sharing(cell.spec, self._shared)
            if reason := _impossible(parts):
                raise Unsupported(reason)
            evaluation = self._stages.evaluate(parts)
            result, predictions = _result(cell, parts, evaluation)
        except Unsupported as reason:
            result = _ended(cell, Status.SKIPPED, str(reason))
        except KbenchError as error:
            result = _ended(cell, Status.FAILED, str(error))
        except Exception as error:  # a plugin may fail in any way; the grid goes on
            result = _ended(cell, Status.FAILED, _blame(error))
        if result.status != Status.OK:
            # A run that broke off may have left a model in memory in any state.
            self._stages.forget()
        result = result.model_copy(update={"provenance": self._provenance(cell, started, clock)})
        try:
            result = self._results.save(result, predictions)
        except Exception as error:  # a plugin's words that no file can hold, a full disk
            problem = f"the result cannot be stored: {_blame(error)}"
            result = _ended(cell, Status.FAILED, problem)
            with suppress(Exception):
                self._results.save(result)
        return result

    def _provenance(self, cell: Cell, started: datetime, clock: float) -> Provenance:
        entry = registry.find(Kind.METHODS, cell.spec.method)
        parts = sharing(cell.spec, self._shared) if cell.problem is None else None
        return Provenance(
            kbench=__version__,
            revision=ENGINE_REVISION,
            versions=provenance.versions(),
            git=provenance.git_state("kbench"),
            plugin=provenance.plugin(entry.target, entry.distribution),
            hardware={
                **provenance.hardware(),
                "device": str(self._stages.device),
                "threads": torch.get_num_threads(),
            },
            digests=_digests(parts) if parts else {},
            # Those that the id is made of: a model that nobody trains has one too.
            addresses=addresses(parts) if parts else {"model": None, "plug": None},
            command=cell.spec.command(),
            started=started.isoformat(timespec="seconds"),
            seconds=time.perf_counter() - clock,
        )


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


def _ended(cell: Cell, status: Status, reason: str) -> Result:
    return Result(id=cell.id, status=status, reason=reason, spec=cell.spec)


def _blame(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}, line {last.lineno})"


def _result(cell: Cell, parts: Parts, evaluation: Evaluation) -> tuple[Result, Predictions]:
    prepared, task = evaluation.prepared, parts.task
    metrics = {}
    for metric in task.metrics:
        statistics = measured(metric, prepared.gold.labels, evaluation.predictions, prepared.strata)
        metrics[metric.name] = estimate(metric, statistics)
    links, known = prepared.links, parts.base_knowledge
    predictions = Predictions(
        ids=[example.id for example in prepared.examples],
        labels=prepared.gold.labels,
        predictions=evaluation.predictions,
        scores=evaluation.scores,
        linked=[max(rows, default=-1) >= 0 for rows in links.rows],
        degrees=degrees(prepared.examples, links, known),
        strata=prepared.strata,
    )
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
        leaks = leakage(prepared.examples, known)
    result = Result(
        id=cell.id,
        status=Status.OK,
        spec=cell.spec,
        main_metric=task.main_metric.name,
        metrics=metrics,
        coverage=coverage,
        buckets=parted,
        counts={**evaluation.counts, **leaks},
        cost={**evaluation.cost, **knowledge_cost(known)},
        training=evaluation.training,
        frozen=Frozen(before=evaluation.before, after=evaluation.after),
        predictions="predictions.parquet",
    )
    return result, predictions


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
