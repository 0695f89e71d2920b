"""What every plug can do: the vectors of entities, where its weights are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kbench.knowledge import Bundle, KnowledgeBase
from kbench.method import Plug

ROWS = torch.tensor([3, 0, 3])


class Keeper(Plug):
    """A plug that keeps its knowledge base and, perhaps, some weights."""

    def __init__(self, knowledge: KnowledgeBase) -> None:
        super().__init__()
        self.knowledge = knowledge


@pytest.mark.parametrize("weights", ["none", "parameter", "buffer"])
def test_a_plug_gathers_vectors_whatever_its_weights(toy_knowledge: Bundle, weights: str) -> None:
    plug = Keeper(toy_knowledge)
    if weights == "parameter":
        plug.weight = nn.Parameter(torch.ones(2))
    if weights == "buffer":
        plug.register_buffer("weight", torch.ones(2))
    vectors = plug.vectors_of(ROWS)
    assert vectors.dtype == torch.float32
    np.testing.assert_array_equal(vectors.numpy(), toy_knowledge.vectors(ROWS.numpy()))


@pytest.mark.parametrize("buffer", [False, True])
def test_the_vectors_go_where_the_weights_are(toy_knowledge: Bundle, buffer: bool) -> None:
    plug = Keeper(toy_knowledge)
    weight = torch.ones(2, device="meta")
    if buffer:
        plug.register_buffer("weight", weight)
    else:
        plug.weight = nn.Parameter(weight)
    assert plug.vectors_of(ROWS).device.type == "meta"


def test_another_base_can_be_asked(toy_knowledge: Bundle) -> None:
    rows = np.array([1, 3])
    own = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    seen = toy_knowledge.over(rows, own)
    vectors = Keeper(toy_knowledge).vectors_of(torch.tensor([3, 1]), seen)
    assert vectors.tolist() == [[3.0, 4.0], [1.0, 2.0]]
