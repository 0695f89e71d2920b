"""What came out of the stages of a run, before it is a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kbench.pipeline.following import FalseAnswers
from kbench.pipeline.prediction import Predicted
from kbench.pipeline.preparation import Prepared

__all__ = ["Evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """A test split as it was read, and what was predicted of it.

    Attributes:
        prepared: the split.
        predicted: for each example.
        cost: numbers with their unit in the name.
        counts: what was kept and dropped, by name.
        training: recipe and history of each stage, by its name.
        dev: main metric on the dev split; None where there is none, and of controls.
        before: SHA-256 of the downstream model's weights after tuning.
        after: the same after evaluation.
        locality: how far the plug moves what the model says; empty where that was not measured.
        false: the false answers that its knowledge holds; None where no value was swapped.
    """

    prepared: Prepared
    predicted: Predicted
    cost: Mapping[str, float]
    counts: Mapping[str, int]
    training: Mapping[str, Any]
    dev: float | None
    before: str
    after: str
    locality: Mapping[str, float] = field(default_factory=dict)
    false: FalseAnswers | None = None
