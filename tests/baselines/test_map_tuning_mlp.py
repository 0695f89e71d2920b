"""Map-tuning with a two-layer map: its size, its equation, and knowledge it carries."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from kbench.data import Example, Mention, Role
from kbench.encoding import Batch, Layout, encode
from kbench.grid.plan import Place
from kbench.knowledge import Bundle
from kbench.knowledge.linking import link
from kbench.model import LanguageModel
from kbench.model.freezing import frozen
from kbench.model.huggingface import load_folder
from kbench.store import Status
from kbench.task import Family
from kbench_baselines.map_tuning import AffineMap, MapTuning
from kbench_baselines.map_tuning_mlp import BentMap, MlpMapTuning
from tests.grid.toygrid import OPTIONS, grid, run


@pytest.fixture(scope="module")
def lm(toy_folder: Path) -> LanguageModel:
    return load_folder(toy_folder / "bert")


@pytest.mark.parametrize(
    ("dimension", "width", "hidden", "count"),
    [(128, 768, 109, 98_541), (64, 128, 42, 8_234), (100, 768, 88, 77_240), (1, 4, 1, 10)],
)
def test_the_map_has_as_many_parameters_as_the_affine_one_or_just_fewer(
    dimension: int, width: int, hidden: int, count: int
) -> None:
    class Known:
        pass

    knowledge = Known()
    knowledge.dimension = dimension  # type: ignore[attr-defined]
    with torch.device("meta"):
        bent = BentMap(knowledge, width)  # type: ignore[arg-type]
        affine = AffineMap(knowledge, width)  # type: ignore[arg-type]
    ours = sum(p.numel() for p in bent.parameters())
    budget = sum(p.numel() for p in affine.parameters())
    assert bent.inner.weight.shape == (hidden, dimension)
    assert ours == count
    if hidden > 1:
        assert ours <= budget < ours + dimension + width + 1


def test_vectors_are_those_of_the_equation(lm: LanguageModel, toy_knowledge: Bundle) -> None:
    torch.manual_seed(1)
    plug = BentMap(toy_knowledge, lm.slot_width)
    rows = torch.tensor([5, 0, 5, 17])
    with torch.no_grad():
        given = plug.slot_vectors(rows).tolist()
    state = {name: value.tolist() for name, value in plug.state_dict().items()}
    for row, found in zip(rows.tolist(), given, strict=True):
        entity = [float(x) for x in toy_knowledge.vectors(np.array([row]))[0]]
        inner = []
        for weights, bias in zip(state["inner.weight"], state["inner.bias"], strict=True):
            x = sum(w * k for w, k in zip(weights, entity, strict=True)) + bias
            inner.append(0.5 * x * (1 + math.erf(x / math.sqrt(2))))
        for number, bias in enumerate(state["outer.bias"]):
            weights = state["outer.weight"][number]
            expected = sum(w * x for w, x in zip(weights, inner, strict=True)) + bias
            assert found[number] == pytest.approx(expected, abs=1e-6)


def _batch(lm: LanguageModel, knowledge: Bundle, entity: str) -> Batch:
    example = Example("1", "we saw kim today", (Mention(7, 10, entity, Role.TARGET),), "")
    rows = link([example], knowledge).rows
    layout = Layout({Role.TARGET: "$"}, MlpMapTuning.slot)
    return encode(lm.tokenizer, [example], rows, layout).collate(np.array([0]))


def test_an_unlinked_example_gives_the_states_of_the_base_model(
    lm: LanguageModel, toy_knowledge: Bundle
) -> None:
    plug = BentMap(toy_knowledge, lm.slot_width)
    batch = _batch(lm, toy_knowledge, "nobody")
    with torch.no_grad():
        base = lm(batch)
        with plug.attach(lm):
            torch.testing.assert_close(lm(batch), base, atol=1e-5, rtol=0)


def test_gradients_reach_both_layers_and_nothing_else(
    lm: LanguageModel, toy_knowledge: Bundle
) -> None:
    plug = BentMap(toy_knowledge, lm.slot_width)
    batch = _batch(lm, toy_knowledge, str(toy_knowledge.entity(3).id))
    with frozen(lm), plug.attach(lm):
        lm(batch)[0, 0, :3].sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in plug.parameters())
        assert all(p.grad is None for p in lm.parameters())


def test_only_the_map_differs_from_map_tuning() -> None:
    ours, theirs = MlpMapTuning(), MapTuning()
    assert (ours.slot, ours.settings, ours.options) == (
        theirs.slot,
        theirs.settings,
        theirs.options,
    )
    for setting in ours.settings:
        for family in Family:
            assert ours.recipe(setting, family, None) == theirs.recipe(setting, family, None)


@pytest.mark.usefixtures("toy_tasks")
def test_planted_knowledge_is_found_and_controls_fall_to_chance(
    toy_folder: Path, tmp_path: Path, made: Path
) -> None:
    place = Place(tmp_path / "out", made, "cpu")
    options = {**OPTIONS, "method": {"map-tuning-mlp": OPTIONS["method"]["map-tuning"]}}
    chosen = grid(
        toy_folder, method="map-tuning-mlp", control="none,shuffled,random", options=options
    )
    scores = {}
    for result in run(chosen, place):
        assert result.status == Status.OK, result.reason
        assert result.score is not None
        scores[str(result.spec.control)] = result.score.value
    assert scores["none"] > 0.8
    assert scores["shuffled"] < 0.45
    assert scores["random"] < 0.45
