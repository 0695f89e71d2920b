"""Evaluation and tuning against the limit: a bare loop over batches that are there already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from kbench.encoding.batch import shuffled_batches
from kbench.model import dropout
from kbench.pipeline.prediction import predict
from kbench.training import Recipe, train

from .conftest import Demands
from .world import World, texts

CPU = torch.device("cpu")
BATCH = 128
RECIPE = Recipe(learning_rate=1e-5, batch_size=32, epochs=1, clip=1.0, select=False)


@pytest.fixture(scope="module")
def world(backbone: Path) -> World:
    return World.of(backbone, texts(512))


def test_evaluation(demands: Demands, world: World) -> None:
    batches = world.sorted_tensors(BATCH)

    def bare() -> list[int]:
        found = []
        with torch.inference_mode():
            for ids, mask, _ in batches:
                found += world.logits(ids, mask).argmax(-1).tolist()
        return found

    def ours() -> list[str]:
        return [str(label) for label in predict(world.model, world.inputs, CPU).labels]

    order = np.argsort(-world.inputs.lengths, kind="stable")
    labels = [world.model.head.labels[number] for number in bare()]  # type: ignore[index]
    assert np.array(ours())[order].tolist() == labels
    demands.ratio("evaluation", ours, bare, least=0.95, against="bare loop")


def test_tuning(demands: Demands, world: World) -> None:
    model = world.model
    start = {name: value.clone() for name, value in model.state_dict().items()}
    rng = np.random.default_rng(0)
    orders = shuffled_batches(world.inputs.lengths, RECIPE.batch_size, rng)
    batches = [world.tensors(chosen) for chosen in orders]

    def ready() -> None:
        model.load_state_dict(start)
        model.requires_grad_(True)
        model.train()  # ours leaves it in eval mode, in which a bare loop would draw no dropout
        torch.manual_seed(0)

    def bare() -> float:
        ready()
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=RECIPE.learning_rate, weight_decay=0.0, foreach=True
        )
        total = 0.0
        for ids, mask, targets in batches:
            loss = F.cross_entropy(world.logits(ids, mask), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), RECIPE.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.item() * len(ids)
        return total / len(world.targets)

    def ours() -> float:
        ready()
        return train(model, model.loss, world.data, RECIPE, seed=0, device=CPU).losses[0]

    with dropout(model, 0.0):  # else the two draw it in different orders
        assert ours() == pytest.approx(bare(), rel=1e-3)
    demands.ratio("tuning", ours, bare, least=1, rounds=3, against="bare loop")
