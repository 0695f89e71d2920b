"""What is installed: the parts that distributions offer through entry points, unimported.

Built-in parts come through the same groups as a third party's. A listing reads the metadata of
the distributions and, for the one-line summaries, the *text* of the modules; it runs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.metadata import Distribution, EntryPoints, distributions, entry_points
from typing import Any, cast
from warnings import warn

__all__ = ["Entry", "Kind", "entries", "override"]


class Kind(StrEnum):
    """The kinds of part, each an entry-point group ``kbench.<kind>``.

    A part is a class; but a verb is a click command, and published figures and downloads are
    packages.
    """

    TASKS = "tasks"
    METHODS = "methods"
    BACKBONES = "backbones"
    TUNINGS = "tunings"
    KNOWLEDGE = "knowledge"
    IMPORTERS = "importers"
    EXECUTORS = "executors"
    TRACKERS = "trackers"
    VERBS = "verbs"
    PUBLISHED = "published"
    DOWNLOADS = "downloads"

    @property
    def one(self) -> str:
        """What one part of the kind is called."""
        return _ONE.get(self, self.removesuffix("s"))

    @property
    def has_contracts(self) -> bool:
        """Whether :mod:`kbench.testing` has contracts for parts of the kind."""
        without = (Kind.EXECUTORS, Kind.TRACKERS, Kind.VERBS, Kind.PUBLISHED, Kind.DOWNLOADS)
        return self not in without


_ONE = {
    Kind.KNOWLEDGE: "knowledge base",
    Kind.VERBS: "command",
    Kind.PUBLISHED: "set of published figures",
    Kind.DOWNLOADS: "list of downloads",
}


@dataclass(frozen=True, order=True)
class Entry:
    """An installed part.

    Attributes:
        name: what the user types.
        target: ``module:Class``; ``module:command`` of a verb, ``package`` of published figures
            and downloads.
        distribution: name and version of the distribution that offers it.
        kind: what it is.
    """

    name: str
    target: str
    distribution: str
    kind: Kind


_found: dict[Kind, tuple[Entry, ...]] = {}


def entries(kind: Kind) -> tuple[Entry, ...]:
    """Returns the installed parts of a kind, by name; one name may occur more than once."""
    if kind not in _found:
        # Of all kinds together: to read what is installed costs more than to sort it.
        for other, parts in _installed().items():
            _found.setdefault(other, parts)
    return _found[kind]


def override(kind: Kind, parts: tuple[Entry, ...]) -> None:
    """Replaces what is taken for installed, until replaced again (see :mod:`kbench.testing`)."""
    _found[kind] = parts


def _installed() -> dict[Kind, tuple[Entry, ...]]:
    every = _points()
    return {kind: tuple(sorted(_offered(every, kind))) for kind in Kind}


def _points() -> EntryPoints:
    """Everything that any distribution offers; one whose list cannot be read offers nothing."""
    try:
        return cast("EntryPoints", entry_points())
    except (ValueError, OSError):
        found: dict[str, EntryPoints] = {}
    for distribution in distributions():
        name = ""
        try:
            name = distribution.name
            if name not in found:  # the first of a name is the one that is imported
                found[name] = distribution.entry_points
        except (ValueError, OSError) as cause:
            told = f"distribution {name} offers nothing, for its metadata cannot be read"
            warn(f"{told} ({cause})", stacklevel=2)
    return EntryPoints(point for points in found.values() for point in points)


def _offered(every: Any, kind: Kind) -> set[Entry]:
    return {
        Entry(
            name=point.name,
            target=point.value,
            distribution=_titled(point.dist) if point.dist else "unknown",
            kind=kind,
        )
        for point in every.select(group=f"kbench.{kind}")
    }


@cache  # each look at a name or version parses all metadata of the distribution anew
def _titled(distribution: Distribution) -> str:
    return f"{distribution.name} {distribution.version}"
