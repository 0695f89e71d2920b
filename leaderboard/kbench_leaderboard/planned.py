"""Which runs of a grid are there, and which are not yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from kbench.spec import RunSpec

__all__ = ["Place", "place_of", "waiting"]

Place: TypeAlias = tuple[object, ...]
_TOLD = ("task", "backbone", "tuning", "method", "setting", "control", "seed", "knowledge")


def place_of(spec: RunSpec) -> Place:
    """Returns the place of a run in a grid, by the names of its parts."""
    return tuple(getattr(spec, name) for name in _TOLD)


def waiting(asked: Iterable[RunSpec], there: Iterable[RunSpec]) -> list[RunSpec]:
    """Returns those of the runs asked for that are not there."""
    here = {place_of(spec) for spec in there}
    return [spec for spec in asked if place_of(spec) not in here]
