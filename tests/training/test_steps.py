"""A step in a narrow precision: what is computed so, what is not, and steps that are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kbench.encoding import Batch, targets_in
from kbench.errors import KbenchError, UsageError
from kbench.training import History, Recipe, train
from kbench.training.steps import Objective, OptimizerStep
from tests.training.test_loop import Four

CPU = torch.device("cpu")
RECIPE = Recipe(1e-2, 2, 4, optimizer="adam")


class Watched(nn.Linear):
    """A layer that notes the precision of what comes out of it, and whether autocast is on."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.seen: list[torch.dtype] = []

    def forward(self, given: Tensor) -> Tensor:
        found = super().forward(given)
        self.seen.append(found.dtype)
        return found


def _train(dtype: str, size: float = 1.0, recipe: Recipe = RECIPE) -> tuple[Watched, History]:
    torch.manual_seed(0)
    layer, outside = Watched(), []

    def loss(batch: Batch) -> Tensor:
        return layer(torch.full((len(batch.ids), 3), size)).float().square().mean()

    def validate() -> float:
        outside.append(torch.is_autocast_enabled("cpu"))
        return float(layer(torch.ones(1, 3)).detach().sum())

    history = train(layer, loss, Four(), recipe, seed=0, device=CPU, dtype=dtype, validate=validate)
    assert outside == [False] * recipe.epochs
    return layer, history


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_step_computes_in_its_precision_and_weights_and_dev_stay_in_float32(dtype: str) -> None:
    layer, history = _train(dtype)
    narrow, wide = getattr(torch, dtype), torch.float32
    assert layer.seen == [narrow, narrow, wide] * 4
    assert layer.weight.dtype == torch.float32
    assert history.skipped == 0
    # Trained in any precision it comes to about the same.
    full, _ = _train("float32")
    assert torch.allclose(layer.weight, full.weight, atol=0.02)


def test_steps_beyond_float16_are_left_out_and_counted_and_the_schedule_goes_on() -> None:
    # A gradient of some 1e4 is too much for float16 at the first scale, 65536.
    layer, history = _train("float16", size=100.0, recipe=RECIPE.updated({"epochs": 8}))
    assert 0 < history.skipped < history.steps == 16
    assert all(np.isfinite(history.losses))
    assert torch.isfinite(layer.weight).all()
    _, wide = _train("bfloat16", size=100.0, recipe=RECIPE.updated({"epochs": 8}))
    assert (wide.skipped, wide.steps) == (0, 16)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_step_that_is_left_out_moves_nothing_and_the_next_has_its_own_rate(clip: float) -> None:
    layer = nn.Linear(1, 1, bias=False)
    sizes = iter([0.1, 1e30, 0.1, 0.1])

    def loss(batch: Batch) -> Tensor:
        return layer(torch.ones(1, 1)).float().sum() * next(sizes)

    recipe = Recipe(0.1, 4, 4, optimizer="adam", clip=clip)
    stepper = OptimizerStep([layer.weight], recipe, 4, Objective(loss, None, CPU, "float16"))
    batch, moved, rates = Four().batch(np.arange(4)), [], []
    for _ in range(4):
        before = float(layer.weight.detach())
        stepper.step(batch)
        moved.append(before - float(layer.weight.detach()))
        rates.append(round(stepper._optimizer.param_groups[0]["lr"], 3))
    assert rates == [0.1, 0.075, 0.05, 0.025]
    assert moved == pytest.approx([0.1, 0.0, 0.05, 0.025], rel=0.02)
    assert stepper.skipped == 1


def test_what_a_training_computes_at_once_is_told() -> None:
    _, whole = _train("float32")
    _, parts = _train("float32", recipe=RECIPE.updated({"micro_batch": 1}))
    assert (whole.micro_batch, parts.micro_batch) == (2, 1)
    assert parts.losses == pytest.approx(whole.losses)
    _, large = _train("float32", recipe=RECIPE.updated({"micro_batch": 64}))
    assert (large.micro_batch, large.losses) == (2, whole.losses)
    with pytest.raises(UsageError, match="micro_batch is 0; expected null or a whole number"):
        RECIPE.updated({"micro_batch": 0})


def test_parts_are_no_part_of_an_address() -> None:
    assert RECIPE.updated({"micro_batch": 1}).as_dict() == RECIPE.as_dict()
    assert "micro_batch" not in RECIPE.as_dict()


class Ignored:
    """Four examples whose targets are partly to be ignored."""

    lengths = Four.lengths

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        from dataclasses import replace

        targets = torch.tensor([1, -1, -1, 0])[torch.from_numpy(chosen)]
        return replace(Four().batch(chosen), targets=targets)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_give_the_mean_over_what_counts(size: int) -> None:
    """Also where a part has nothing that counts, whose mean would be no number."""
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    given = torch.randn(4, 5)

    def loss(batch: Batch) -> Tensor:
        assert batch.targets is not None
        logits = layer(given[batch.ids[:, 0]])
        return nn.functional.cross_entropy(logits, batch.targets, ignore_index=-1)

    found = []
    for parts in (None, size):
        recipe = RECIPE.updated({"micro_batch": parts})
        stepper = OptimizerStep(
            [*layer.parameters()], recipe, 1, Objective(loss, targets_in, CPU, "float32")
        )
        value, _ = stepper._micro_batches.compute(Ignored().batch(np.arange(4)), stepper._gradients)
        assert layer.weight.grad is not None
        found.append((value, layer.weight.grad.clone()))
    assert torch.allclose(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1], atol=1e-7)


def test_a_loss_that_compares_examples_is_not_computed_in_parts() -> None:
    layer: Any = nn.Linear(1, 1)
    objective = Objective(lambda batch: layer.weight.sum(), None, CPU, "float32")
    recipe = RECIPE.updated({"micro_batch": 1})
    stepper = OptimizerStep([*layer.parameters()], recipe, 1, objective)
    with pytest.raises(KbenchError, match=r"compares its examples with each other.*lower batch_"):
        stepper.step(Four().batch(np.arange(4)))
