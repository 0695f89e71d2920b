"""Parts offered for the length of a test, as an installed distribution would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kbench.parts import catalogue
from kbench.parts.catalogue import Entry, Kind

__all__ = ["registered"]


@contextmanager
def registered(kind: Kind, **targets: str) -> Iterator[None]:
    """Offers further parts inside the block, as an installed distribution would.

    A part that is offered already, by the same name and target, stays as it is.

    Args:
        kind: of the parts.
        targets: ``module:Class`` by name; an underscore in a name stands for a dash.
    """
    before = catalogue.entries(kind)
    added = tuple(
        Entry(name.replace("_", "-"), target, "kbench.testing 0", kind)
        for name, target in targets.items()
    )
    known = {(entry.name, entry.target) for entry in before}
    new = tuple(entry for entry in added if (entry.name, entry.target) not in known)
    catalogue.override(kind, tuple(sorted(before + new)))
    try:
        yield
    finally:
        catalogue.override(kind, before)
