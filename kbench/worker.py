"""One process that works through cells: what it needs, what it tells, what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

from kbench.addresses import addresses, result_id
from kbench.compiling import can_compile
from kbench.computing import described, set_up
from kbench.crew import Stopped
from kbench.devices import find_device
from kbench.errors import ArtifactError, KbenchError, Unsupported
from kbench.files import cache_home
from kbench.graph import Stage
from kbench.outcome import Clock, blame, ended, origin, save, scored
from kbench.parts import Parts
from kbench.result import Predictions, Provenance, Result, Status
from kbench.spec import RunSpec, Setting
from kbench.stages import Stages
from kbench.store import Artifacts, Results
from kbench.task import ProbeTask

__all__ = ["Cell", "Events", "Place", "Worker", "impossible", "sharing", "stopped"]


@dataclass(frozen=True)
class Place:
    """Where a grid runs.

    Attributes:
        out: folder of results.
        artifacts: folder of downstream models and plugs.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``auto``; for several processes also
            ``cuda:0,cuda:2``.
        threads: CPU threads of each process; None leaves torch's choice.
        evaluation_batch: examples predicted at once; None for what suits the device.
        deterministic: whether the same work gives the same bits on a GPU.
        compiled: whether frozen networks run as compiled code.
    """

    out: Path
    artifacts: Path
    device: str = "auto"
    threads: int | None = None
    evaluation_batch: int | None = None
    deterministic: bool = True
    compiled: bool = False

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
    def artifacts(self) -> set[tuple[str, str]]:
        """Kind and address of all that has to be there, or be made, for the run."""
        kinds = {"model": [self.model], "plug": [self.plug, self.start]}
        return {(kind, key) for kind, keys in kinds.items() for key in keys if key}

    @property
    def needs(self) -> set[str]:
        """The addresses of these alone."""
        return {key for _, key in self.artifacts}


@dataclass(frozen=True)
class Events:
    """What a runner tells while it works; every hook may be left out."""

    step: Callable[[str, int, int], None] | None = None
    finished: Callable[[Cell, Result], None] | None = None
    said: Callable[[str], None] | None = None


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


def stopped(cell: Cell, place: Place, end: Stopped) -> Result:
    """Stores the result of a run whose process came to no end of its own, or a better one."""
    began = Clock(datetime.now(UTC) - timedelta(seconds=end.seconds), perf_counter() - end.seconds)
    result = ended(cell.id, cell.spec, Status.FAILED, end.reason)
    addresses = {"model": cell.model, "plug": cell.plug}
    comes = origin(cell.spec, began, {"device": place.device}, {}, addresses)
    return save(Results(place.out), result.model_copy(update={"provenance": comes}))


class Worker:
    """Runs cells one after another in this process, keeping what they share in memory.

    Args:
        place: where.
        events: told of steps.
        artifacts: the store, if it is not just the folder of the place.
    """

    def __init__(self, place: Place, events: Events, artifacts: Artifacts | None = None) -> None:
        self.place = place
        device = find_device(place.device)
        set_up(device, place.threads, place.deterministic)
        store = artifacts or Artifacts(place.artifacts)
        self._results = Results(place.out)
        self._stages = Stages(
            store,
            device,
            events.step,
            evaluation_batch=place.evaluation_batch,
            compiled=place.compiled and can_compile(device),
        )
        self._shared: dict[str, Parts] = {}

    def run(self, cell: Cell) -> Result:
        """Runs a cell and stores its result, whatever happens but an interruption."""
        with suppress(KbenchError):  # what lies there in the way is told when it is written to
            # Another process on this store may have been faster.
            if stored := self._results.finished(cell.id):
                return stored
        return save(self._results, *self.outcome(cell))

    def outcome(self, cell: Cell) -> tuple[Result, Predictions | None]:
        """Runs a cell; returns its result and predictions, and stores neither."""
        clock = Clock()
        predictions: Predictions | None = None
        try:
            parts = self._parts(cell)
            result, predictions = scored(cell.id, parts, self._stages.evaluate(parts))
        except (Exception, SystemExit) as error:  # a plugin may fail in any way; the grid goes on
            result = self._failed(cell, error)
        return result.model_copy(update={"provenance": self._origin(cell, clock)}), predictions

    def make(self, stage: Stage, cell: Cell) -> Result | None:
        """Makes what a cell needs of a stage; returns None, or the result if that is its end."""
        clock = Clock()
        try:
            self._stages.make(stage, self._parts(cell))
        except (Exception, SystemExit) as error:
            result = self._failed(cell, error)
            return result.model_copy(update={"provenance": self._origin(cell, clock)})
        return None

    def ended(self, cell: Cell, status: Status, reason: str) -> Result:
        """Returns the result of a cell that something before it has ended."""
        result = ended(cell.id, cell.spec, status, reason)
        return result.model_copy(update={"provenance": self._origin(cell, Clock())})

    def _parts(self, cell: Cell) -> Parts:
        if cell.problem is not None:
            raise cell.problem
        parts = sharing(cell.spec, self._shared)
        if reason := impossible(parts):
            raise Unsupported(reason)
        if result_id(parts) != cell.id:
            raise ArtifactError(
                f"{cell.spec.title}: what this process reads is not what was planned; data, "
                "backbone, knowledge base and kbench must be the same on all machines, and stay "
                "the same while a grid runs"
            )
        return parts

    def _failed(self, cell: Cell, error: BaseException) -> Result:
        # A run that broke off may have left a model in memory in any state.
        self._stages.forget()
        if isinstance(error, Unsupported):
            return ended(cell.id, cell.spec, Status.SKIPPED, str(error))
        return ended(cell.id, cell.spec, Status.FAILED, blame(error))

    def _origin(self, cell: Cell, clock: Clock) -> Provenance:
        parts = sharing(cell.spec, self._shared) if cell.problem is None else None
        made: dict[str, str | None] = {"model": None, "plug": None}
        digests: dict[str, str | None] = {}
        if parts:
            with suppress(Exception):  # what cannot be read any more is no reason to say nothing
                # The addresses that the id is made of: a model that nobody trains has one too.
                made, digests = addresses(parts), _digests(parts)
        hardware = described(self._stages.device, self._stages.compiled)
        return origin(cell.spec, clock, hardware, digests, made)


def impossible(parts: Parts) -> str:
    """Returns why a run cannot be by design, as far as that is seen from its parts; else empty."""
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
