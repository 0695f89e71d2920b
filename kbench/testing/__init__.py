"""Toy parts and contract suites for the authors of plugins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kbench import catalogue
from kbench.catalogue import Entry, Kind

__all__ = ["registered"]


@contextmanager
def registered(kind: Kind, **targets: str) -> Iterator[None]:
    """Offers further parts inside the block, as an installed distribution would.

    Args:
        kind: of the parts.
        targets: ``module:Class`` by name; an underscore in a name stands for a dash.
    """
    before = catalogue.entries(kind)
    added = tuple(
        Entry(name.replace("_", "-"), target, "kbench.testing 0", kind)
        for name, target in targets.items()
    )
    catalogue.override(kind, tuple(sorted(before + added)))
    try:
        yield
    finally:
        catalogue.override(kind, before)
