"""What others must keep to who are handed something that a run was made of."""

from __future__ import annotations

from kbench.errors import KbenchError
from kbench.parts.find import find_knowledge, task_of
from kbench.spec import RunSpec

__all__ = ["licence_of_data", "licence_of_knowledge"]

_ELSEWHERE = "unknown: it is not here"


def licence_of_data(spec: RunSpec) -> str:
    """Returns the licence of the data of a run's task, as its card says it.

    Args:
        spec: the run.
    """
    try:
        return task_of(spec).card.licence
    except KbenchError:
        return _ELSEWHERE


def licence_of_knowledge(spec: RunSpec) -> str:
    """Returns the licence of a run's knowledge base, as its card says it; empty if it says none.

    Args:
        spec: the run.
    """
    try:
        return str(find_knowledge(spec.knowledge or "").card.get("licence", ""))
    except KbenchError:
        return _ELSEWHERE
