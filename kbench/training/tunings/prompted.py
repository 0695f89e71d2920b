"""No tuning: a decoder as it was pre-trained, asked by a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

from kbench.errors import Unsupported
from kbench.task import Family
from kbench.training.tuning import Tuning

if TYPE_CHECKING:
    from kbench.model import DownstreamModel

__all__ = ["PromptedTuning"]


@final
class PromptedTuning(Tuning):
    """Trains nothing: the downstream model is a decoder, a form of prompts and a scorer.

    Labels of a closed set are compared by ``pmi``, since nothing has taught the model how often
    each of them is right. Nothing is stored, since there is nothing but the backbone.
    """

    revision = "1"
    prompts: ClassVar[Mapping[str, Any]] = {"scorer": "pmi", "shots": 0}

    def recipe(self, family: Family) -> None:
        return None

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        if not model.lm.left_to_right:
            raise Unsupported(
                "tuning prompted is for models that read from left to right, and this one reads "
                "both ways; take frozen, which trains nothing, or another tuning"
            )
        model.requires_grad_(False)
