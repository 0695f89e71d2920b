"""K-Adapter beside a model that reads from left to right: nobody sees what comes later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.data import Example, Mention
from kbench.encoding import Batch, Inputs, Layout, Tree, Trees, encode
from kbench.grid.plan import Place
from kbench.knowledge import Bundle, Entity, Sentence, write_bundle
from kbench.knowledge.controls import Shuffled
from kbench.model import FrozenReader, LanguageModel
from kbench.model.candidates import log_likelihoods
from kbench.model.freezing import frozen
from kbench.model.generation import NOTHING, go_on
from kbench.model.huggingface import HuggingFaceBackbone, load_folder
from kbench.parts.catalogue import Kind
from kbench.spec import Setting
from kbench.store import Status
from kbench.testing import registered
from kbench.training import Recipe, train
from kbench_baselines.k_adapter import (
    Adapter,
    FactualPretraining,
    KAdapter,
    KnowledgeAdapter,
    taps,
)
from kbench_baselines.spelled_facts import spelled_facts
from tests import reference
from tests.architectures import write_decoder
from tests.baselines.trials import fitted
from tests.grid.test_planted_decoders import write_decoder as write_toy_decoder
from tests.grid.toygrid import grid, run

TEXTS = ("we saw istanbul today", "near the river it rained and we saw istanbul again", "it")
CANDIDATES = ([5], [6, 7], [6, 7, 8], [6, 9], [10, 5, 6, 7], [5, 5])


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A decoder of five layers, so that all taps differ, and of two heads' width."""
    folder = tmp_path_factory.mktemp(request.param)
    changes = {"num_hidden_layers": 5, "hidden_size": 128, "initializer_range": 0.1}
    lm = load_folder(write_decoder(folder, request.param, **changes))
    assert len({*taps(len(lm.layers))}) == 3
    return lm


@pytest.fixture(scope="module")
def plug(lm: LanguageModel) -> KnowledgeAdapter:
    """An adapter whose every weight shows."""
    torch.manual_seed(4)
    plug = KnowledgeAdapter(lm.width, 0.3)
    with torch.no_grad():
        for parameter in plug.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    assert [module.heads for module in plug.adapter.modules_in_turn] == [2] * 3
    return plug.eval()


def inputs_of(lm: LanguageModel, *texts: str) -> Inputs:
    examples = [Example(str(n), text, (), "", blank=len(text)) for n, text in enumerate(texts)]
    return encode(lm.tokenizer, examples, [()] * len(texts), Layout({}, left_to_right=True))


def batch_of(lm: LanguageModel, *texts: str) -> Batch:
    return inputs_of(lm, *texts).collate(np.arange(len(texts)))


def states(lm: LanguageModel, plug: KnowledgeAdapter, batch: Batch, grad: bool = False) -> Tensor:
    with torch.set_grad_enabled(grad), plug.attach(lm):
        hidden: Tensor = lm(batch)
    return hidden.detach()


def close(one: Tensor, other: Tensor) -> None:
    most = max(1.0, float(other.abs().max()))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * most)


@pytest.mark.parametrize("grad", [False, True])
def test_a_later_token_changes_no_state_before_it(
    lm: LanguageModel, plug: KnowledgeAdapter, grad: bool
) -> None:
    batch = batch_of(lm, TEXTS[1])
    before = states(lm, plug, batch, grad)[0]
    bare = lm(batch)[0].detach()
    assert (before - bare).abs().amax(-1).min() > 1e-2  # it speaks at every token
    for at in range(1, batch.ids.shape[1]):
        ids = batch.ids.clone()
        ids[0, at] = (ids[0, at] + 1) % len(lm.tokenizer)
        after = states(lm, plug, replace(batch, ids=ids), grad)[0]
        close(after[:at], before[:at])
        assert (after[at:] - before[at:]).abs().amax(-1).min() > 1e-4


def test_the_modules_look_back(lm: LanguageModel, plug: KnowledgeAdapter) -> None:
    """What is added at a token hangs on those before it, also where the network's states do not."""
    given = [torch.randn(1, 4, lm.width) for _ in range(3)]
    other = [state.clone() for state in given]
    for state in other:
        state[0, 1] += 1
    seen = torch.ones(1, 4, 4, dtype=torch.bool).tril()
    with torch.no_grad():
        one, two = plug.adapter(given, seen)[0], plug.adapter(other, seen)[0]
    close(one[0, :1], two[0, :1])
    assert (one - two)[0, 1:].abs().amax(-1).min() > 1e-3


def test_where_all_see_all_the_modules_are_those_of_an_encoder(
    lm: LanguageModel, plug: KnowledgeAdapter
) -> None:
    given = [torch.randn(2, 4, lm.width) for _ in range(3)]
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    seen = (mask > 0)[:, None].expand(2, 4, 4) | torch.eye(4, dtype=torch.bool)
    with torch.no_grad():
        for one, two in zip(plug.adapter(given, seen), plug.adapter(given, mask), strict=True):
            close(one[mask > 0], two[mask > 0])


@pytest.mark.parametrize("grad", [False, True])
def test_neither_padding_nor_its_side_matters(
    lm: LanguageModel, plug: KnowledgeAdapter, grad: bool
) -> None:
    batch = batch_of(lm, *TEXTS)
    assert batch.mask.min() == 0
    lengths = batch.mask.sum(1).tolist()
    width = batch.ids.shape[1]
    left = replace(
        batch,
        ids=torch.stack([i.roll(width - n) for i, n in zip(batch.ids, lengths, strict=True)]),
        mask=batch.mask.flip(1),
        positions=(batch.mask.flip(1).cumsum(1) - 1).clamp(min=0),
    )
    right, shifted = states(lm, plug, batch, grad), states(lm, plug, left, grad)
    assert right.isfinite().all()
    assert shifted.isfinite().all()
    for row, length in enumerate(lengths):
        alone = states(lm, plug, batch_of(lm, TEXTS[row]), grad)[0]
        close(right[row, :length], alone)
        close(shifted[row, width - length :], alone)


def trees_of(lm: LanguageModel, *candidates: list[int]) -> Trees:
    inputs = inputs_of(lm, *TEXTS)
    return Trees(inputs, (Tree.of(candidates),), np.zeros(len(inputs), dtype=np.int64))


def test_a_candidate_in_a_tree_is_worth_what_it_is_in_a_row(
    lm: LanguageModel, plug: KnowledgeAdapter
) -> None:
    batch = trees_of(lm, *CANDIDATES).collate(np.arange(3))
    with torch.inference_mode():
        bare = log_likelihoods(lm, lm(batch), batch)
        with plug.attach(lm):
            together = log_likelihoods(lm, lm(batch), batch)
            for row, text in enumerate(TEXTS):
                own = batch_of(lm, text)
                for column, candidate in enumerate(CANDIDATES):
                    ids = torch.cat([own.ids, torch.tensor([candidate])], 1)
                    hidden = lm(replace(own, ids=ids, mask=torch.ones_like(ids)))
                    said = lm.predict_tokens(hidden[0]).log_softmax(-1)[-len(candidate) - 1 : -1]
                    alone = said[range(len(candidate)), candidate].sum()
                    close(together[row, column], alone)
    assert (together - bare).abs().min() > 1e-3


def test_what_is_read_of_trees_once_is_what_they_say(
    lm: LanguageModel, plug: KnowledgeAdapter
) -> None:
    """Also of other trees of as many tokens, behind the same texts."""
    reader = FrozenReader(lm, torch.device("cpu"))
    for candidates in (CANDIDATES, [[own + 1 for own in c] for c in CANDIDATES]):
        trees = trees_of(lm, *candidates)
        kept = reader.read(trees, plug.reading(lm))
        assert kept is not None
        for chosen in (np.arange(3), np.array([2]), np.array([1, 0])):
            batch = trees.collate(chosen)
            assert batch.tree is not None
            where = batch.tree.states
            direct = states(lm, plug, batch).flatten(0, 1)[where]
            close(states(lm, plug, kept.into(batch)).flatten(0, 1)[where], direct)


def test_texts_that_end_take_what_the_modules_know_of_them_along(
    lm: LanguageModel, plug: KnowledgeAdapter
) -> None:
    batch = batch_of(lm, *TEXTS)
    never = torch.empty(0, dtype=torch.int64)
    with torch.inference_mode(), plug.attach(lm):
        all_said, _ = go_on(lm, batch, 6, never)
        for row in range(3):  # each ends first once
            ends = all_said[row, :1]
            tokens, said = go_on(lm, batch, 6, ends)
            for at, text in enumerate(TEXTS):
                alone, likely = go_on(lm, batch_of(lm, text), 6, ends)
                assert torch.equal(tokens[at], alone[0])
                close(said[at], likely[0])
            assert (tokens[row, 1:] == NOTHING).all()
    assert torch.equal(lm(batch), lm(batch))  # and nothing is left of the cache


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_beside_a_body_that_is_held_narrow_the_modules_compute_in_float32(
    tmp_path: Path, name: str
) -> None:
    folder = write_decoder(tmp_path / name, name, num_hidden_layers=5)
    narrow = HuggingFaceBackbone(str(folder)).load_held("bfloat16")
    torch.manual_seed(0)
    plug = KnowledgeAdapter(narrow.width, 1.0)
    plug.train()
    given: list[Tensor] = []
    plug.adapter.register_forward_pre_hook(lambda _, args: given.extend(args[0]))
    batch = batch_of(narrow, *TEXTS)
    with frozen(narrow), plug.attach(narrow):
        narrow(batch).square().sum().backward()
    assert [state.dtype for state in given] == [torch.float32] * 3
    assert all(p.grad is not None for p in plug.adapter.parameters())
    with torch.inference_mode(), plug.attach(narrow):
        go_on(narrow, batch, 3, torch.empty(0, dtype=torch.int64))


# The facts.

_PATTERNS = {
    "near": ("{} was near {}", "near {} it was {}"),
    "saw": ("{} saw {} today", "we saw {} as {} rained"),
    "spoke": ("{} spoke of {}", "they spoke of {} with {}"),
    "color": ("the color of {} is {}", "{} looks as {}"),
}


def world(folder: Path, per_relation: int, seed: int) -> Bundle:
    """Facts of four relations that the words around the mentions tell."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("bcdfghklmnprstvz"))
    names = ["".join(rng.choice(letters, 3)) + str(n) for n in range(8 * per_relation)]
    triples, sentences = [], []
    for number in range(4 * per_relation):
        pair = names[2 * number], names[2 * number + 1]
        relation = list(_PATTERNS)[number % 4]
        text = _PATTERNS[relation][number // 4 % 2].format(*pair)
        triples.append((f"Q{pair[0]}", relation, f"Q{pair[1]}"))
        spans = zip(reference.bounds(text, *pair), pair, strict=True)
        mentions = tuple(Mention(*at, entity=f"Q{name}") for at, name in spans)
        sentences.append(Sentence(text, mentions))
    card = {"name": "facts", "version": "1", "licence": "none", "source": "test"}
    entities = [Entity(f"Q{name}", name) for name in names]
    write_bundle(folder, card, entities, triples, {r: r for r in _PATTERNS}, sentences)
    return Bundle(folder)


@pytest.fixture(scope="module")
def toy_decoder(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_decoder(tmp_path_factory.mktemp("toy") / "llama", toy_folder, "llama")


def test_facts_are_read_where_their_mentions_have_been_seen(
    toy_decoder: Path, toy_folder: Path, tmp_path: Path
) -> None:
    knowledge = world(tmp_path / "kb", 2, 0)
    for folder, after in ((toy_decoder, 1), (toy_folder / "bert", 0)):
        lm = load_folder(folder)
        data = spelled_facts(lm, knowledge, max_length=64, least=1)
        batch = data.batch(np.arange(len(data.lengths)))
        at = lm.telling_markers(batch.mentions)
        signs = lm.tokenizer.convert_ids_to_tokens(batch.ids.flatten()[at].tolist())
        assert {*signs} == {"@", "#"}
        assert [sign > "@" for sign in signs] == [False] * len(signs)
        assert signs[::2] == ["@"] * (len(signs) // 2)
        assert ((at >= batch.mentions[:, 1]) == bool(after)).all()


def learnt(lm: LanguageModel, knowledge: Any, unseen: Bundle) -> float:
    """Accuracy of the factual pre-training on facts that it has not seen."""
    data = spelled_facts(lm, knowledge, max_length=64, least=2)
    torch.manual_seed(0)
    teacher = FactualPretraining(Adapter(lm.width), lm.width, data.relations)
    recipe = Recipe(3e-3, 32, 12, warmup=0.1, clip=1.0)
    with frozen(lm), teacher.attach(lm):
        train(
            teacher,
            lambda batch: teacher.loss(lm, batch),
            data,
            recipe,
            seed=0,
            device=torch.device("cpu"),
        )
        teacher.eval()
        known = spelled_facts(lm, unseen, max_length=64, least=2)
        batch = known.batch(np.arange(len(known.lengths)))
        with torch.no_grad():
            best = teacher.head.logits(lm, lm(batch), batch).argmax(-1)
        assert batch.targets is not None
        return float((best == batch.targets).float().mean())


def test_facts_are_learnt_through_a_decoder_and_broken_ones_are_not(
    toy_decoder: Path, tmp_path: Path
) -> None:
    lm = load_folder(toy_decoder)
    knowledge, unseen = world(tmp_path / "kb", 80, 0), world(tmp_path / "unseen", 40, 1)
    true, false = learnt(lm, knowledge, unseen), learnt(lm, Shuffled(knowledge, 0), unseen)
    assert true > 0.8
    assert false < 0.4


def test_facts_read_once_teach_what_facts_read_anew_do(toy_decoder: Path, tmp_path: Path) -> None:
    lm, knowledge = load_folder(toy_decoder), world(tmp_path / "kb", 8, 0)
    found = []
    for dropout in (None, 0.0):  # with a rate of its own the network is read in each epoch
        recipe = Recipe(3e-3, 32, 2, dropout=dropout)
        found.append(fitted(KAdapter({"min_examples": 2}), lm, knowledge, recipe)[1])
    assert [history.states for history in found] == ["kept", ""]
    np.testing.assert_allclose(found[0].losses, found[1].losses, atol=1e-4)


# Whole runs.

_GENERAL = {"learning_rate": 3e-3, "epochs": 8, "batch_size": 16}
_MAP = {"learning_rate": 3e-3, "epochs": 3, "batch_size": 64}


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize("answers", ["labels", "open", "ranked"])
def test_every_setting_runs_with_true_and_with_shuffled_knowledge(
    toy_decoder: Path, toy_folder: Path, tmp_path: Path, answers: str
) -> None:
    options = {"k-adapter": {"general": _GENERAL, "task-specific": _MAP}}
    chosen = grid(
        toy_folder,
        task="toy-relations" if answers == "labels" else "toy-answers",
        method="none,k-adapter",
        backbone=str(toy_decoder),
        tuning="prompted",
        knowledge=str(world(tmp_path / "kb", 20, 0).folder),
        setting="general,task-specific",
        control="none,shuffled",
        options={
            "method": options,
            "task": {} if answers == "labels" else {"toy-answers": {"answers": answers}},
        },
    )
    asked = "tests.grid.test_spoken_answers:ToyAnswers"
    with registered(Kind.TASKS, **{"toy-answers": asked}):
        results = run(chosen, Place(tmp_path / "out", tmp_path / "artifacts", "cpu"))
    assert len(results) == 5
    losses: dict[tuple[str, str], list[float]] = {}
    for result in results:
        assert result.status == Status.OK, result.reason
        if result.spec.method == "k-adapter":
            history = result.training["plug"]["history"]
            specific = result.spec.setting == Setting.TASK_SPECIFIC
            # What is said is learnt from other texts than it is asked of.
            assert history["states"] == ("" if specific and answers == "open" else "kept")
            losses[str(result.spec.setting), str(result.spec.control)] = history["losses"]
    for own in losses.values():
        assert own[-1] < own[0]
    # The sentences of shuffled facts tell nothing of their relations.
    assert losses["general", "none"][-1] < losses["general", "shuffled"][-1]
