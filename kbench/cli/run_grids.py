"""Running a grid for a person at a terminal: progress, one line a run, and the table."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from kbench.cli.layout import Column, show
from kbench.cli.messages import say, say_json
from kbench.cli.render import print_table
from kbench.cli.telling import QUIET, Teller, showing
from kbench.cli.terminal import Console
from kbench.grid import runner
from kbench.grid.estimate import GpuHours, Machine, WorkKind
from kbench.grid.executor import Executor
from kbench.grid.grids import Grid
from kbench.grid.plan import CANNOT, Cell, Place
from kbench.grid.workload import memories, works
from kbench.parts.run_parts import PartLoader
from kbench.results.choice import shown_of
from kbench.results.tables import leaders, rows
from kbench.spec import Control, RunSpec
from kbench.store import Artifacts, Results, Status

__all__ = ["dry_run", "run"]


def dry_run(
    grids: Sequence[Grid],
    out: Path,
    peak: float,
    as_json: bool,
    settings: Sequence[str] = (),
    narrowed: Collection[str] = (),
) -> int:
    """Prints the plan: every run, how it stands, what has to be made for it, and what that costs.

    Nothing is downloaded, and data that are not there yet are no error.
    """
    place = Place.default(out)
    loader = PartLoader(download=False)
    specs = runner.resolve(*grids, offline=True)
    _say_unused(grids, specs, settings, narrowed)
    cells = runner.plan(specs, place, offline=True, loader=loader)
    made = works(cells, loader, Artifacts(place.artifacts))
    estimate = GpuHours.of(made, Machine(peak))
    held = memories(cells, loader)
    if as_json:
        for cell in cells:
            value = {
                "id": cell.id,
                "plan": cell.standing,
                "spec": cell.spec.model_dump(mode="json"),
            }
            say_json(value)
        memory = [{"backbone": b, "held": w, **vars(m)} for (b, w), m in held.items()]
        say_json({"estimate": estimate.as_json() | {"memory": memory}})
        return 0
    console = Console()
    columns = [
        Column("plan", [cell.standing for cell in cells], text=True),
        Column("run", [cell.spec.label for cell in cells], text=True),
        Column("result", [cell.id[:12] for cell in cells], rank=1),
    ]
    show(console, columns)
    models = sum(work.stage == WorkKind.TUNING for work in made)
    plugs = sum(work.stage in (WorkKind.GENERAL, WorkKind.TASK) for work in made)
    missing = dict.fromkeys(what for cell in cells for what in cell.missing)
    lines = [_work(cells, models, plugs), *_reasons(cells)]
    lines += [f"not there yet: {what}" for what in missing]
    lines += [memory.line(*key) for key, memory in held.items()]
    for line in (*lines, *estimate.lines()):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def _work(cells: Sequence[Cell], models: int, plugs: int) -> str:
    done = sum(cell.done for cell in cells)
    cannot = sum(cell.standing == CANNOT for cell in cells)
    rest = f", {cannot} cannot" if cannot else ""
    return (
        f"{len(cells)} runs: {done} stored, {len(cells) - done - cannot} to run{rest}; "
        f"to train: {models} downstream models, {plugs} plugs"
    )


def _reasons(cells: Sequence[Cell]) -> list[str]:
    """Why runs of a plan cannot be, each reason once with the runs that it is about."""
    about: dict[str, list[str]] = {}
    for cell in cells:
        if cell.standing == CANNOT:
            about.setdefault(cell.obstacle, []).append(cell.spec.title)
    return [f"cannot run: {_of(titles)}: {reason}" for reason, titles in about.items()]


def _of(titles: Sequence[str]) -> str:
    return titles[0] if len(titles) == 1 else f"{titles[0]} and {len(titles) - 1} more"


def run(
    grids: Sequence[Grid],
    place: Place,
    executor: Executor,
    *,
    teller: Teller,
    fail_fast: bool,
    as_json: bool,
    debug: bool = False,
    settings: Sequence[str] = (),
    narrowed: Collection[str] = (),
) -> int:
    """Runs grids and prints their table; returns the exit status.

    Args:
        grids: what to run.
        place: where results go, and how to compute.
        executor: who works through the plan.
        teller: says what goes on.
        fail_fast: stop at the first run that fails.
        as_json: print results as JSON Lines instead of the table.
        debug: say the whole trace of a run that fails.
        settings: of ``--set``; one that no run has a use for is told, as of a grid file's options.
        narrowed: the axes that the command line chooses of.
    """
    specs = runner.resolve(*grids)
    _say_unused(grids, specs, settings, narrowed)
    cells = runner.plan(specs, place)
    todo = [cell for cell in cells if not cell.done and cell.standing != CANNOT]
    stored = executor.stored(place)
    models = {cell.model for cell in todo if cell.model and ("model", cell.model) not in stored}
    plugs = {cell.plug for cell in todo if cell.plug and ("plug", cell.plug) not in stored}
    teller.say(f"{_work(cells, len(models), len(plugs))}; seeds {_seeds(cells)}")
    for line in _reasons(cells):
        teller.say(line, style="yellow")
    started = time.perf_counter()
    swept = _swept(cell.spec for cell in cells)
    with showing(teller, len(todo), lambda cell: _sweep(cell.spec) in swept, debug) as events:
        results = runner.run(cells, place, executor=executor, fail_fast=fail_fast, events=events)
    store = Results(place.out)
    if as_json:
        for result in results:
            say_json(result.as_json())
    else:
        # What was refused for its input is no result, and told above.
        kept = [result for result in results if result.status != Status.REFUSED]
        shown, hidden = shown_of(rows(kept, store, beside=store))
        for line in hidden:
            teller.say(line)
        if shown or not hidden:
            print_table(shown, Console(), leaders(shown, store))
    seconds = time.perf_counter() - started
    ended = {result.status for result in results}
    if traced := [result for result in results if result.trace and not debug]:
        first = place.out / traced[0].id / "trace.txt"
        more = f" and {len(traced) - 1} more" if len(traced) > 1 else ""
        teller.say(f"where it failed: {first}{more} (--debug prints it)", level=QUIET)
    count = sum(result.status != Status.REFUSED for result in results)
    teller.say(f"{count} results in {place.out} ({seconds:.1f} s)")
    return 2 if Status.REFUSED in ended else 1 if Status.FAILED in ended else 0


def _say_unused(
    grids: Sequence[Grid],
    specs: Sequence[RunSpec],
    settings: Sequence[str],
    narrowed: Collection[str],
) -> None:
    for line in runner.unused(grids, specs, settings, narrowed):
        say(f"warning: {line}", err=True)


def _seeds(cells: Sequence[Cell]) -> str:
    return ", ".join(str(seed) for seed in sorted({cell.spec.seed for cell in cells}))


def _swept(specs: Iterable[RunSpec]) -> set[str]:
    """Returns what runs are variants of that differ in options of their tuning or method."""
    variants: dict[str, set[str]] = {}
    for spec in specs:
        variants.setdefault(_sweep(spec), set()).add(repr(spec.options))
    return {sweep for sweep, options in variants.items() if len(options) > 1}


def _sweep(spec: RunSpec) -> str:
    kept = {kind: options for kind, options in spec.options.items() if kind == "task"}
    return repr(spec.model_copy(update={"seed": 0, "control": Control.NONE, "options": kept}))
