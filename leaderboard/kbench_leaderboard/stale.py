"""Which results would come out otherwise today: a part of them has another revision here.

A revision is raised where the same inputs would give other weights or predictions, so a row of an
earlier one is no error: it says what was so, and waits for being run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from kbench.parts.find import revisions
from kbench.pipeline.revision import ENGINE_REVISION
from kbench.store import Result

__all__ = ["Stale", "stale"]


@dataclass(frozen=True)
class Stale:
    """A result of earlier revisions.

    Attributes:
        id: of the result.
        run: in words.
        revisions: what has another revision here: ``engine 4, here 5``.
        command: runs it again.
    """

    id: str
    run: str
    revisions: tuple[str, ...]
    command: str

    @property
    def line(self) -> str:
        """All of it in a line."""
        return f"{self.id} {self.run}: {'; '.join(self.revisions)}; again: {self.command}"


def stale(results: Iterable[Result]) -> Iterator[Stale]:
    """Yields the results of which a part has another revision here than it had for them.

    What is not installed has none here. Of results that do not state the revisions of task, tuning
    and method only that of the engine is known.
    """
    here = cache(_here)
    for result in results:
        made, spec = result.provenance, result.spec
        if made is None:
            continue
        own = here(spec.task, spec.tuning, spec.method)
        told = {"engine": str(made.revision), **made.revisions}
        moved = tuple(
            f"{name if name == 'engine' else f'{name} {getattr(spec, name)}'} of revision "
            f"{told[name]}, here {own[name]}"
            for name in ("engine", "task", "tuning", "method")
            if name in told and name in own and told[name] != own[name]
        )
        if moved:
            yield Stale(result.id, spec.label, moved, spec.command())


def _here(task: str, tuning: str, method: str) -> dict[str, str]:
    """The revisions of the engine and of what is installed of three parts."""
    return {"engine": str(ENGINE_REVISION), **revisions(task, tuning, method)}
