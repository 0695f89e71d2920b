"""What every plug can do: the vectors of entities, where its weights are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from kbench.errors import Unsupported, UsageError
from kbench.knowledge import Bundle, Entity, KnowledgeBase, Rows, write_bundle
from kbench.method import InjectionMethod, MethodCard, NoPlug, Plug
from kbench.model import LanguageModel
from kbench.model.huggingface import load_folder
from kbench.spec import Setting

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


class ByVector(InjectionMethod):
    """A method that covers whoever has a vector, as methods do that do not say otherwise."""

    card = MethodCard("by vector", "", 2024, "vectors")
    revision = "1"
    settings = frozenset({Setting.GENERAL})
    defaults: ClassVar[Mapping[str, Any]] = {"width": 3}

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        return NoPlug()


class ByText(ByVector):
    """One that covers others."""

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        return rows >= 0


class Yardstick(ByVector):
    """One without a setting."""

    settings = frozenset()


def test_a_base_without_vectors_covers_nobody_by_vector(
    toy_folder: Path, toy_knowledge: Bundle, tmp_path: Path
) -> None:
    lm = load_folder(toy_folder / "bert")
    card = {"name": "bare", "version": "1", "licence": "none", "source": "test"}
    bare = write_bundle(tmp_path / "bare", card, [Entity("Q0", "red")])
    with pytest.raises(Unsupported, match="bare has no entity vectors: see `kbench knowledge"):
        ByVector().check(lm, bare)
    ByVector().check(lm, toy_knowledge)
    ByText().check(lm, bare)
    Yardstick().check(lm, bare)


def test_options_are_of_their_types_whoever_makes_a_method() -> None:
    assert ByVector({"width": 4}).options == {"width": 4}
    with pytest.raises(UsageError, match=r"by vector: width is 'wide'; expected a whole number"):
        ByVector({"width": "wide"})
