"""Running a grid for a person at a terminal: progress, one line a run, and the table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from kbench.cli.render import print_table
from kbench.cli.terminal import Console
from kbench.grid import runner
from kbench.grid.estimate import GpuHours, Machine, WorkKind
from kbench.grid.executor import Executor, Setup, find_executor
from kbench.grid.grids import Grid
from kbench.grid.pool import Limits
from kbench.grid.workload import works
from kbench.parts.run_parts import Parts
from kbench.results.tables import leaders, rows
from kbench.store import Artifacts, Result, Results, Status

__all__ = ["Mode", "dry_run", "run"]

_MARKS = {Status.OK: ("ok", "green"), Status.SKIPPED: ("skipped", "yellow")}


@dataclass(frozen=True)
class Mode:
    """How to run: see the options of `kbench run`."""

    device: str = "auto"
    threads: int | None = None
    evaluation_batch: int | None = None
    deterministic: bool = True
    compiled: bool = False
    jobs: int = 1
    executor: str = "local"
    options: Mapping[str, str] = field(default_factory=dict)
    time_limit: float | None = None
    memory_limit: float | None = None
    fail_fast: bool = False
    as_json: bool = False

    def place(self, out: Path) -> runner.Place:
        """Returns where and how to compute."""
        return replace(
            runner.Place.default(out, self.device),
            threads=self.threads,
            evaluation_batch=self.evaluation_batch,
            deterministic=self.deterministic,
            compiled=self.compiled,
        )

    def worker(self) -> Executor:
        """Makes the executor.

        Raises:
            UsageError: there is none of this name, or it cannot do what is asked for.
        """
        memory = None if self.memory_limit is None else int(self.memory_limit)
        limits = Limits(self.time_limit, memory)
        return find_executor(self.executor)(Setup(self.jobs, limits, self.options))


def dry_run(grids: Sequence[Grid], out: Path, peak: float, as_json: bool) -> int:
    """Prints the plan: every run, how it stands, what has to be made for it, and what that costs.

    Nothing is downloaded, and data that are not there yet are no error.
    """
    place = runner.Place.default(out)
    shared: dict[str, Parts] = {}
    cells = runner.plan(runner.resolve(*grids), place, offline=True, shared=shared)
    made = works(
        cells,
        lambda cell: runner.sharing(cell.spec, shared, download=False),
        Artifacts(place.artifacts),
    )
    estimate = GpuHours.of(made, Machine(peak))
    if as_json:
        for cell in cells:
            value = {"id": cell.id, "plan": cell.standing, "spec": cell.spec.model_dump()}
            print(json.dumps(value, default=str))
        print(json.dumps({"estimate": estimate.as_json()}))
        return 0
    table = Table(box=None, header_style="bold")
    for name in ("plan", "run", "result"):
        table.add_column(name, overflow="fold")
    for cell in cells:
        table.add_row(cell.standing, Text(cell.spec.title), cell.id[:12])
    console = Console()
    console.print(table)
    models = sum(work.stage == WorkKind.TUNING for work in made)
    plugs = sum(work.stage in (WorkKind.GENERAL, WorkKind.TASK) for work in made)
    missing = dict.fromkeys(what for cell in cells for what in cell.missing)
    lines = [_work(cells, models, plugs), *(f"not there yet: {what}" for what in missing)]
    for line in (*lines, *estimate.lines()):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def _work(cells: Sequence[runner.Cell], models: int, plugs: int) -> str:
    done = sum(cell.done for cell in cells)
    return (
        f"{len(cells)} runs: {done} stored, {len(cells) - done} to run; "
        f"to train: {models} downstream models, {plugs} plugs"
    )


def run(grids: Sequence[Grid], out: Path, mode: Mode) -> int:
    """Runs grids and prints their table; returns the exit status."""
    place, executor = mode.place(out), mode.worker()
    cells = runner.plan(runner.resolve(*grids), place)
    messages = Console(stderr=True)
    todo = [cell for cell in cells if not cell.done]
    stored = executor.stored(place)
    models = {cell.model for cell in todo if cell.model and ("model", cell.model) not in stored}
    plugs = {cell.plug for cell in todo if cell.plug and ("plug", cell.plug) not in stored}
    messages.print(f"{_work(cells, len(models), len(plugs))}; seeds {_seeds(cells)}")
    started = time.perf_counter()
    with _shown(messages, len(todo)) as events:
        results = runner.run(
            cells, place, executor=executor, fail_fast=mode.fail_fast, events=events
        )
    store = Results(out)
    if mode.as_json:
        for result in results:
            print(json.dumps(result.as_json(), ensure_ascii=False))
    else:
        shown = rows(results, store)
        print_table(shown, Console(), leaders(shown, store))
    seconds = time.perf_counter() - started
    messages.print(f"{len(results)} results in {out} ({seconds:.1f} s)", highlight=False)
    return 1 if any(result.status == Status.FAILED for result in results) else 0


def _seeds(cells: Sequence[runner.Cell]) -> str:
    return ", ".join(str(seed) for seed in sorted({cell.spec.seed for cell in cells}))


@contextmanager
def _shown(console: Console, total: int) -> Iterator[runner.Events]:
    """Yields events that draw two bars, and print a line for each finished run."""
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

        def finished(cell: runner.Cell, result: Result) -> None:
            bars.update(current, visible=False)
            bars.advance(grid)
            bars.console.print(_line(result), soft_wrap=True)

        def said(line: str) -> None:
            bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield runner.Events(step, finished, said)


def _line(result: Result) -> Text:
    word, style = _MARKS.get(result.status, ("FAILED", "bold red"))
    line = Text(f"{word:<8}", style=style)
    line.append(result.spec.title, style="default")
    score = result.score
    if score:
        line.append(f"  {100 * score.value:.1f}", style="bold")
    if result.reason:
        line.append(f"  {result.reason}", style="italic")
    return line
