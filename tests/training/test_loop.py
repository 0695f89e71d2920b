"""The training loop: what is trained steps in train mode and is scored in eval mode."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kbench.encoding import Batch, Inputs
from kbench.training import Recipe, train


class Four:
    """Four examples of one token each."""

    lengths = np.ones(4, dtype=np.int64)

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        nothing = np.empty(0, dtype=np.int64)
        bounds = np.zeros(5, dtype=np.int64)
        inputs = Inputs(
            ids=np.arange(4),
            kinds=np.ones(4, dtype=np.uint8),
            bounds=np.arange(5),
            slots=nothing,
            slot_rows=nothing,
            slot_bounds=bounds,
            spans=nothing.reshape(0, 2),
            span_rows=nothing,
            span_bounds=bounds,
            blanks=np.full(4, -1),
        )
        return inputs.collate(chosen)


def test_dropout_of_what_is_trained_is_off_when_it_is_scored() -> None:
    torch.manual_seed(0)
    plug = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    stepping, scored = [], []

    def loss(batch: Batch) -> Tensor:
        stepping.append(plug[1].training)
        result: Tensor = plug(torch.ones(len(batch.ids), 3)).square().sum()
        return result

    def validate() -> float:
        scored.append(plug[1].training)
        return 0.0

    history = train(
        plug,
        loss,
        Four(),
        Recipe(1e-3, 2, 3),
        seed=0,
        device=torch.device("cpu"),
        validate=validate,
    )
    assert history.steps == 6
    assert stepping == [True] * 6
    assert scored == [False] * 3
    assert not plug.training
