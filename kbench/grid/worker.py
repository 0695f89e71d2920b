"""One process that works through cells: what it needs, what it tells, what it leaves."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import perf_counter

from kbench.encoding.computing import described, set_up
from kbench.errors import ArtifactError, InputError, KbenchError, Unsupported
from kbench.grid.devices import find_device
from kbench.grid.plan import Cell, Events, Place, refused
from kbench.grid.pool import Stopped
from kbench.model.compiling import can_compile
from kbench.model.placing import check_spread
from kbench.parts.run_parts import PartLoader, Parts, impossible
from kbench.pipeline.addresses import addresses, result_id
from kbench.pipeline.record import Clock, blame, ended, origin, result_of, save, trace
from kbench.pipeline.session import Session
from kbench.pipeline.stages import Stage, evaluate, make
from kbench.store import Artifacts, Predictions, Provenance, Result, Results, Status

__all__ = ["Worker", "stopped"]


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
        if place.spread:
            check_spread()
        device = find_device("cuda:0" if place.spread else place.device)
        set_up(device, place.threads, place.deterministic)
        store = artifacts or Artifacts(place.artifacts)
        self._results = Results(place.out)
        self._session = Session(
            store,
            device,
            events.step,
            evaluation_batch=place.evaluation_batch,
            compiled=place.compiled and can_compile(device),
            locality=place.locality,
            spread=place.spread,
        )
        self._loader = PartLoader()

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
            result, predictions = result_of(cell.id, parts, evaluate(self._session, parts))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may fail in any way; the grid goes on
            result = self._failed(cell, error)
        return result.model_copy(update={"provenance": self._origin(cell, clock)}), predictions

    def make(self, stage: Stage, cell: Cell) -> Result | None:
        """Makes what a cell needs of a stage; returns None, or the result if that is its end."""
        clock = Clock()
        try:
            make(self._session, stage, self._parts(cell))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # Rust's panics are none of Python's exceptions
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
        parts = Parts(cell.spec, self._loader)
        if reason := cell.impossible or impossible(parts):
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
        self._session.forget()
        if isinstance(error, Unsupported):
            return ended(cell.id, cell.spec, Status.SKIPPED, str(error))
        if isinstance(error, InputError):
            return refused(cell, error)
        return ended(cell.id, cell.spec, Status.FAILED, blame(error)).tracing(trace(error))

    def _origin(self, cell: Cell, clock: Clock) -> Provenance:
        parts = Parts(cell.spec, self._loader) if cell.problem is None else None
        made: dict[str, str | None] = {"model": None, "plug": None}
        digests: dict[str, str | None] = {}
        if parts:
            with suppress(Exception):  # what cannot be read any more is no reason to say nothing
                # The addresses that the id is made of: a model that nobody trains has one too.
                made, digests = addresses(parts), _digests(parts)
        hardware = described(self._session.device, self._session.compiled)
        comes = origin(cell.spec, clock, hardware, digests, made)
        if parts:
            with suppress(Exception):
                said = {"names": _names(parts), "defaults": parts.defaults}
                comes = comes.model_copy(update=said)
        return comes


def _digests(parts: Parts) -> dict[str, str | None]:
    return {
        "data": parts.task.digest,
        "training": parts.task.training_digest,
        "backbone": parts.backbone.digest,
        "knowledge": parts.base_knowledge.digest if parts.base_knowledge else None,
    }


def _names(parts: Parts) -> dict[str, str]:
    """What data call themselves; of a folder only its own name, which is no path."""
    name, data = parts.task.card.name, parts.spec.data
    folder = data.rstrip("/").rsplit("/", maxsplit=1)[-1] if data else ""
    named = {"task": f"{parts.spec.task}:{name}" if name else "", "data": folder}
    return {key: value for key, value in named.items() if value}
