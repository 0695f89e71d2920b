"""The head alone (linear probing)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

from kbench.errors import Unsupported
from kbench.task import Family
from kbench.training.recipe import Recipe
from kbench.training.tuning import Tuning
from kbench.training.tunings.parameter_efficient import published

if TYPE_CHECKING:
    from kbench.model import DownstreamModel

__all__ = ["HeadTuning"]


@final
class HeadTuning(Tuning):
    """Trains the task's head on the frozen backbone (linear probing).

    Nothing of the backbone moves, its pooler included, and it has no dropout while the head
    learns: it reads each text once, and the epochs run on what it said. A task that is answered
    at ``[MASK]`` brings no head of its own and is refused: what could train there are parts of
    the backbone, which ``bitfit`` and ``full`` train.

    No rates are published for it. kbench takes 1e-3 for twenty epochs, which cost little.
    """

    revision = "1"
    light = True
    reads_once = True
    prompts: ClassVar[Mapping[str, Any]] = {}

    def recipe(self, family: Family) -> Recipe:
        return published(family).updated({"learning_rate": 1e-3, "epochs": 20})

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        if model.head.needs_lm_head:
            raise Unsupported(
                "tuning head trains the task's own head, and a task that is answered at [MASK] "
                "has none; take frozen, which trains nothing, or bitfit"
            )
        model.requires_grad_(False)
        model.head.requires_grad_(True)
