"""ERNIE's fusion layers against their published equations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.corpus import masked_tokens
from kbench.errors import Unsupported
from kbench.grid.plan import Place
from kbench.knowledge import Bundle, KnowledgeBase
from kbench.knowledge.controls import Shuffled
from kbench.method import Plug
from kbench.model import LanguageModel, digest
from kbench.model.freezing import frozen
from kbench.model.huggingface import load_folder
from kbench.testing.toys import write_backbone
from kbench.training import History, Recipe
from kbench_baselines.ernie import Ernie, ErniePlug, Fusion, NoisyLinks, denoising_loss
from tests import linked_world as world
from tests.baselines.trials import fitted, planted


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("bert")
    return load_folder(write_backbone(folder, layers=5)).eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return world.write_linked(tmp_path_factory.mktemp("kb"))


@pytest.fixture
def plug(lm: LanguageModel, bundle: Bundle) -> ErniePlug:
    """A plug whose parameters are all random, in eval mode."""
    built = Ernie().build(lm, bundle)
    assert isinstance(built, ErniePlug)
    world.shaken(built)
    return built.eval()


# What the layers do.


def _plain(lm: LanguageModel, plug: ErniePlug, ids: Tensor, entities: dict[int, Tensor]) -> Tensor:
    """The equations on one example without padding, token by token. ``[tokens, H]``."""
    bert = lm.base
    hidden = bert.embeddings(input_ids=ids)
    for number, layer in enumerate(bert.encoder.layer):
        attended = layer.attention(hidden, None)[0]
        before = layer.intermediate.dense(attended)
        if number >= 2:  # of 5 layers the first 2 are plain
            fusion: Any = plug.fusions[number - 2]
            if number >= 3 and entities:  # the first fused layer has no attention
                states = list(entities.values())
                met = world.attend(fusion.attention, states, states)
                entities = dict(zip(entities, met, strict=True))
            for place, state in entities.items():
                before[0, place] += fusion.into.weight @ state + fusion.into.bias
        inner = torch.nn.functional.gelu(before)
        if 2 <= number < 4:  # nobody reads those after the last
            entities = {
                place: world.normal(fusion.norm, state + fusion.out(inner[0, place]))
                for place, state in entities.items()
            }
        hidden = layer.output(inner, attended)
    result: Tensor = hidden[0]
    return result


def test_a_padded_batch_has_the_states_of_the_equations_on_each_example(
    lm: LanguageModel, bundle: Bundle, plug: ErniePlug
) -> None:
    inputs = world.texts(lm, bundle)
    with torch.no_grad(), plug.attach(lm):
        ours = lm(world.whole(inputs))
    assert [len(world.links(inputs, number)) for number in range(7)] == [2, 1, 0, 2, 1, 0, 3]
    for number in range(len(inputs)):
        entities = {
            start: torch.from_numpy(bundle.vectors(np.array([row]))[0])
            for start, _, row in world.links(inputs, number)
        }
        with torch.no_grad():
            theirs = _plain(lm, plug, world.ids(inputs, number), entities)
        torch.testing.assert_close(ours[number, : len(theirs)], theirs, atol=1e-5, rtol=0)


def test_each_pass_begins_the_stream_anew(
    lm: LanguageModel, bundle: Bundle, plug: ErniePlug
) -> None:
    inputs = world.texts(lm, bundle)
    with torch.no_grad(), plug.attach(lm):
        together = lm(world.whole(inputs))
        for number in range(len(inputs)):  # with links, then without, then with others
            alone = lm(inputs.collate(np.array([number])))[0]
            torch.testing.assert_close(alone, together[number, : len(alone)], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("depth", "plain"), [(1, 0), (2, 0), (3, 1), (4, 1), (6, 2), (12, 5), (24, 10)]
)
def test_the_first_five_twelfths_of_the_layers_stay_plain(depth: int, plain: int) -> None:
    class Vectors:
        dimension = 8

    plug = ErniePlug(Vectors(), depth, 16)  # type: ignore[arg-type]
    fusions: list[Any] = list(plug.fusions)
    assert (plug.first, len(fusions)) == (plain, depth - plain)
    assert [f.attention is not None for f in fusions] == [False] + [True] * (len(fusions) - 1)
    assert [f.out is not None for f in fusions] == [True] * (len(fusions) - 1) + [False]


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_at_the_size_of_bert_base_the_parameters_are_those_of_the_paper() -> None:
    class Vectors:
        dimension = 100

    with torch.device("meta"):
        mix = Fusion(100, 3072, attends=False, goes_on=True)
        norm = Fusion(100, 3072, attends=True, goes_on=True)
        plug = ErniePlug(Vectors(), 12, 3072)  # type: ignore[arg-type]
    into, out, attention = 100 * 3072 + 3072, 3072 * 100 + 100 + 2 * 100, 4 * 100**2 + 6 * 100
    assert _count(mix) == into + out == 617_772
    assert _count(norm) == into + out + attention == 658_372
    # 4.57M with the output of the last layer, 307,500 parameters that nobody reads.
    assert _count(plug) == 617_772 + 6 * 658_372 - out == 4_260_504


# What holds for every method.


def test_an_example_without_an_entity_is_untouched_whatever_the_plug(
    lm: LanguageModel, bundle: Bundle, plug: ErniePlug
) -> None:
    inputs = world.texts(lm, bundle)
    batch = world.whole(inputs)
    with torch.no_grad():
        base = lm(batch)
        with plug.attach(lm):
            changed = lm(batch)
        alone = inputs.collate(np.array([2, 5]))
        with plug.attach(lm):
            assert torch.equal(lm(alone), lm(alone))
            unlinked = lm(alone)
        assert torch.equal(unlinked, lm(alone))
    assert torch.equal(changed[[2, 5]], base[[2, 5]])
    assert all((changed[n] - base[n]).abs().max() > 1e-2 for n in (0, 1, 3, 4, 6))


def test_at_first_the_model_is_itself_and_afterwards_too(lm: LanguageModel, bundle: Bundle) -> None:
    plug = Ernie().build(lm, bundle).eval()
    batch = world.whole(world.texts(lm, bundle))
    with torch.no_grad():
        base = lm(batch)
        with plug.attach(lm):
            assert torch.equal(lm(batch), base)
        world.shaken(plug)
        with plug.attach(lm):
            assert not torch.equal(lm(batch), base)
        assert torch.equal(lm(batch), base)
    assert not any(module._forward_hooks for module in lm.modules())


def test_gradients_reach_the_entity_side_and_nothing_else(
    lm: LanguageModel, bundle: Bundle, plug: ErniePlug
) -> None:
    batch = world.whole(world.texts(lm, bundle))
    with frozen(lm), plug.attach(lm):
        lm(batch).square().sum().backward()
        # A key's bias shifts all of a query's scores alike, so it has no part in the result.
        for name, parameter in plug.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0 or name.endswith("key.bias"), name
        assert all(p.grad is None for p in lm.parameters())


def _fit(lm: LanguageModel, knowledge: KnowledgeBase, seed: int = 0) -> tuple[Plug, History]:
    recipe = Recipe(3e-3, 8, 4, warmup=0.1, decay="constant", dropout=0.1)
    return fitted(Ernie(), lm, knowledge, recipe, seed)


def test_general_training_learns_leaves_the_model_alone_and_repeats_itself(
    lm: LanguageModel, tmp_path: Path
) -> None:
    knowledge = world.write_linked(tmp_path / "kb", copies=20)
    before = digest(lm)
    (one, history), (same, _), (other, _) = (_fit(lm, knowledge, s) for s in (0, 0, 1))
    assert digest(lm) == before
    assert digest(one) == digest(same) != digest(other)
    assert history.losses[-1] < history.losses[0] - 0.4
    assert history.counts["corpus_sentences"] == 7 * 20
    fusion: Any = one.fusions[0]  # type: ignore[index]
    assert fusion.into.weight.abs().sum() > 0
    assert all(p.requires_grad for p in one.parameters())
    # A control is another knowledge base: another plug.
    assert digest(_fit(lm, Shuffled(knowledge, 0))[0]) != digest(one)


# The denoising objective.


def test_the_denoising_loss_is_that_of_the_equation(lm: LanguageModel, bundle: Bundle) -> None:
    plug = Ernie().build(lm, bundle)
    assert isinstance(plug, ErniePlug)
    inputs = world.texts(lm, bundle)
    batch = world.whole(inputs)
    torch.manual_seed(1)
    hidden = torch.randn(len(inputs), batch.ids.shape[1], lm.width)
    head = torch.nn.Linear(lm.width, 6)
    rows = sorted({row for number in range(7) for _, _, row in world.links(inputs, number)})
    vectors = [torch.from_numpy(bundle.vectors(np.array([row]))[0]) for row in rows]
    losses = []
    for number in range(7):
        for start, _, row in world.links(inputs, number):
            told = head(hidden[number, start]).detach()
            scores = [float(told @ vector) for vector in vectors] + [0.0]  # none: a zero row
            total = np.log(sum(np.exp(score) for score in scores))
            losses.append(total - scores[rows.index(row)])
    assert len(losses) == 9
    ours = denoising_loss(head, plug, hidden, batch)
    assert ours.item() == pytest.approx(np.mean(losses), abs=1e-5)


def test_without_a_link_there_is_nothing_to_denoise(lm: LanguageModel, bundle: Bundle) -> None:
    plug = Ernie().build(lm, bundle)
    assert isinstance(plug, ErniePlug)
    batch = world.texts(lm, bundle).collate(np.array([2]))
    assert denoising_loss(torch.nn.Identity(), plug, torch.ones(1, 5, 6), batch) == 0


def test_5_of_a_hundred_links_are_wrong_and_15_are_missing(
    lm: LanguageModel, toy_knowledge: Bundle
) -> None:
    tokens = masked_tokens(lm, toy_knowledge, 62, 0)
    data = NoisyLinks(tokens, np.random.default_rng(0))
    fates, drawn = np.zeros(3), 0
    for _ in range(60):
        batch = data.batch(np.arange(len(data.lengths)))
        rows, true = batch.mention_rows, data.true(batch).mention_rows
        linked = true >= 0
        assert (rows[~linked] == -1).all()
        wrong = linked & (rows != true) & (rows >= 0)
        drawn += int(torch.isin(rows[wrong], true[linked]).sum())
        fates += [
            int(wrong.sum()),
            int((linked & (rows < 0)).sum()),
            int((rows == true)[linked].sum()),
        ]
    assert fates.sum() > 15_000
    np.testing.assert_allclose(fates / fates.sum(), [0.05, 0.15, 0.80], atol=0.01)
    assert drawn == fates[0]


# Where it does not apply.


def test_without_a_masked_lm_head_general_training_is_unsupported(
    bundle: Bundle, tmp_path: Path
) -> None:
    headless = load_folder(write_backbone(tmp_path / "bert", lm_head=False))
    assert not Ernie().starts_general(headless, bundle)
    with pytest.raises(Unsupported, match="masked-LM head"):
        _fit(headless, bundle)


def test_task_training_starts_general_unless_told_otherwise(
    lm: LanguageModel, bundle: Bundle
) -> None:
    assert Ernie().starts_general(lm, bundle)
    assert not Ernie({"start": "scratch"}).starts_general(lm, bundle)


def test_a_knowledge_base_without_vectors_is_unsupported(lm: LanguageModel) -> None:
    class Bare:
        name, dimension = "bare", 0

    with pytest.raises(Unsupported, match="bare has no entity vectors"):
        Ernie().build(lm, Bare())  # type: ignore[arg-type]


# Planted knowledge.


@pytest.fixture
def scores(
    request: pytest.FixtureRequest, toy_tasks: None, toy_folder: Path, tmp_path: Path, made: Path
) -> dict[str, float]:
    recipe = {"learning_rate": 3e-2, "epochs": 15, "batch_size": 16, "dropout": None}
    place = Place(tmp_path / "out", made, "cpu")
    return planted(Ernie, request.param, recipe, toy_folder, place)


@pytest.mark.parametrize(
    "scores", [("toy-relations", "task-specific", "none,shuffled,random")], indirect=True
)
def test_planted_knowledge_is_found_and_controls_fall_to_chance(scores: dict[str, float]) -> None:
    # Over tuned models of twelve seeds it was 0.57 to 1.
    assert scores["none"] > 0.55
    assert max(scores["base"], scores["shuffled"], scores["random"]) < 0.4


@pytest.mark.parametrize("scores", [("toy-relations", "fine-tuning", "none")], indirect=True)
def test_a_fixed_plug_brings_knowledge_to_a_model_tuned_with_it(scores: dict[str, float]) -> None:
    assert scores["none"] > 0.8
    assert scores["base"] < 0.45
