"""What methods share that train nothing: their plugs are empty, or have a closed form."""

from __future__ import annotations

from kbench.method import InjectionMethod
from kbench.spec import Setting
from kbench.task import Family
from kbench.training import Recipe

__all__ = ["Untrained"]

_NEVER_READ = Recipe(learning_rate=1.0, batch_size=1, epochs=1)


class Untrained(InjectionMethod):
    """A method without trainable parameters, and so without a task-specific setting."""

    settings = frozenset({Setting.GENERAL, Setting.FINE_TUNING})
    trains = False

    def corpus_readings(self) -> float | None:
        return 0

    def recipe(self, setting: Setting, family: Family | None, task: str | None) -> Recipe:
        """Returns a recipe that is never read: nothing trains."""
        return _NEVER_READ
