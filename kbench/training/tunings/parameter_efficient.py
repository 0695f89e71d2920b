"""What the parameter-efficient tunings share: published settings, and how options are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kbench.spec import OptionType
from kbench.task import Family
from kbench.training.recipe import Recipe
from kbench.training.tunings.full import FullTuning

__all__ = ["positive", "published"]

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


def positive(options: Mapping[str, Any], name: str, kind: type[float] = int) -> Any:
    """Returns an option that is a number above 0, and a whole one unless ``kind`` is float.

    Raises:
        UsageError: it is none.
    """
    number = OptionType("whole number" if kind is int else "number", above=0)
    number.check(name, options[name])
    return options[name]
