"""Runs on a Ray cluster: every stage a task, after those that it needs; what is lost is repeated.

Ray owns the order (a task waits for what its arguments are made of), the machines and cards, and
the retries. kbench gives it the steps of the plan, and takes the results back to the driver. What
a task has made lies in the store that all nodes share, so that no node is needed once it is done.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from kbench.errors import KbenchError, UsageError, first_line, one_line
from kbench.grid.executor import Executor, Setup
from kbench.grid.executors.ray_cluster import Cluster, TaskReport, ray_module
from kbench.grid.executors.ray_step import Desk, Done, opened, perform
from kbench.grid.executors.remote_store import RemoteArtifacts, is_url, open_url
from kbench.grid.plan import Cell, Events, Place
from kbench.grid.pool import Stopped
from kbench.grid.steps import Step, steps
from kbench.grid.worker import Worker, stopped
from kbench.pipeline.record import save
from kbench.pipeline.stages import Stage
from kbench.store import Artifacts, Result, Results

__all__ = ["Ray"]

_LOOK = 2.0
"""Seconds between two looks at nodes and reports."""


@dataclass(frozen=True)
class _Need:
    """What a stage asks for."""

    cpus: float
    gpus: float


class Ray(Executor):
    """Runs the stages of a plan as tasks on a Ray cluster.

    Options:
        address: of the cluster, see :class:`Cluster`.
        store: path or URL of downstream models and plugs, the same for all nodes.
        cpus, gpus: that a stage asks for, with ``.tune``, ``.fit`` or ``.evaluate`` those of one
            stage. It computes with as many threads as CPUs, or as the place says. If nothing is
            said of ``gpus``: one if the cluster has any and the device is not the CPU.
        retries: how often a task is repeated whose process or node is lost.
    """

    name = "ray"
    defaults: ClassVar[Mapping[str, str]] = {
        "address": "",
        "store": "",
        "retries": "3",
        "cpus": "1",
        "cpus.tune": "",
        "cpus.fit": "",
        "cpus.evaluate": "",
        "gpus": "",
        "gpus.tune": "",
        "gpus.fit": "",
        "gpus.evaluate": "",
    }

    def __init__(self, setup: Setup | None = None) -> None:
        super().__init__(setup)
        ray_module()
        if self.setup.jobs > 1 or self.setup.limits:
            raise UsageError(
                "--jobs, --time-limit and --memory-limit are for --executor local; on a cluster, "
                "-o cpus= and -o gpus= of a stage decide how many run at once"
            )
        if self.options["address"].startswith("ray://"):
            raise UsageError(
                "Ray's client (ray://) is not supported; run the command on a node of the cluster "
                "(-o address=auto), or submit it with `ray job submit`"
            )
        self._retries = int(self._number("retries"))
        for key in ("cpus", "gpus"):
            for stage in Stage:
                self._asked(key, stage)

    def stored(self, place: Place) -> Artifacts:
        return opened(self._store(place))

    def _store(self, place: Place) -> str:
        given = self.options["store"]
        return given if is_url(given) else str(Path(given or place.artifacts).absolute())

    def _number(self, key: str) -> float:
        try:
            number = float(self.options[key])
        except ValueError:
            number = -1.0
        if number < 0:
            raise UsageError(f"-o {key}={self.options[key]}: expected a number, 0 or more")
        return number

    def _asked(self, resource: str, stage: Stage) -> float | None:
        keys = (f"{resource}.{stage.resource}", resource)
        return next((self._number(key) for key in keys if self.options[key]), None)

    def _need(self, stage: Stage, device: str, cluster: Cluster) -> _Need:
        gpus = self._asked("gpus", stage)
        if gpus is None:
            wanted = device == "cuda" or (device == "auto" and cluster.total("GPU") > 0)
            gpus = float(wanted)
        return _Need(self._asked("cpus", stage) or 0.0, gpus)

    def work(
        self, cells: Sequence[Cell], place: Place, events: Events
    ) -> Generator[tuple[Cell, Result], None, None]:
        if place.device not in ("auto", "cpu", "cuda", "mps"):
            raise UsageError(
                f"--device {place.device}: Ray chooses the card of a stage; give --device cuda"
            )
        here = Worker(replace(place, device="cpu", compiled=False), Events())
        waiting = []
        for cell in cells:
            if cell.problem is not None or cell.impossible:
                yield cell, here.run(cell)  # says why, and computes nothing
            else:
                waiting.append(cell)
        if waiting:
            with Cluster.joined(self.options["address"]) as cluster:
                yield from self._on(cluster, waiting, place, events)

    def _on(
        self, cluster: Cluster, cells: Sequence[Cell], place: Place, events: Events
    ) -> Generator[tuple[Cell, Result], None, None]:
        store = self._store(place)
        if cluster.workers > 1 and not self.options["store"]:
            raise UsageError(
                f"the cluster has {cluster.workers} nodes, which need one store: give -o store= a "
                "path that all of them see, or a URL such as s3://bucket/folder"
            )
        stored = self.stored(place)
        wanted = {need for cell in cells for need in cell.artifacts}
        if isinstance(stored, RemoteArtifacts):
            stored.offer(wanted)
        todo = steps(cells, {need for need in wanted if need in stored})
        needs = {stage: self._need(stage, place.device, cluster) for stage in Stage}
        say = events.said or (lambda _: None)
        for line in _greeting(cluster, todo, needs):
            say(line)
        with _marked(store) as mark:
            desk = Desk(place, store, mark, str(Path.cwd()))
            tasks = _Tasks(cluster, self._submitted(cluster, todo, needs, desk))
            for step, done in tasks.ended(events):
                if step.stage == Stage.EVALUATE:
                    yield step.cell, _kept(step.cell, place, done)

    def _submitted(
        self,
        cluster: Cluster,
        todo: Sequence[Step],
        needs: Mapping[Stage, _Need],
        desk: Desk,
    ) -> dict[Any, Step]:
        """Gives Ray all steps at once: it starts each when those before it are done."""
        task = ray_module().remote(_task)
        refs: dict[str, Any] = {}
        for step in todo:
            need = needs[step.stage]
            own = replace(desk, place=_there(desk.place, need))
            slim = replace(step, cell=replace(step.cell, stored=None))
            refs[step.key] = task.options(
                name=step.title,
                num_cpus=need.cpus,
                num_gpus=need.gpus,
                max_retries=self._retries,
            ).remote(own, slim, cluster.board, *(refs[key] for key in step.after))
        return {refs[step.key]: step for step in todo}


def _task(desk: Desk, step: Step, board: Any, *before: Done) -> Done:
    """What Ray calls on a node."""
    context, host = ray_module().get_runtime_context(), socket.gethostname()
    node, worker = context.get_node_id(), context.get_worker_id()

    def tell(what: str, done: int, total: int) -> None:
        board.tell.remote(step.key, TaskReport(node, worker, host, what, done, total))

    return perform(desk, step, tell, before)


def _there(place: Place, need: _Need) -> Place:
    """The place of a task: its device by the cards it gets, its threads by the CPUs."""
    device = place.device if place.device == "mps" else "cuda" if need.gpus else "cpu"
    return replace(place, device=device, threads=place.threads or max(1, int(need.cpus)))


def _kept(cell: Cell, place: Place, done: Done | Stopped) -> Result:
    """Stores what came of a run on the driver."""
    if isinstance(done, Stopped):
        return stopped(cell, place, done)
    result, predictions = done
    assert result is not None
    return save(Results(place.out), result, predictions)


def _greeting(
    cluster: Cluster, todo: Sequence[Step], needs: Mapping[Stage, _Need]
) -> Iterator[str]:
    yield (
        f"Ray cluster {cluster.address}: {cluster.workers} nodes, {cluster.total('CPU'):g} CPUs, "
        f"{cluster.total('GPU'):g} GPUs; {len(todo)} stages"
    )
    for resource, wanted in (
        ("CPU", max(needs[step.stage].cpus for step in todo)),
        ("GPU", max(needs[step.stage].gpus for step in todo)),
    ):
        if wanted > cluster.most(resource):
            yield (
                f"no node has {wanted:g} {resource}s (the most is {cluster.most(resource):g}): "
                f"stages wait until one joins, or ask for less with -o {resource.lower()}s="
            )


@contextmanager
def _marked(store: str) -> Iterator[str]:
    """Puts a file into the store, by which tasks see that it is the same one."""
    system, root = open_url(store)
    mark = f".driver-{uuid4().hex}"
    try:
        system.makedirs(root, exist_ok=True)
        system.pipe_file(f"{root}/{mark}", b"")
    except Exception as cause:  # every kind of store has errors of its own
        raise UsageError(f"store {store} cannot be written ({one_line(cause)})") from None
    try:
        yield mark
    finally:
        with suppress(Exception):
            system.rm_file(f"{root}/{mark}")


class _Tasks:
    """The tasks of a grid on their way."""

    def __init__(self, cluster: Cluster, waiting: dict[Any, Step]) -> None:
        self._cluster, self._waiting = cluster, waiting
        self._all, self._began, self._looked = len(waiting), time.monotonic(), 0.0
        self._repeated = 0

    def ended(self, events: Events) -> Iterator[tuple[Step, Done | Stopped]]:
        """Yields each step with what came of it; cancels what is left when closed."""
        ray = ray_module()
        try:
            while self._waiting:
                ready, _ = ray.wait([*self._waiting], timeout=_LOOK)
                for ref in ready:
                    yield self._waiting.pop(ref), self._got(ref)
                self._look(events)
            self._tell(events)
        finally:
            for ref in self._waiting:
                with suppress(ray.exceptions.RayError):
                    ray.cancel(ref, force=True)

    def _got(self, ref: Any) -> Done | Stopped:
        ray = ray_module()
        try:
            done: Done = ray.get(ref)
        except ray.exceptions.RayError as error:
            # A task that waits for one that failed fails with it, and so tells its cause.
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
            if isinstance(cause, KbenchError):  # of the machine, not of any run
                raise cause from None
            return Stopped(_reason(cause, ray.exceptions.RayError), self._seconds)
        return done

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _look(self, events: Events) -> None:
        """Tells what is going on, now and then."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        at_work = self._tell(events)
        if events.step:
            events.step(*_summary(at_work, self._all - len(self._waiting), self._all))

    def _tell(self, events: Events) -> list[TaskReport]:
        """Says what was lost since it was last asked for; returns what is at work."""
        say = events.said or (lambda _: None)
        for name in self._cluster.lost():
            say(f"lost: node {name}; what it was at is done again elsewhere")
        reports = self._cluster.reports()
        if reports is None:
            return []
        for before, now in reports.again[self._repeated :]:
            say(f"again: {now.what} on {now.where}, after its process on {before.where} was lost")
        self._repeated = len(reports.again)
        return [reports.last[s.key] for s in self._waiting.values() if s.key in reports.last]


def _reason(cause: BaseException, lost: type[BaseException]) -> str:
    text = f"{type(cause).__name__}: {first_line(cause)}"
    if isinstance(cause, lost):
        return f"its process or node was lost more often than it is repeated ({text})"
    return f"its task broke off ({text})"


def _summary(reports: Sequence[TaskReport], done: int, total: int) -> tuple[str, int, int]:
    """One line for the bar: how many stages are done, and what the others are at."""
    busy = [f"{r.what} {r.done}/{r.total}" if r.total else r.what for r in reports]
    more = f" +{len(busy) - 2} more" if len(busy) > 2 else ""
    nodes = len({report.node for report in reports})
    what = f"stages ({nodes} nodes: {'; '.join(busy[:2])}{more})" if busy else "stages"
    return what, done, total
