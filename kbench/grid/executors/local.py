"""Runs on this machine: in this process, or in several that may die of what they run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence, Set
from contextlib import closing
from dataclasses import replace
from functools import partial

from kbench.grid.devices import assigned
from kbench.grid.executor import Executor
from kbench.grid.plan import Cell, Events, Place
from kbench.grid.pool import Pool, Stopped, Tell, Told
from kbench.grid.worker import Worker, stopped
from kbench.store import Artifacts, Result
from kbench.store.folder import check_writable

__all__ = ["Local"]


class Local(Executor):
    """Runs cell by cell on this machine.

    With several ``jobs`` or with ``limits``, runs are in processes of their own, and one that
    dies is a failed run. GPUs are handed round among the processes.
    """

    name = "local"

    def work(
        self, cells: Sequence[Cell], place: Place, events: Events
    ) -> Generator[tuple[Cell, Result], None, None]:
        stored = self.stored(place)
        needs = {("model", cell.model) for cell in cells if cell.model}
        needs |= {("plug", cell.plug) for cell in cells if cell.plug}
        if any(need not in stored for need in needs):
            check_writable(place.artifacts, Artifacts.instead)
        if self.setup.jobs > 1 or self.setup.limits:
            yield from self._apart(cells, place, events)
            return
        worker = Worker(place, events)
        for cell in cells:
            yield cell, worker.run(cell)

    def _apart(
        self, cells: Sequence[Cell], place: Place, events: Events
    ) -> Generator[tuple[Cell, Result], None, None]:
        jobs = self.setup.jobs
        for seat in range(jobs):
            assigned(place.device, seat, jobs)  # a device that is not there is told once, here
        threads = place.threads
        if threads is None and jobs > 1:
            threads = max(1, (os.cpu_count() or 1) // jobs)
        waiting, made = list(cells), set[str]()

        def take(running: Sequence[Cell]) -> Cell | None:
            if not waiting:
                return None
            cell = _next(waiting, running, made)
            waiting.remove(cell)
            return cell

        tell = events.beside if jobs > 1 else _alone(events)
        make = partial(_worker, replace(place, threads=threads), jobs)
        pool: Pool[Cell, Result] = Pool(make, jobs, self.setup.limits, tell)
        with closing(pool.work(take)) as ends:
            for cell, end in ends:
                made |= cell.needs
                yield cell, stopped(cell, place, end) if isinstance(end, Stopped) else end


def _alone(events: Events) -> Told | None:
    """What is told of the steps of the only process: nobody asks which."""
    step = events.step
    return step and (lambda _, *said: step(*said))


def _worker(place: Place, jobs: int, seat: int, tell: Tell) -> Callable[[Cell], Result]:
    """What a process of its own does with a cell."""
    device = assigned(place.device, seat, jobs)
    return Worker(replace(place, device=device), Events(step=tell)).run


def _next(waiting: Sequence[Cell], running: Iterable[Cell], made: Set[str]) -> Cell:
    """Chooses a run that need not wait for what another is making; else the first.

    Of those one of the grid that stands first in its file, and of these the one that makes what
    most others wait for, so that little is left to wait for in the end; the first of equals.
    """
    making = {key for cell in running for key in cell.needs} - made
    wanted = Counter(key for cell in waiting for key in cell.needs - made)
    free = [cell for cell in waiting if not cell.needs & making]

    def place(cell: Cell) -> tuple[int, int]:
        return -cell.turn, sum(wanted[key] for key in cell.needs)

    return max(free, key=place, default=waiting[0])
