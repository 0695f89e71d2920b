"""Running a grid for a person at a terminal: progress, one line a run, and the table."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from kbench.cli.layout import Column, show
from kbench.cli.messages import say, say_json
from kbench.cli.render import print_table
from kbench.cli.telling import QUIET, Teller, showing
from kbench.cli.terminal import Console
from kbench.grid.plan import Cell
from kbench.interface.asking import Asked, Means
from kbench.interface.working import planned, prepared, reasons
from kbench.results.shown import shown
from kbench.spec import Control, RunSpec
from kbench.store import Results, Status

__all__ = ["dry_run", "run"]


def dry_run(asked: Asked, out: Path, tflops: float, as_json: bool) -> int:
    """Prints the plan: every run, how it stands, what has to be made for it, and what that costs.

    Nothing is downloaded, and data that are not there yet are no error. Returns the exit status:
    2 where a run would be refused for its input.
    """
    plan = planned(asked, out, tflops)
    status = 2 if any(cell.refusal for cell in plan.cells) else 0
    _say_unused(plan.notes)
    if as_json:
        for cell in plan.cells:
            spec = cell.spec.model_dump(mode="json")
            say_json({"id": cell.id, "plan": cell.standing, "spec": spec})
        memory = [{"backbone": b, "held": w, **vars(m)} for (b, w), m in plan.memory.items()]
        say_json({"estimate": plan.estimate.as_json() | {"memory": memory}})
        return status
    console = Console()
    columns = [
        Column("plan", [cell.standing for cell in plan.cells], text=True),
        Column("run", [cell.spec.label for cell in plan.cells], text=True, whole=True),
        Column("result", [cell.id[:12] for cell in plan.cells], rank=1),
    ]
    show(console, columns)
    for line in plan.lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return status


def run(
    asked: Asked,
    means: Means,
    *,
    teller: Teller,
    fail_fast: bool,
    as_json: bool,
    debug: bool = False,
) -> int:
    """Runs grids and prints their table; returns the exit status.

    Args:
        asked: what to run.
        means: where results go, and how to compute.
        teller: says what goes on.
        fail_fast: stop at the first run that fails.
        as_json: print results as JSON Lines instead of the table.
        debug: say the whole trace of a run that fails.
    """
    todo = prepared(asked, means)
    cells, place = todo.cells, todo.place
    _say_unused(todo.notes)
    teller.say(f"{todo.line}; seeds {_seeds(cells)}")
    for line in reasons(cells):
        teller.say(line, style="yellow")
    started = time.perf_counter()
    swept = _swept(cell.spec for cell in cells)
    bars = showing(teller, len(todo.left), lambda cell: _sweep(cell.spec) in swept, debug)
    with bars as events:
        results = todo.run(events, fail_fast=fail_fast)
    store = Results(place.out)
    if as_json:
        for result in results:
            say_json(result.as_json())
    else:
        # What was refused for its input is no result, and told above.
        kept = [result for result in results if result.status != Status.REFUSED]
        found = shown(store, kept)
        for line in found.hidden:
            teller.say(line)
        if found.rows or not found.hidden:
            print_table(found.rows, Console(), found.best)
    seconds = time.perf_counter() - started
    ended = {result.status for result in results}
    if traced := [result for result in results if result.trace and not debug]:
        first = place.out / traced[0].id / "trace.txt"
        more = f" and {len(traced) - 1} more" if len(traced) > 1 else ""
        teller.say(f"where it failed: {first}{more} (--debug prints it)", level=QUIET)
    count = sum(result.status != Status.REFUSED for result in results)
    teller.say(f"{count} results in {place.out} ({seconds:.1f} s)")
    return 2 if Status.REFUSED in ended else 1 if Status.FAILED in ended else 0


def _say_unused(notes: Sequence[str]) -> None:
    for line in notes:
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
