"""Adapters without knowledge: their size, their equation, and that they know nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kbench.data import Example
from kbench.encoding import Batch, Layout, encode
from kbench.errors import Unsupported
from kbench.grid import runner
from kbench.grid.plan import Place
from kbench.knowledge import Bundle
from kbench.model import LanguageModel
from kbench.model.freezing import frozen
from kbench.model.huggingface import load_folder
from kbench.store import Status
from kbench_baselines.adapter_no_knowledge import AdapterNoKnowledge, Adapters, ranks
from tests.grid.toygrid import OPTIONS, grid, run

_ADAPTER = {"learning_rate": 1e-2, "epochs": 10, "batch_size": 16, "dropout": 0.0}
_NAME = "adapter-no-knowledge"


@pytest.fixture(scope="module")
def lm(toy_folder: Path) -> LanguageModel:
    return load_folder(toy_folder / "bert")


@pytest.fixture
def plug(lm: LanguageModel, toy_knowledge: Bundle) -> Adapters:
    torch.manual_seed(2)
    plug = AdapterNoKnowledge().build(lm, toy_knowledge)
    assert isinstance(plug, Adapters)
    return plug


def _batch(lm: LanguageModel) -> Batch:
    texts = ("we saw kim today", "it rained near kim", "kim was there again , as ever")
    examples = [Example(str(number), text, (), "") for number, text in enumerate(texts)]
    inputs = encode(lm.tokenizer, examples, [()] * len(texts), Layout({}))
    return inputs.collate(np.arange(len(texts)))


@pytest.mark.parametrize(
    ("layers", "width", "budget", "count"),
    [(12, 768, 99_072, 98_362), (4, 128, 8_320, 8_222), (24, 1024, 132_096, 131_124)],
)
def test_the_adapters_have_map_tunings_budget_or_just_less(
    layers: int, width: int, budget: int, count: int
) -> None:
    chosen = ranks(budget, layers, width)
    with torch.device("meta"):
        plug = Adapters(width, chosen)
    ours = sum(p.numel() for p in plug.parameters())
    assert ours == count
    assert ours <= budget < ours + 2 * width + 1  # one rank more would exceed it
    assert max(chosen) - min(chosen) <= 1


def test_every_layer_has_an_adapter_whatever_the_budget() -> None:
    assert ranks(1, 3, 32) == [1, 1, 1]


def test_the_budget_is_of_the_knowledge_base_or_an_option(
    lm: LanguageModel, toy_knowledge: Bundle
) -> None:
    def count(options: dict[str, int]) -> int:
        plug = AdapterNoKnowledge(options).build(lm, toy_knowledge)
        return sum(p.numel() for p in plug.parameters())

    # Two layers of width 32 and vectors of 8: 288, of which a rank costs 65 and a layer 32.
    assert count({}) == 3 * 65 + 2 * 32
    assert count({"parameters": 1000}) == 14 * 65 + 2 * 32


def test_a_knowledge_base_without_vectors_gives_no_budget(lm: LanguageModel) -> None:
    class Bare:
        name = "bare"
        dimension = 0

    with pytest.raises(Unsupported, match="bare has no entity vectors"):
        AdapterNoKnowledge().build(lm, Bare())  # type: ignore[arg-type]


def test_states_are_those_of_the_equation(lm: LanguageModel, plug: Adapters) -> None:
    for parameter in plug.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    batch = _batch(lm)
    state = plug.state_dict()
    with torch.no_grad(), plug.attach(lm):
        given = lm(batch)
    for at, mask in enumerate(batch.mask.bool()):
        with torch.no_grad():
            hidden = lm.base.embeddings(batch.ids[at, mask][None])
            for number, layer in enumerate(lm.base.encoder.layer):
                hidden = layer(hidden)
                hidden = hidden[0] if isinstance(hidden, tuple) else hidden
                for token in range(hidden.shape[1]):
                    x = hidden[0, token].clone()
                    name = f"adapters.{number}"
                    inner = state[f"{name}.down.weight"] @ x + state[f"{name}.down.bias"]
                    inner = inner / (1 + torch.exp(-inner))
                    change = state[f"{name}.up.weight"] @ inner + state[f"{name}.up.bias"]
                    hidden[0, token] = x + change
        torch.testing.assert_close(given[at, mask], hidden[0], atol=1e-5, rtol=1e-5)


def test_an_untrained_plug_changes_nothing_and_leaves_nothing(
    lm: LanguageModel, plug: Adapters
) -> None:
    batch = _batch(lm)
    with torch.no_grad():
        base = lm(batch)
        with plug.attach(lm):
            torch.testing.assert_close(lm(batch), base, atol=0, rtol=0)
        torch.nn.init.normal_(plug.adapters[0].up.weight)
        with plug.attach(lm):
            assert not torch.equal(lm(batch), base)
        assert torch.equal(lm(batch), base)


def test_gradients_reach_the_adapters_and_nothing_else(lm: LanguageModel, plug: Adapters) -> None:
    for parameter in plug.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with frozen(lm), plug.attach(lm):
        lm(_batch(lm))[:, 0, :3].sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in plug.parameters())
        assert all(p.grad is None for p in lm.parameters())


@pytest.mark.usefixtures("toy_tasks")
def test_adapters_stay_at_chance_where_maps_find_the_planted_knowledge(
    toy_folder: Path, tmp_path: Path, made: Path
) -> None:
    place = Place(tmp_path / "out", made, "cpu")
    mapped = OPTIONS["method"]["map-tuning"]
    methods = {
        "map-tuning": mapped,
        "map-tuning-mlp": mapped,
        _NAME: {"task-specific": _ADAPTER},
    }
    chosen = grid(
        toy_folder,
        method=",".join(methods),
        control="none",
        options={**OPTIONS, "method": methods},
    )
    results = {result.spec.method: result for result in run(chosen, place)}
    scores = {}
    for name, result in results.items():
        assert result.status == Status.OK, result.reason
        assert result.score is not None
        scores[name] = result.score.value
    assert scores["map-tuning"] > 0.8
    assert scores["map-tuning-mlp"] > 0.8
    assert scores[_NAME] < 0.45
    ours = results[_NAME]
    losses = ours.training["plug"]["history"]["losses"]
    assert losses[-1] < losses[0]  # it did learn of the task what can be learned
    assert ours.cost["trainable_parameters"] == 259


@pytest.mark.usefixtures("toy_tasks")
def test_there_is_one_cell_whatever_the_controls_and_no_other_setting(
    toy_folder: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    chosen = grid(
        toy_folder,
        method=_NAME,
        setting="task-specific",
        control="none,shuffled,random,zero",
        options={},
    )
    cells = runner.plan(runner.resolve(chosen), place)
    assert [str(cell.spec.control) for cell in cells] == ["none"]
    other = grid(toy_folder, method=_NAME, setting="general", options={})
    assert [result.status for result in run(other, place)] == [Status.SKIPPED]
