"""KnowBert's knowledge attention and recontextualization against its published equations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.errors import Unsupported, UsageError
from kbench.grid.plan import Place
from kbench.knowledge import Bundle, Entity, KnowledgeBase, write_bundle, write_vectors
from kbench.knowledge.controls import Random, Shuffled, Zero
from kbench.method import Plug
from kbench.model import LanguageModel, digest
from kbench.model.freezing import frozen
from kbench.model.huggingface import load_folder
from kbench.testing.toys import write_backbone
from kbench.training import History, Recipe
from kbench_baselines.kar import Kar, KarPlug, right_inverse
from kbench_baselines.namesakes import Namesakes
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
def plug(lm: LanguageModel, bundle: Bundle) -> KarPlug:
    """A plug whose parameters are all random, in eval mode."""
    built = Kar().build(lm, bundle)
    assert isinstance(built, KarPlug)
    world.shaken(built)
    return built.eval()


# What the module does.


def _candidates(bundle: Bundle, linked: int) -> list[tuple[int, float]]:
    """Entities with a vector that share a name with the linked one, and their priors."""
    names = [{n.casefold() for n in (e.label, *e.aliases)} for e in world.ENTITIES]
    rows = [row for row in range(8) if names[row] & names[linked]]
    facts = [
        1 + sum((e.id == head) + (e.id == tail) for head, _, tail in world.TRIPLES)
        for e in world.ENTITIES
    ]
    return [(row, facts[row] / sum(facts[other] for other in rows)) for row in rows]


def _vector(bundle: Bundle, row: int) -> Tensor:
    return torch.from_numpy(bundle.vectors(np.array([row]))[0])


def _scores(bundle: Bundle, plug: Any, span: Tensor, linked: int) -> list[tuple[int, Tensor]]:
    """Candidates and what the judge says of each."""
    return [
        (
            row,
            plug.judge(
                torch.stack(
                    [
                        torch.tensor(prior),
                        span @ world.normal(plug.entity_norm, _vector(bundle, row)) / math.sqrt(6),
                    ]
                )
            )[0],
        )
        for row, prior in _candidates(bundle, linked)
    ]


def _spans(plug: Any, tokens: list[Tensor], links: list[tuple[int, int, int]]) -> list[Tensor]:
    """The span states after their encoder."""
    pooled = []
    for start, end, _ in links:
        weights = [(plug.weigh.weight[0] @ token + plug.weigh.bias[0]).exp() for token in tokens]
        total = sum(weights[start:end])
        mean = sum(weights[at] / total * tokens[at] for at in range(start, end))
        pooled.append(world.normal(plug.span_norm, mean))
    return world.transform(plug.span_encoder, pooled, pooled)


def _plain(
    lm: LanguageModel, bundle: Bundle, plug: Any, ids: Tensor, links: list[tuple[int, int, int]]
) -> Tensor:
    """The equations on one example without padding, token by token. ``[tokens, H]``."""
    bert = lm.base
    hidden = bert.embeddings(input_ids=ids)
    for number, layer in enumerate(bert.encoder.layer):
        hidden = layer(hidden, None)
        if number == 3 and links:  # four of five layers are below
            tokens = [plug.down.weight @ state + plug.down.bias for state in hidden[0]]
            informed = []
            for span, (_, _, linked) in zip(_spans(plug, tokens, links), links, strict=True):
                scores = _scores(bundle, plug, span, linked)
                total = sum(score.exp() for _, score in scores)
                mixed = sum(
                    score.exp() / total * world.normal(plug.entity_norm, _vector(bundle, row))
                    for row, score in scores
                )
                informed.append(world.normal(plug.told_norm, span + mixed))
            changed = world.transform(plug.recontext, tokens, informed)
            added = [plug.up.weight @ state + plug.up.bias for state in changed]
            hidden = hidden + torch.stack(added)[None]
    result: Tensor = hidden[0]
    return result


def test_a_padded_batch_has_the_states_of_the_equations_on_each_example(
    lm: LanguageModel, bundle: Bundle, plug: KarPlug
) -> None:
    inputs = world.texts(lm, bundle)
    with torch.no_grad(), plug.attach(lm):
        ours = lm(world.whole(inputs))
    assert [len(world.links(inputs, number)) for number in range(7)] == [2, 1, 0, 2, 1, 0, 3]
    for number in range(len(inputs)):
        links = world.links(inputs, number)
        with torch.no_grad():
            theirs = _plain(lm, bundle, plug, world.ids(inputs, number), links)
        torch.testing.assert_close(ours[number, : len(theirs)], theirs, atol=1e-5, rtol=1e-5)


def test_an_example_alone_is_as_in_a_padded_batch(
    lm: LanguageModel, bundle: Bundle, plug: KarPlug
) -> None:
    inputs = world.texts(lm, bundle)
    with torch.no_grad(), plug.attach(lm):
        together = lm(world.whole(inputs))
        for number in range(len(inputs)):
            alone = lm(inputs.collate(np.array([number])))[0]
            torch.testing.assert_close(alone, together[number, : len(alone)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("depth", "after"), [(1, 0), (2, 0), (3, 1), (4, 2), (6, 4), (12, 9), (24, 19)]
)
def test_ten_of_twelve_layers_are_below(depth: int, after: int, bundle: Bundle) -> None:
    assert KarPlug(bundle, 16, depth, 8).after == after


def test_at_the_size_of_knowbert_the_parameters_are_those_of_its_parts() -> None:
    class Nothing:
        dimension = 300
        triples = np.empty((0, 3), dtype=np.int32)

        def __len__(self) -> int:
            return 0

        def has_vector(self, rows: Any) -> Any:
            return np.empty(0, dtype=bool)

        def each_name(self) -> Any:
            return ()

    with torch.device("meta"):
        plug = KarPlug(Nothing(), 768, 12, 8)  # type: ignore[arg-type]
    attention = 4 * (300 * 300 + 300) + 2 * 300
    block = attention + (300 * 1024 + 1024) + (1024 * 300 + 300) + 2 * 300
    judge = (2 * 100 + 100) + (100 + 1)
    there, back = 768 * 300 + 300, 300 * 768 + 768
    expected = there + (300 + 1) + 3 * 2 * 300 + 2 * block + judge + back
    width, inner = 300, 1024
    closed = 2 * width * 768 + 768 + 8 * width**2 + 4 * width * inner + 2 * inner + 26 * width + 402
    assert sum(p.numel() for p in plug.parameters()) == expected == closed == 2_420_618


# Candidates.


def test_candidates_share_a_name_whatever_its_case_and_are_as_likely_as_they_are_known(
    bundle: Bundle,
) -> None:
    namesakes = Namesakes(bundle, 8)
    assert namesakes.rows.tolist() == [0, 2, 3, 4, 5, 6]
    found, priors = namesakes.of(np.array([0, 1, 2, 5, 6]))
    # Own first, then by prior, then by row: facts of Q0 1, Q2 2, Q5 3, Q6 2.
    assert found.tolist() == [
        [0, 6, -1, -1],
        [1, -1, -1, -1],
        [2, 5, 6, -1],
        [5, 2, 6, -1],
        [6, 5, 2, 0],
    ]
    expected = np.array(
        [
            [2 / 5, 3 / 5, 0, 0],
            [1, 0, 0, 0],
            [3 / 10, 4 / 10, 3 / 10, 0],
            [4 / 10, 3 / 10, 3 / 10, 0],
            [3 / 12, 4 / 12, 3 / 12, 2 / 12],
        ]
    )
    np.testing.assert_allclose(priors, expected, atol=1e-6)


def test_no_wider_than_asked_for_and_no_wider_than_needed(bundle: Bundle) -> None:
    assert Namesakes(bundle, 8).of(np.array([1, 7]))[0].tolist() == [[1], [7]]
    assert Namesakes(bundle, 8).of(np.array([0, 1]))[0].shape == (2, 2)
    found, priors = Namesakes(bundle, 2).of(np.array([6, 5]))
    assert found.tolist() == [[6, 5], [5, 2]]
    np.testing.assert_allclose(priors, [[3 / 7, 4 / 7], [4 / 7, 3 / 7]], atol=1e-6)
    alone = Namesakes(bundle, 1)
    assert alone.of(np.array([6]))[0].tolist() == [[6]]


def test_a_common_name_costs_no_more_than_its_likeliest_bearers(tmp_path: Path) -> None:
    card = {"name": "smiths", "version": "1", "licence": "none", "source": "test"}
    entities = [Entity(f"Q{number:04}", "John Smith") for number in range(3000)]
    write_bundle(tmp_path, card, entities, [("Q0007", "r", "Q0009")], {"r": "r"})
    bundle = write_vectors(tmp_path, np.ones((3000, 2), dtype=np.float32), {"model": "ones"})
    found, _ = Namesakes(bundle, 4).of(np.array([7, 2000]))
    assert found.tolist() == [[7, 9, 0, 1], [2000, 7, 9, 0]]


def test_controls_leave_names_and_break_priors(bundle: Bundle) -> None:
    rows = np.array([0, 2, 6])
    true, true_priors = Namesakes(bundle, 8).of(rows)
    for broken in (Shuffled(bundle, 0), Random(bundle, 0), Zero(bundle)):
        found, priors = Namesakes(broken, 8).of(rows)
        assert [sorted(row) for row in found.tolist()] == [sorted(row) for row in true.tolist()]
        assert not np.allclose(priors, true_priors)


# What holds for every method.


def test_an_example_without_an_entity_is_untouched_whatever_the_plug(
    lm: LanguageModel, bundle: Bundle, plug: KarPlug
) -> None:
    inputs = world.texts(lm, bundle)
    batch = world.whole(inputs)
    with torch.no_grad():
        base = lm(batch)
        with plug.attach(lm):
            changed = lm(batch)
        alone = inputs.collate(np.array([2, 5]))
        with plug.attach(lm):
            unlinked = lm(alone)
        assert torch.equal(unlinked, lm(alone))
    assert torch.equal(changed[[2, 5]], base[[2, 5]])
    assert all((changed[n] - base[n]).abs().max() > 1e-2 for n in (0, 1, 3, 4, 6))


def test_at_first_the_model_is_itself_and_afterwards_too(lm: LanguageModel, bundle: Bundle) -> None:
    plug = Kar().build(lm, bundle).eval()
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


def test_gradients_reach_the_module_and_nothing_else(
    lm: LanguageModel, bundle: Bundle, plug: KarPlug
) -> None:
    batch = world.whole(world.texts(lm, bundle))
    with frozen(lm), plug.attach(lm):
        lm(batch).square().sum().backward()
        # What shifts all scores of a softmax alike has no part in the result.
        idle = ("key.bias", "weigh.bias", "judge.2.bias")
        for name, parameter in plug.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0 or name.endswith(idle), name
        assert all(p.grad is None for p in lm.parameters())


def _fit(lm: LanguageModel, knowledge: KnowledgeBase, seed: int = 0) -> tuple[Plug, History]:
    recipe = Recipe(3e-3, 8, 4, warmup=0.1, decay="constant", dropout=0.1)
    return fitted(Kar(), lm, knowledge, recipe, seed)


def test_general_training_learns_leaves_the_model_alone_and_repeats_itself(
    lm: LanguageModel, tmp_path: Path
) -> None:
    knowledge = world.write_linked(tmp_path / "kb", copies=20)
    before = digest(lm)
    (one, history), (same, _), (other, _) = (_fit(lm, knowledge, s) for s in (0, 0, 1))
    assert digest(lm) == before
    assert digest(one) == digest(same) != digest(other)
    assert history.losses[-1] < history.losses[0] - 0.2
    assert history.counts["corpus_sentences"] == 7 * 20
    assert all(p.requires_grad for p in one.parameters())
    assert digest(_fit(lm, Shuffled(knowledge, 0))[0]) != digest(one)


def test_the_linking_loss_is_that_of_mentions_with_several_candidates(
    lm: LanguageModel, bundle: Bundle, plug: KarPlug
) -> None:
    inputs = world.texts(lm, bundle)
    for dropout in (m for m in plug.modules() if isinstance(m, torch.nn.Dropout)):
        dropout.p = 0.0
    with torch.no_grad():
        states = lm(world.whole(inputs))
    losses = []
    with torch.no_grad():
        for number in range(7):
            links = world.links(inputs, number)
            length = int(inputs.lengths[number])
            tokens = [plug.down.weight @ s + plug.down.bias for s in states[number, :length]]
            for span, (_, _, linked) in zip(_spans(plug, tokens, links), links, strict=True):
                scores = dict(_scores(bundle, plug, span, linked))
                if len(scores) > 1:
                    total = torch.logsumexp(torch.stack(list(scores.values())), 0)
                    losses.append(float(total - scores[linked]))
    assert len(losses) == 7  # vozuba, twice, has no namesake
    from kbench_baselines.linked import linked

    mentions = linked(world.whole(inputs))
    assert mentions is not None
    for part in (plug, plug.judge):  # heard while training, with nothing dropped inside
        part.training = True
    with torch.no_grad():
        plug.told(states, mentions)
    assert plug.linking is not None
    assert plug.linking.item() == pytest.approx(np.mean(losses), abs=1e-5)


def test_the_linking_loss_is_kept_only_while_training(
    lm: LanguageModel, bundle: Bundle, plug: KarPlug
) -> None:
    inputs = world.texts(lm, bundle)
    with torch.no_grad(), plug.attach(lm):
        lm(world.whole(inputs))
        assert plug.linking is None
        plug.train()
        lm(world.whole(inputs))
        assert plug.linking is not None
        lm(inputs.collate(np.array([2])))
        assert plug.linking is None
        lm(world.whole(inputs))
    assert plug.linking is None


# The other start.


def test_the_right_inverse_undoes_a_wide_map() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Linear(768, 300).weight.detach()
    assert (weight @ right_inverse(weight) - torch.eye(300)).abs().max() < 1e-4
    torch.testing.assert_close(
        right_inverse(weight), torch.linalg.pinv(weight), atol=1e-4, rtol=1e-3
    )


def test_the_inverse_start_undoes_the_way_in_and_is_not_the_model(
    lm: LanguageModel, bundle: Bundle
) -> None:
    plug: Any = Kar({"init": "inverse"}).build(lm, bundle).eval()
    states = torch.randn(5, 6)
    torch.testing.assert_close(plug.down(plug.up(states)), states, atol=1e-4, rtol=1e-4)
    batch = world.whole(world.texts(lm, bundle))
    with torch.no_grad():
        base = lm(batch)
        with plug.attach(lm):
            changed = lm(batch)
    assert torch.equal(changed[[2, 5]], base[[2, 5]])
    assert (changed[0] - base[0]).abs().max() > 1e-2


# Where it does not apply.


def test_options_that_make_no_sense_are_refused() -> None:
    for options, expected in (
        ({"init": "one"}, "init is 'one'; expected zero or inverse"),
        ({"candidates": 0}, "candidates is 0; expected a whole number of at least 1"),
    ):
        with pytest.raises(UsageError, match=expected):
            Kar(options)


def test_vectors_wider_than_the_model_have_no_inverse_start(
    lm: LanguageModel, tmp_path: Path
) -> None:
    wide = world.write_linked(tmp_path / "kb", dimension=40)
    assert Kar().build(lm, wide)
    with pytest.raises(Unsupported, match="40 > 32"):
        Kar({"init": "inverse"}).build(lm, wide)


def test_without_a_masked_lm_head_general_training_is_unsupported(
    bundle: Bundle, tmp_path: Path
) -> None:
    headless = load_folder(write_backbone(tmp_path / "bert", lm_head=False))
    assert not Kar().starts_general(headless, bundle)
    with pytest.raises(Unsupported, match="masked-LM head"):
        _fit(headless, bundle)


# Planted knowledge.


@pytest.fixture
def scores(
    request: pytest.FixtureRequest, toy_tasks: None, toy_folder: Path, tmp_path: Path, made: Path
) -> dict[str, float]:
    recipe = {"learning_rate": 1e-2, "epochs": 8, "batch_size": 16, "dropout": None}
    place = Place(tmp_path / "out", made, "cpu")
    return planted(Kar, request.param, recipe, toy_folder, place)


@pytest.mark.parametrize(
    "scores", [("toy-relations", "task-specific", "none,shuffled,random")], indirect=True
)
def test_planted_knowledge_is_found_and_controls_fall_to_chance(scores: dict[str, float]) -> None:
    assert scores["none"] > 0.8
    assert max(scores["base"], scores["shuffled"], scores["random"]) < 0.45


@pytest.mark.parametrize("scores", [("toy-relations", "fine-tuning", "none")], indirect=True)
def test_a_fixed_plug_brings_knowledge_to_a_model_tuned_with_it(scores: dict[str, float]) -> None:
    assert scores["none"] > 0.8
    assert scores["base"] < 0.45
