"""Executors: who works through a plan, here or on other machines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast

from kbench.errors import UsageError, nearest
from kbench.grid.pool import Limits
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.store import Artifacts

if TYPE_CHECKING:
    from kbench.grid.plan import Cell, Events, Place
    from kbench.store import Result

__all__ = ["Executor", "Limits", "Setup", "find_executor"]


@dataclass(frozen=True)
class Setup:
    """How to work.

    Attributes:
        jobs: runs at once, where the executor does not know better.
        limits: of one run.
        options: the executor's own, as text.
    """

    jobs: int = 1
    limits: Limits = field(default_factory=Limits)
    options: Mapping[str, str] = field(default_factory=dict)


class Executor(ABC):
    """Works through the cells of a plan. Registered under ``kbench.executors``.

    Whatever the executor, the same plan gives the same results; it only decides where and when
    they are made.

    Attributes:
        name: what the user types.
        defaults: its options.

    Args:
        setup: how to work.

    Raises:
        UsageError: an option is unknown or wrong, or something is asked for that it cannot do.
    """

    name: ClassVar[str]
    defaults: ClassVar[Mapping[str, str]] = {}

    def __init__(self, setup: Setup | None = None) -> None:
        self.setup = setup or Setup()
        for key in self.setup.options:
            if not self.defaults:
                raise UsageError(f"executor {self.name} has no options (-o {key}=…)")
            if key not in self.defaults:
                raise UsageError(
                    f"executor {self.name} has no option {key!r}{nearest(key, self.defaults)}"
                )
        self.options = {**self.defaults, **self.setup.options}

    @abstractmethod
    def work(
        self, cells: Sequence[Cell], place: Place, events: Events
    ) -> Generator[tuple[Cell, Result], None, None]:
        """Yields every cell with its result, in any order, stored in ``place.out`` before.

        A run that fails, or whose process or machine is lost for good, is a failed result, never
        an exception. When the generator is closed, the work stops.
        """

    def stored(self, place: Place) -> Artifacts:
        """Returns the store of downstream models and plugs that the work reads and fills."""
        return Artifacts(place.artifacts)


def find_executor(name: str) -> type[Executor]:
    """Returns an executor by name.

    Raises:
        UsageError: there is none; the nearest names are given.
        PluginError: it does not load, or two distributions offer the name.
    """
    return cast("type[Executor]", registry.get(Kind.EXECUTORS, name))
