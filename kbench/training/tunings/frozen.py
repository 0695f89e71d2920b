"""No tuning: the backbone as it was pre-trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

from kbench.errors import Unsupported
from kbench.task import Family
from kbench.training.tuning import Tuning

if TYPE_CHECKING:
    from kbench.model import DownstreamModel

__all__ = ["FrozenTuning"]


@final
class FrozenTuning(Tuning):
    """Trains nothing: the downstream model is the backbone with its own masked-LM head.

    What probes are run with (LAMA's and PopQA's "zero-shot"), and the yardstick of what tuning
    adds to any other task that is answered at ``[MASK]``. Nothing is stored, since there is
    nothing but the backbone.
    """

    revision = "1"
    prompts: ClassVar[Mapping[str, Any]] = {}

    def recipe(self, family: Family) -> None:
        return None

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        if not model.head.needs_lm_head:
            raise Unsupported(
                "tuning frozen trains nothing, and an untrained head says nothing: it is for "
                "tasks that are answered at [MASK] by the backbone's own head"
            )
        model.requires_grad_(False)
