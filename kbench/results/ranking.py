"""What a method is ranked by: the net gain, knowledge that arrives and pays.

The knowledge gain alone rewards a method that wrong knowledge hurts: it may be large where the
model is better off without the method. The difference to no knowledge alone rewards more
parameters. So the figure is the lesser of the two, which is the score over the better of its two
yardsticks, the same method with foreign knowledge and the same model without any. Foreign, and not
shuffled: what an entity of the same kind happens to tell is knowledge too, and where most are of
one kind the shuffled knowledge would take it for none. Kind and individual are not ranked apart,
for both are knowledge: how the gain splits says what a method has read, not how well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from kbench.metrics import Array
    from kbench.results.tables import Estimate

__all__ = ["front", "net_gain", "net_replicates"]

E = TypeVar("E", bound="Estimate")


def net_gain(gain: E | None, delta: E | None) -> E | None:
    """Returns the lesser of the knowledge gain and the difference to no knowledge.

    Its interval goes from the lesser of the two low ends to the lesser of the two high ends: so
    it lies above 0 if and only if both intervals do, the intersection-union test, which needs no
    correction for being two.

    Args:
        gain: over the method's own foreign control.
        delta: over the model without knowledge.

    Returns:
        None where one of them is not known.
    """
    if gain is None or delta is None:
        return None
    ends = [
        None if one is None or two is None else min(one, two)
        for one, two in ((gain.low, delta.low), (gain.high, delta.high))
    ]
    lesser = min(gain, delta, key=lambda estimate: estimate.value)
    return type(lesser)(lesser.value, ends[0], ends[1], lesser.deviation)


def net_replicates(own: Array, foreign: Array, none: Array) -> Array:
    """Returns the net gain in every resample, from the scores in it, of the same draws."""
    return own - np.maximum(foreign, none)


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Returns which points (cost, score) no other is as good as at less cost, or better than."""
    return [
        not any(
            (cost <= own_cost and score >= own) and (cost < own_cost or score > own)
            for cost, score in points
        )
        for own_cost, own in points
    ]
