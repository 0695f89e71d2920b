"""K-Adapter against its published equations, and what of it trains when."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.bert.modeling_bert import BertEmbeddings

from kbench.data import Example, Mention, Split
from kbench.encoding import Batch, Layout, encode
from kbench.errors import Unsupported
from kbench.grid import runner
from kbench.grid.plan import Place
from kbench.knowledge import Bundle, Entity, KnowledgeBase, Sentence, write_bundle
from kbench.knowledge.controls import Shuffled, Zero
from kbench.method import Fit
from kbench.model import LanguageModel, digest
from kbench.model.freezing import frozen
from kbench.model.huggingface import load_folder
from kbench.parts.find import find_backbone
from kbench.store import Artifacts, Result, Status, hidden_states
from kbench.testing.toys import ToyRelations, write_backbone
from kbench.training import History, Recipe, train
from kbench_baselines.k_adapter import (
    Adapter,
    FactualPretraining,
    KAdapter,
    KnowledgeAdapter,
    taps,
)
from kbench_baselines.spelled_facts import FactHead, SpelledFacts, spelled_facts
from tests import reference
from tests.baselines.trials import fitted, general_fit
from tests.grid.toygrid import grid, run

_PATTERNS = {
    "near": ("{} was near {}", "near {} it was {}"),
    "saw": ("{} saw {} today", "we saw {} as {} rained"),
    "spoke": ("{} spoke of {}", "they spoke of {} with {}"),
    "color": ("the color of {} is {}", "{} looks as {}"),
}
_FAST = Recipe(3e-3, 32, 4, warmup=0.1, clip=1.0)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A BERT of six layers, so that all taps differ, and of two heads' width."""
    folder = tmp_path_factory.mktemp("deep") / "bert"
    return load_folder(write_backbone(folder, layers=6, width=128))


@pytest.fixture(scope="module")
def small(toy_folder: Path) -> LanguageModel:
    return load_folder(toy_folder / "bert")


@pytest.fixture(scope="module")
def facts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """320 facts of four relations, which the words around the mentions tell."""
    return _world(tmp_path_factory.mktemp("facts") / "kb", per_relation=80, seed=0).folder


@pytest.fixture(scope="module")
def facts(facts_folder: Path) -> Bundle:
    return Bundle(facts_folder)


def _world(folder: Path, per_relation: int, seed: int) -> Bundle:
    rng = np.random.default_rng(seed)
    letters = np.array(list("bcdfghklmnprstvz"))
    names = ["".join(rng.choice(letters, 3)) + str(n) for n in range(8 * per_relation)]
    triples, sentences = [], []
    for number in range(4 * per_relation):
        head, tail = names[2 * number], names[2 * number + 1]
        relation = list(_PATTERNS)[number % 4]
        text = _PATTERNS[relation][number // 4 % 2].format(head, tail)
        triples.append((f"Q{head}", relation, f"Q{tail}"))
        sentences.append(_sentence(text, head, tail))
    return _bundle(folder, names, triples, sentences)


def _sentence(text: str, *names: str) -> Sentence:
    spans = reference.bounds(text, *names)
    mentions = (Mention(*at, entity=f"Q{name}") for at, name in zip(spans, names, strict=True))
    return Sentence(text, tuple(mentions))


def _bundle(
    folder: Path, names: list[str], triples: list[tuple[str, str, str]], sentences: list[Sentence]
) -> Bundle:
    card = {"name": "facts", "version": "1", "licence": "none", "source": "test"}
    relations = {relation: relation for _, relation, _ in triples}
    entities = [Entity(f"Q{name}", name) for name in names]
    write_bundle(folder, card, entities, triples, relations, sentences)
    return Bundle(folder)


def _inputs(lm: LanguageModel, *texts: str) -> Batch:
    examples = [Example(str(number), text, (), "") for number, text in enumerate(texts)]
    inputs = encode(lm.tokenizer, examples, [()] * len(texts), Layout({}))
    return inputs.collate(np.arange(len(texts)))


_TEXTS = ("we saw kim today", "near the red thing it rained again", "white")


def _noisy(plug: KnowledgeAdapter, noise: float = 0.1) -> KnowledgeAdapter:
    """Weights large enough that a slip in any of them shows."""
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in plug.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return plug.eval()


# The published equations, one token and one head at a time.


def _linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def _norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    spread = ((x - x.mean()) ** 2).mean()
    return (x - x.mean()) / torch.sqrt(spread + 1e-5) * state[f"{name}.weight"] + state[
        f"{name}.bias"
    ]


def _layer(state: dict[str, Tensor], name: str, tokens: list[Tensor], heads: int) -> list[Tensor]:
    width = len(tokens[0])
    size = width // heads
    stacked = {
        "weight": f"{name}.self_attn.in_proj_weight",
        "bias": f"{name}.self_attn.in_proj_bias",
    }
    parts = [
        [state[stacked["weight"]][at : at + width] @ x + state[stacked["bias"]][at : at + width]
         for x in tokens]
        for at in (0, width, 2 * width)
    ]  # fmt: skip
    mixed = []
    for query in parts[0]:
        found = torch.zeros(width)
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            scores = [float(query[own] @ key[own]) / math.sqrt(size) for key in parts[1]]
            total = sum(math.exp(score) for score in scores)
            for score, value in zip(scores, parts[2], strict=True):
                found[own] += math.exp(score) / total * value[own]
        mixed.append(_linear(state, f"{name}.self_attn.out_proj", found))
    result = []
    for x, change in zip(tokens, mixed, strict=True):
        x = _norm(state, f"{name}.norm1", x + change)
        inner = _linear(state, f"{name}.linear1", x)
        inner = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
        result.append(_norm(state, f"{name}.norm2", x + _linear(state, f"{name}.linear2", inner)))
    return result


def _increments(
    state: dict[str, Tensor], hidden: list[Tensor], places: tuple[int, ...], heads: int
) -> tuple[Tensor, Tensor]:
    """``sum U_i`` and ``z_3`` of one unpadded input, ``[tokens, H]`` each."""
    output = torch.zeros_like(hidden[0])
    total = torch.zeros_like(hidden[0])
    for number, place in enumerate(places):
        given = [state_of + before for state_of, before in zip(hidden[place], output, strict=True)]
        name = f"modules_in_turn.{number}"
        tokens = [_linear(state, f"{name}.down", u) for u in given]
        for layer in range(2):
            tokens = _layer(state, f"{name}.layers.{layer}", tokens, heads)
        change = torch.stack([_linear(state, f"{name}.up", x) for x in tokens])
        output = torch.stack(given) + change
        total = total + change
    return total, output


def _hidden(lm: LanguageModel, batch: Batch, at: int) -> list[Tensor]:
    """Hidden states ``h^(0..L)`` of one input, as the network itself reports them."""
    length = int(batch.mask[at].sum())
    given = lm.base(input_ids=batch.ids[at : at + 1, :length], output_hidden_states=True)
    return [state[0] for state in given.hidden_states]


@pytest.mark.parametrize("mapped", [False, True])
@torch.no_grad()
def test_states_are_those_of_the_published_equations(lm: LanguageModel, mapped: bool) -> None:
    plug = _noisy(KnowledgeAdapter(lm.width, 1.0))
    plug.mapped.fill_(mapped)
    plug.choose(0.3)
    batch = _inputs(lm, *_TEXTS)
    with plug.attach(lm):
        given = lm(batch)
    state = plug.adapter.state_dict()
    for at, mask in enumerate(batch.mask.bool()):
        hidden = _hidden(lm, batch, at)
        total, output = _increments(state, hidden, (0, 2, 4), heads=2)
        assert total.norm() > 0.1 * hidden[-1].norm()
        torch.testing.assert_close(
            output, hidden[0] + hidden[2] + hidden[4] + total, atol=1e-4, rtol=1e-4
        )
        if mapped:
            rows = [torch.cat(pair) for pair in zip(hidden[-1], total, strict=True)]
            change = torch.stack([_linear(plug.state_dict(), "map", row) for row in rows])
        else:
            change = 0.3 * total
        torch.testing.assert_close(given[at, mask], hidden[-1] + change, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_output_telescopes_into_the_raw_taps_and_the_increments(lm: LanguageModel) -> None:
    adapter = _noisy(KnowledgeAdapter(lm.width, 1.0)).adapter
    states = [torch.randn(2, 5, lm.width) for _ in range(3)]
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    total, output = adapter(states, mask)
    torch.testing.assert_close(output, sum(states) + total, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grad", [False, True])
def test_a_padded_batch_gives_what_each_input_gives_alone(lm: LanguageModel, grad: bool) -> None:
    plug = _noisy(KnowledgeAdapter(lm.width, 1.0), noise=0.03)
    batch = _inputs(lm, *_TEXTS)
    assert batch.mask.min() == 0
    with torch.set_grad_enabled(grad), plug.attach(lm):
        together = lm(batch)
        for at, text in enumerate(_TEXTS):
            alone = lm(_inputs(lm, text))[0]
            torch.testing.assert_close(together[at, : len(alone)], alone, atol=1e-5, rtol=0)


def test_attention_to_padding_would_show(lm: LanguageModel) -> None:
    adapter = _noisy(KnowledgeAdapter(lm.width, 1.0)).adapter
    states = [torch.randn(1, 5, lm.width) for _ in range(3)]
    masked, _ = adapter(states, torch.tensor([[1, 1, 1, 0, 0]]))
    unmasked, _ = adapter(states, torch.ones(1, 5))
    assert (masked - unmasked)[0, :3].abs().max() > 1e-2


def test_taps_are_the_published_ones_and_scale_with_depth() -> None:
    assert taps(24) == (0, 11, 22)
    assert taps(12) == (0, 5, 10)
    assert taps(4) == (0, 1, 2)
    assert taps(2) == (0, 0, 0)
    assert taps(1) == (0, 0, 0)


@pytest.mark.parametrize(("hidden", "count"), [(768, 46_070_784), (1024, 47_251_200)])
def test_the_adapter_has_the_published_number_of_parameters(hidden: int, count: int) -> None:
    with torch.device("meta"):
        adapter = Adapter(hidden)
    assert sum(p.numel() for p in adapter.parameters()) == count
    assert adapter.modules_in_turn[0].layers[0].self_attn.num_heads == 12


def test_projections_begin_small_and_the_map_at_zero(lm: LanguageModel) -> None:
    torch.manual_seed(0)
    plug = KnowledgeAdapter(lm.width, 1.0)
    for module in plug.adapter.modules_in_turn:
        for projection in (module.down, module.up):
            assert float(projection.weight.detach().std()) == pytest.approx(0.0002, rel=0.05)
            assert not projection.bias.any()
    assert not plug.map.weight.any()
    assert not plug.map.bias.any()


@torch.no_grad()
def test_scale_zero_and_map_zero_are_the_base_model_and_nothing_is_left(lm: LanguageModel) -> None:
    plug = _noisy(KnowledgeAdapter(lm.width, 1.0))
    batch = _inputs(lm, *_TEXTS)
    base = lm(batch)
    with plug.attach(lm):
        assert (lm(batch) - base).abs().max() > 0.1
    assert torch.equal(lm(batch), base)
    plug.choose(0.0)
    with plug.attach(lm):
        assert torch.equal(lm(batch), base)
    plug.map.weight.zero_()
    plug.map.bias.zero_()
    plug.choose(1.0)
    plug.mapped.fill_(True)
    with plug.attach(lm):
        assert torch.equal(lm(batch), base)


@torch.no_grad()
def test_a_stored_plug_knows_how_it_is_read(lm: LanguageModel) -> None:
    plug = _noisy(KnowledgeAdapter(lm.width, 1.0))
    plug.mapped.fill_(True)
    again = KnowledgeAdapter(lm.width, 1.0).eval()
    again.load_state_dict(plug.state_dict())
    batch = _inputs(lm, *_TEXTS)
    with plug.attach(lm):
        first = lm(batch)
    with again.attach(lm):
        assert torch.equal(lm(batch), first)


def _data(lm: LanguageModel, knowledge: KnowledgeBase, least: int = 2) -> SpelledFacts:
    return spelled_facts(lm, knowledge, max_length=64, least=least)


def test_facts_are_read_from_the_first_marker_of_each_mention(
    small: LanguageModel, tmp_path: Path
) -> None:
    names = ["kim", "lo", "mo"]
    sentences = [
        _sentence("we saw kim near lo today", "kim", "lo"),
        _sentence("mo , kim", "mo", "kim"),
    ]
    triples = [("Qkim", "near", "Qlo"), ("Qkim", "with", "Qmo")]
    data = _data(small, _bundle(tmp_path / "kb", names, triples, sentences), least=1)
    batch = data.batch(np.arange(2))
    texts = [
        small.tokenizer.decode(i[m.bool()]) for i, m in zip(batch.ids, batch.mask, strict=True)
    ]
    assert texts == [
        "[CLS] we saw @ k ##i ##m @ near # l ##o # today [SEP]",
        "[CLS] # m ##o # , @ k ##i ##m @ [SEP]",
    ]
    tokens = small.tokenizer.convert_ids_to_tokens(batch.ids.flatten().tolist())
    assert [tokens[at] for at in (batch.mentions[:, 0] - 1).tolist()] == ["@", "#", "@", "#"]
    assert batch.targets is not None
    assert batch.targets.tolist() == [0, 1]


def test_a_mention_within_another_is_read_at_its_own_marker(
    small: LanguageModel, tmp_path: Path
) -> None:
    text = "kim lo lies in mo"
    spans = {"kimlo": (0, 6), "kim": (0, 3), "lo": (4, 6), "mo": (15, 17)}
    linked = [Mention(*span, entity=f"Q{name}") for name, span in spans.items()]
    sentences = [Sentence(text, (linked[0], mention)) for mention in linked[1:]]
    triples = [("Qkimlo", "near", "Qkim"), ("Qlo", "with", "Qkimlo"), ("Qkimlo", "near", "Qmo")]
    data = _data(small, _bundle(tmp_path / "kb", [*spans], triples, sentences), least=1)
    batch = data.batch(np.arange(len(data.lengths)))
    tokens = small.tokenizer.convert_ids_to_tokens(batch.ids.flatten().tolist())
    markers = (batch.mentions[:, 0] - 1).tolist()
    assert [tokens[at] for at in markers] == ["@", "#"] * 3
    assert len({*markers}) == len(markers)
    # What tells head from tail is read at both, each apart.
    features = torch.zeros(*batch.ids.shape, 1)
    features.flatten()[markers] = torch.arange(1.0, len(markers) + 1)
    head = FactHead(1, 2, 0.0)
    seen: list[torch.Tensor] = []
    head.dense.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    head.logits(small, features, batch)
    assert seen[0].tolist() == [[1, 2], [3, 4], [5, 6]]


def test_markers_that_a_vocabulary_lacks_are_others_that_it_has(tmp_path: Path) -> None:
    tiny = find_backbone("kbench-tiny").load()
    assert "@" not in tiny.tokenizer.get_vocab()
    names = ["rome", "paris", "berlin"]
    sentences = [
        _sentence("the rome near paris", "rome", "paris"),
        _sentence("berlin near rome", "berlin", "rome"),
    ]
    triples = [("Qrome", "near", "Qparis"), ("Qberlin", "with", "Qrome")]
    data = _data(tiny, _bundle(tmp_path / "kb", names, triples, sentences), least=1)
    batch = data.batch(np.arange(2))
    tokens = tiny.tokenizer.convert_ids_to_tokens(batch.ids.flatten().tolist())
    assert [tokens[at] for at in (batch.mentions[:, 0] - 1).tolist()] == ["$", "#"] * 2


def test_rare_relations_long_sentences_and_those_named_are_dropped(
    small: LanguageModel, tmp_path: Path
) -> None:
    many = [chr(code) * 2 for code in range(ord("a"), ord("s"))]
    relations = ["P31"] * 4 + ["near"] * 3 + ["saw"] * 2
    triples, sentences = [], []
    for number, relation in enumerate(relations):
        head, tail = many[2 * number], many[2 * number + 1]
        triples.append((f"Q{head}", relation, f"Q{tail}"))
        filler = "it rained " * 40 if number == 6 else ""
        sentences.append(_sentence(f"{head} was {filler}{tail}", head, tail))
    knowledge = _bundle(tmp_path / "kb", many, triples, sentences)

    def counts(least: int, *without: str) -> tuple[int, int, int]:
        data = spelled_facts(small, knowledge, max_length=64, least=least, without=without)
        # All of them are read, so none may be longer than the window.
        assert data.inputs.lengths.max() <= 64
        assert len(data.inputs) == len(data.targets) == len(data.lengths)
        found = data.counts
        assert found["corpus_facts"] == 9
        rare = found["corpus_facts_of_rare_relations"]
        return data.relations, rare, len(data.lengths)

    assert counts(1) == (3, 0, 8)
    assert counts(3) == (2, 2, 6)
    assert counts(50) == (2, 2, 6)  # as many as the second most frequent has
    assert counts(3, "P31") == (2, 4, 4)


def test_without_facts_to_tell_apart_there_is_no_plug(
    small: LanguageModel, toy_knowledge: Bundle, facts: Bundle, tmp_path: Path
) -> None:
    one = _bundle(
        tmp_path / "kb",
        ["kim", "lo"],
        [("Qkim", "near", "Qlo")],
        [_sentence("kim near lo", "kim", "lo")],
    )
    for knowledge, reason in (
        (toy_knowledge, "spells out 0 facts of 0"),
        (Zero(facts), "spells out 0 facts of 0"),
        (one, "spells out 1 facts of 1"),
    ):
        with pytest.raises(Unsupported, match=f"triples and sentences with linked .* {reason}"):
            _data(small, knowledge)


def _learnt(lm: LanguageModel, knowledge: KnowledgeBase, unseen: Bundle) -> tuple[float, float]:
    """Accuracy of the factual pre-training on its own facts and on others."""
    data = _data(lm, knowledge)
    torch.manual_seed(0)
    teacher = FactualPretraining(Adapter(lm.width), lm.width, data.relations)
    with frozen(lm), teacher.attach(lm):
        train(
            teacher,
            lambda batch: teacher.loss(lm, batch),
            data,
            _FAST.updated({"epochs": 12}),
            seed=0,
            device=torch.device("cpu"),
        )
        teacher.eval()
        scores = []
        for known in (data, _data(lm, unseen)):
            batch = known.batch(np.arange(len(known.lengths)))
            with torch.no_grad():
                best = teacher.head.logits(lm, lm(batch), batch).argmax(-1)
            assert batch.targets is not None
            scores.append(float((best == batch.targets).float().mean()))
    return scores[0], scores[1]


def test_facts_are_learnt_and_broken_ones_carry_over_to_nothing(
    small: LanguageModel, facts: Bundle, tmp_path: Path
) -> None:
    unseen = _world(tmp_path / "kb", per_relation=40, seed=1)
    seen, carried = _learnt(small, facts, unseen)
    assert seen > 0.9
    assert carried > 0.8
    assert _learnt(small, Shuffled(facts, 0), unseen)[1] < 0.4


def _fit(lm: LanguageModel, knowledge: KnowledgeBase) -> Fit:
    return general_fit(KAdapter(), lm, knowledge, _FAST.updated({"epochs": 1}))


def test_a_general_plug_trains_the_adapter_alone(small: LanguageModel, facts: Bundle) -> None:
    method = KAdapter()
    torch.manual_seed(0)
    plug = method.build(small, facts)
    assert isinstance(plug, KnowledgeAdapter)
    before = {name: value.clone() for name, value in plug.state_dict().items()}
    with frozen(small):
        history = method.fit(plug, _fit(small, facts))
    moved = {n.split(".")[0] for n, v in plug.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {"adapter"}
    trained = sum(p.numel() for p in plug.parameters() if p.requires_grad)
    assert trained == sum(p.numel() for p in plug.adapter.parameters())
    assert history.counts["corpus_relations"] == 4
    assert not any("features" in n or "head" in n for n in plug.state_dict())


def test_the_same_seed_gives_the_same_adapter(small: LanguageModel, facts: Bundle) -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        plug = KAdapter().build(small, facts)
        torch.rand(3)  # what else may have drawn numbers meanwhile
        with frozen(small):
            KAdapter().fit(plug, _fit(small, facts))
        made.append(plug.state_dict())
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())


def test_while_the_map_trains_the_adapter_is_read_without_dropout(lm: LanguageModel) -> None:
    plug = _noisy(KnowledgeAdapter(lm.width, 1.0))
    plug.mapped.fill_(True)
    plug.adapter.requires_grad_(False)
    batch = _inputs(lm, *_TEXTS)
    with frozen(lm), plug.attach(lm):
        still = lm(batch)
        plug.train()
        torch.testing.assert_close(lm(batch), still, atol=1e-5, rtol=1e-5)
        lm(batch)[:, 0, :3].sum().backward()
    assert all(p.grad is None for p in plug.adapter.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in plug.map.parameters())


def test_the_adapter_covers_entities_with_facts(facts: Bundle, tmp_path: Path) -> None:
    triples = [("Qa", "near", "Qc")]
    knowledge = _bundle(tmp_path / "kb", ["a", "b", "c"], triples, [_sentence("a is c", "a", "c")])
    covered = KAdapter().covers(knowledge, np.array([2, 1, 0, -1]))
    assert covered.tolist() == [True, False, True, False]


@pytest.mark.usefixtures("toy_tasks")
def test_every_setting_trains_what_it_should(
    toy_folder: Path, facts_folder: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    fast = {"learning_rate": 3e-3, "epochs": 1, "batch_size": 64}
    options = {"general": fast, "task-specific": fast, "fine-tuning": fast}
    chosen = grid(
        toy_folder,
        method="none,k-adapter",
        knowledge=str(facts_folder),
        setting="general,task-specific,fine-tuning",
        control="none,zero",
        options={"tuning": {"full": fast}, "method": {"k-adapter": options}},
    )
    results = {
        (r.spec.method, str(r.spec.setting), str(r.spec.control)): r for r in run(chosen, place)
    }
    for (method, _, control), result in results.items():
        wanted = Status.SKIPPED if control == "zero" else Status.OK
        assert result.status == wanted, result.reason
        assert result.status == Status.OK or "linked mentions" in result.reason, method

    def ours(setting: str) -> Result:
        return results["k-adapter", setting, "none"]

    width = 32
    adapter = 3 * (2 * (width * width + width) + 2 * (12 * width * width + 13 * width))
    assert ours("general").cost["trainable_parameters"] == adapter
    assert ours("task-specific").cost["trainable_parameters"] == 2 * width * width + width
    assert ours("fine-tuning").cost["trainable_parameters"] == adapter
    choice = ours("general").training["choice"]
    assert choice["values"][0] == 1.0
    assert 0.0 in choice["values"]
    assert max(choice["dev"]) >= choice["dev"][choice["values"].index(0.0)]
    artifacts = Artifacts(place.artifacts)
    plugs = {}
    for setting in ("general", "task-specific"):
        address = runner.plan([ours(setting).spec], place)[0].plug
        stored = artifacts.load("plug", address or "")
        assert stored is not None
        plugs[setting] = stored.tensors
    assert [bool(plug["mapped"]) for plug in plugs.values()] == [False, True]
    for name, value in plugs["general"].items():
        if name.startswith("adapter."):
            assert torch.equal(value, plugs["task-specific"][name])
    assert plugs["task-specific"]["map.weight"].any()


def test_a_model_tuned_with_the_plug_in_place_learns_through_it(lm: LanguageModel) -> None:
    plug = _noisy(KnowledgeAdapter(lm.width, 1.0))
    batch = _inputs(lm, *_TEXTS)
    table = lm.word_embeddings.weight
    found = []
    for scale in (0.0, 1.0):
        plug.choose(scale)
        lm.zero_grad()
        with frozen(plug), plug.attach(lm):
            lm(batch)[:, 0, :3].sum().backward()
        assert table.grad is not None
        found.append(table.grad.clone())
    lm.zero_grad(set_to_none=True)
    assert (found[0] - found[1]).abs().max() > 1e-2 * found[0].abs().max()


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Counts the texts that any BERT reads inside the block."""
    texts: list[int] = []

    forward = BertEmbeddings.forward

    def counting(self: Any, *args: Any, **given: Any) -> Any:
        texts.append(len(given["inputs_embeds"]))
        return forward(self, *args, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BertEmbeddings, "forward", counting)
        yield texts


def _pretrained(lm: LanguageModel, knowledge: KnowledgeBase, **recipe: Any) -> tuple[Any, History]:
    return fitted(KAdapter({"min_examples": 2}), lm, knowledge, _FAST.updated(recipe))


def test_facts_are_read_once_and_the_plug_is_the_same_bit_for_bit(
    small: LanguageModel, facts: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _counted() as texts:
        cold, history = _pretrained(small, facts)
        assert sum(texts) == 320
        warm, again = _pretrained(small, facts)
        assert sum(texts) == 320
        monkeypatch.setenv(hidden_states.BYTES, "0")
        off, without = _pretrained(small, facts)
        assert sum(texts) == 640
        monkeypatch.setattr(hidden_states, "_MEMORY", 0)
        direct, each = _pretrained(small, facts)
        assert sum(texts) == 640 + 4 * 320
    assert digest(cold) == digest(warm) == digest(off)
    assert history.losses == again.losses == without.losses
    assert [h.states for h in (history, again, without, each)] == [*["kept"] * 3, "recomputed"]
    np.testing.assert_allclose(each.losses, history.losses, atol=1e-4)
    assert digest(direct.map) == digest(cold.map)


def test_a_frozen_model_with_dropout_is_read_in_each_epoch(
    small: LanguageModel, facts: Bundle
) -> None:
    with _counted() as texts:
        _, history = _pretrained(small, facts, dropout=0.1, epochs=2)
    assert sum(texts) == 2 * 320
    assert history.states == ""


@pytest.mark.usefixtures("toy_tasks")
def test_the_map_and_the_choice_read_train_and_dev_once(
    toy_folder: Path, facts_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = {"learning_rate": 3e-3, "epochs": 3, "batch_size": 32}
    options = {
        "tuning": {"full": {**fast, "epochs": 1}},
        "method": {"k-adapter": {"general": fast, "task-specific": fast}},
    }
    chosen = grid(
        toy_folder,
        method="k-adapter",
        knowledge=str(facts_folder),
        setting="general,task-specific",
        control="none",
        options=options,
    )
    train_split, dev, test = (len(ToyRelations().load(split)) for split in Split)
    told = []
    load_folder(toy_folder / "bert")  # a network is tried once a process, which reads texts too
    for name, memory in (("kept", 1 << 30), ("direct", 0)):
        monkeypatch.setenv(hidden_states.BYTES, "0")
        monkeypatch.setattr(hidden_states, "_MEMORY", memory)
        place = Place(tmp_path / name, tmp_path / f"{name}-artifacts", "cpu")
        with _counted() as texts:
            results = run(chosen, place)
        assert [r.status for r in results] == [Status.OK] * 2, results[0].reason
        told.append((results, sum(texts)))
    (kept, few), (direct, many) = told
    tuning = train_split + dev  # one epoch, in both
    assert few == tuning + 320 + (dev + test) + (train_split + dev + test)
    assert many == tuning + 3 * 320 + (6 * dev + test) + (3 * (train_split + dev) + test)
    for ours, theirs in zip(kept, direct, strict=True):
        np.testing.assert_allclose(
            ours.training["plug"]["history"]["losses"],
            theirs.training["plug"]["history"]["losses"],
            atol=1e-3,
        )
    assert kept[0].training["choice"]["dev"] == direct[0].training["choice"]["dev"]
