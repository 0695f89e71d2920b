"""What the parameter-efficient tunings share: the published settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kbench.task import Family
from kbench.training.recipe import Recipe
from kbench.training.tunings.full import FullTuning

__all__ = ["published"]

_PUBLISHED: Mapping[Family, Mapping[str, Any]] = {
    # Wiki-ET, Wiki80 and EntityQuestions of the map-tuning release: the same for all three.
    Family.TYPING: {"learning_rate": 1e-3},
    Family.RELATION: {"learning_rate": 2e-3, "epochs": 60, "batch_size": 64},
    Family.QUESTION: {"learning_rate": 5e-4},
}


def published(family: Family) -> Recipe:
    """Returns the map-tuning release's settings for LoRA, adapters and BitFit (bert-base-uncased).

    AdamW without weight decay; the rate rises over a tenth of the steps and falls linearly to 0.
    What the release does not say otherwise is as in full tuning of the family.
    """
    return FullTuning().recipe(family).updated(_PUBLISHED[family], {"warmup": 0.1})
