"""Running a grid for a person at a terminal: progress, one line a run, and the table."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from kbench.cli.layout import Column, show
from kbench.cli.messages import say
from kbench.cli.render import print_table
from kbench.cli.terminal import Console
from kbench.grid import runner
from kbench.grid.estimate import GpuHours, Machine, WorkKind
from kbench.grid.executor import Executor
from kbench.grid.grids import Grid
from kbench.grid.plan import CANNOT, Cell, Events, Place
from kbench.grid.workload import memories, works
from kbench.parts.run_parts import PartLoader
from kbench.results.choice import shown_of
from kbench.results.notes import left_out, silent, unknown_words
from kbench.results.tables import leaders, rows
from kbench.spec import Control, RunSpec
from kbench.store import Artifacts, Result, Results, Status

__all__ = ["dry_run", "run"]

_MARKS = {
    Status.OK: ("ok", "green"),
    Status.SKIPPED: ("skipped", "yellow"),
    Status.REFUSED: ("REFUSED", "bold red"),
}


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
            value = {"id": cell.id, "plan": cell.standing, "spec": cell.spec.model_dump()}
            print(json.dumps(value, default=str))
        memory = [{"backbone": b, "held": w, **vars(m)} for (b, w), m in held.items()]
        print(json.dumps({"estimate": estimate.as_json() | {"memory": memory}}))
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
    fail_fast: bool,
    as_json: bool,
    settings: Sequence[str] = (),
    narrowed: Collection[str] = (),
) -> int:
    """Runs grids and prints their table; returns the exit status.

    Args:
        grids: what to run.
        place: where results go, and how to compute.
        executor: who works through the plan.
        fail_fast: stop at the first run that fails.
        as_json: print results as JSON Lines instead of the table.
        settings: of ``--set``; one that no run has a use for is told, as of a grid file's options.
        narrowed: the axes that the command line chooses of.
    """
    specs = runner.resolve(*grids)
    _say_unused(grids, specs, settings, narrowed)
    cells = runner.plan(specs, place)
    messages = Console(stderr=True)
    todo = [cell for cell in cells if not cell.done and cell.standing != CANNOT]
    stored = executor.stored(place)
    models = {cell.model for cell in todo if cell.model and ("model", cell.model) not in stored}
    plugs = {cell.plug for cell in todo if cell.plug and ("plug", cell.plug) not in stored}
    messages.print(f"{_work(cells, len(models), len(plugs))}; seeds {_seeds(cells)}")
    for line in _reasons(cells):
        messages.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    started = time.perf_counter()
    swept = _swept(cell.spec for cell in cells)
    with _shown(messages, len(todo), swept) as events:
        results = runner.run(cells, place, executor=executor, fail_fast=fail_fast, events=events)
    store = Results(place.out)
    if as_json:
        for result in results:
            print(json.dumps(result.as_json(), ensure_ascii=False))
    else:
        # What was refused for its input is no result, and told above.
        kept = [result for result in results if result.status != Status.REFUSED]
        shown, hidden = shown_of(rows(kept, store, beside=store))
        for line in hidden:
            messages.print(line, markup=False, highlight=False, soft_wrap=True)
        if shown or not hidden:
            print_table(shown, Console(), leaders(shown, store))
    seconds = time.perf_counter() - started
    ended = {result.status for result in results}
    count = sum(result.status != Status.REFUSED for result in results)
    messages.print(f"{count} results in {place.out} ({seconds:.1f} s)", highlight=False)
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


@contextmanager
def _shown(console: Console, total: int, swept: Collection[str]) -> Iterator[Events]:
    """Yields events that draw two bars, and print a line for each finished run.

    Of a variant of what is ``swept`` the score on dev is told, for it may be no more than one of
    those that dev does not choose.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not total) as bars:
        grid = bars.add_task("runs", total=total)
        current = bars.add_task("", total=None, visible=False)

        def step(what: str, done: int, steps: int) -> None:
            bars.update(current, description=what, completed=done, total=steps, visible=True)

        def finished(cell: Cell, result: Result) -> None:
            bars.update(current, visible=False)
            bars.advance(grid)
            bars.console.print(_line(result, _sweep(cell.spec) in swept), soft_wrap=True)

        def said(line: str) -> None:
            bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield Events(step, finished, said)


def _line(result: Result, variant: bool) -> Text:
    word, style = _MARKS.get(result.status, ("FAILED", "bold red"))
    line = Text(f"{word:<8}", style=style)
    line.append(result.spec.label, style="default")
    if variant and result.dev is not None:
        line.append(f"  {100 * result.dev:.1f} on dev", style="bold")
    elif not variant and result.score:
        line.append(f"  {100 * result.score.value:.1f}", style="bold")
    for note in filter(None, (left_out(result), unknown_words(result), silent(result))):
        line.append(f"  {note}", style="italic")
    if result.reason:
        line.append(f"  {result.reason}", style="italic")
    return line
