"""What a result says of the last bits of its scores: what they hang on, and how far they move.

Sums of floating-point numbers depend on their order. A kernel chooses the order by the shape of
what it is given and by the threads it has, so other batches or threads give other last bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kbench.pipeline.prediction import Predicted

__all__ = ["MOVES", "STATES", "evaluated"]

MOVES: Mapping[str, float] = {"float32": 1e-5, "bfloat16": 0.05, "float16": 0.01}
"""How far a probability moves on a CPU with another evaluation batch or number of threads, at most.

Measured by ``scripts/measure_rounding.py``, rounded up; see docs/results.md.
"""
STATES = 1e-6
"""How far hidden states move at most, as a share of the largest, where that was measured."""


def evaluated(
    how: Mapping[str, str | int], dtype: str, predicted: Predicted, rounding: float
) -> dict[str, Any]:
    """Returns what is recorded of an evaluation.

    The bound is that of :data:`MOVES`; where the states of a network move more than those that it
    was measured on, it is larger in proportion.

    Args:
        how: the device and its settings, see :func:`kbench.encoding.computing.described`.
        dtype: the precision.
        predicted: the predictions.
        rounding: how far the states of the network move, see
            :attr:`kbench.model.LanguageModel.rounding`.
    """
    bound = MOVES[dtype] * max(1.0, float(f"{rounding / STATES:.1e}"))
    device = str(how["device"]).partition(":")[0]
    return {
        "batch_size": predicted.batch_size,
        "batch_tokens": predicted.batch_tokens,
        "dtype": dtype,
        **how,
        "rounding": {
            "same_bits": "same machine, versions, device, threads, dtype and batches",
            # Of devices where nobody has measured it, nothing is promised.
            "else_scores_move": bound if device == "cpu" else None,
        },
    }
