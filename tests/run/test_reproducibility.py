"""What is promised of the last bits holds for the network that was run."""

from __future__ import annotations

import pytest

from kbench.pipeline.prediction import Predicted
from kbench.pipeline.reproducibility import MOVES, STATES, evaluated

PREDICTED = Predicted(["a"], [0.5], 128, 2048)


@pytest.mark.parametrize("dtype", MOVES)
@pytest.mark.parametrize(
    ("rounding", "times"), [(0.0, 1.0), (STATES / 3, 1.0), (STATES, 1.0), (40 * STATES, 40.0)]
)
def test_the_bound_grows_with_what_the_states_of_a_network_move(
    dtype: str, rounding: float, times: float
) -> None:
    told = evaluated({"device": "cpu"}, dtype, PREDICTED, rounding)
    assert told["rounding"]["else_scores_move"] == pytest.approx(MOVES[dtype] * times)


def test_on_a_gpu_nothing_is_promised() -> None:
    told = evaluated({"device": "cuda:0"}, "float32", PREDICTED, STATES)
    assert told["rounding"]["else_scores_move"] is None
