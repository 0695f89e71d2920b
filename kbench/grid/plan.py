"""A planned run, where it runs, and what is told of it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kbench.data.files import cache_home
from kbench.errors import KbenchError, Unsupported, one_line
from kbench.spec import RunSpec
from kbench.store import Result, Status

__all__ = ["CANNOT", "Cell", "Events", "Place", "refused"]

CANNOT = "cannot run"
"""How a run stands that cannot be: by design, or for what is wrong with its input."""


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
        locality: whether it is measured how far plugs move what a model says.
        spread: whether one backbone is parted among all GPUs.
    """

    out: Path
    artifacts: Path
    device: str = "auto"
    threads: int | None = None
    evaluation_batch: int | None = None
    deterministic: bool = True
    compiled: bool = False
    locality: bool = False
    spread: bool = False

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
        turn: number of the grid, of those of a file, that asks for it: where runs may be made in
            any order, those of an earlier one come first.
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
    turn: int = 0

    @property
    def done(self) -> bool:
        """Whether a good result is stored; failed and skipped runs are tried again."""
        return self.stored is not None and self.stored.status == Status.OK

    @property
    def refusal(self) -> KbenchError | None:
        """What is wrong with its input, so that it is not even tried; None for other problems."""
        return None if isinstance(self.problem, Unsupported) else self.problem

    @property
    def standing(self) -> str:
        """How it stands, in a word or two."""
        if self.done:
            return "stored"
        if self.problem is not None or self.impossible:
            return CANNOT
        if self.missing:
            return "not yet"
        return "run again" if self.stored else "run"

    @property
    def obstacle(self) -> str:
        """Why it cannot run; empty if it can, as far as that is known."""
        return self.impossible or (one_line(self.problem) if self.problem else "")

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
    """What a runner tells while it works; every hook may be left out.

    Attributes:
        step: called after a step of a stage, with its title, steps done and steps in all.
        finished: called when a run has ended.
        said: called with what else there is to say.
        beside: called as ``step`` is, where several stages go on at once: no bar can show them.
            The number of the process comes first, for stages of two may have the same title.
    """

    step: Callable[[str, int, int], None] | None = None
    finished: Callable[[Cell, Result], None] | None = None
    said: Callable[[str], None] | None = None
    beside: Callable[[int, str, int, int], None] | None = None


def refused(cell: Cell, error: KbenchError) -> Result:
    """Returns what is told of a run whose input cannot be used; it is never stored."""
    return Result(id=cell.id, status=Status.REFUSED, reason=one_line(error), spec=cell.spec)
