"""The training loop: what is trained steps in train mode and is scored in eval mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kbench.encoding import Batch, Inputs
from kbench.training import Recipe, train

CPU = torch.device("cpu")


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


@pytest.mark.parametrize(("share", "each"), [(1.0, 4), (0.5, 2), (0.3, 2), (0.25, 1), (0.01, 1)])
def test_a_pass_takes_a_share_of_the_batches_and_the_next_takes_others(
    share: float, each: int
) -> None:
    plug, read = nn.Linear(3, 3), list[tuple[int, ...]]()

    def loss(batch: Batch) -> Tensor:
        read.append(tuple(batch.ids[:, 0].tolist()))
        result: Tensor = plug(torch.ones(len(batch.ids), 3)).square().sum() * 0 + 3.0
        return result

    recipe = Recipe(1e-3, 1, 6, share=share, select=False)
    seen: list[tuple[int, int]] = []
    history = train(
        plug, loss, Four(), recipe, seed=0, device=CPU, progress=lambda *at: seen.append(at)
    )
    assert history.steps == history.tokens == len(read) == 6 * each
    assert seen[-1] == (6 * each, 6 * each)
    assert history.losses == [3.0] * 6  # the mean of what was read
    passes = [{*read[at : at + each]} for at in range(0, len(read), each)]
    assert all(len(own) == each for own in passes)
    assert len({ids for own in passes for ids in own}) > each or share == 1
    whole = list[tuple[int, ...]]()
    read, whole = whole, read
    train(plug, loss, Four(), recipe.updated({"share": 1.0}), seed=0, device=CPU)
    assert whole[:each] == read[:each]  # the first pass begins as a whole one does
