"""KBLaM: facts beside attention are one softmax with the text, and each text has its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kbench.encoding import Tree, Trees, inner_tokens
from kbench.errors import Unsupported
from kbench.knowledge import Bundle, Entity, KnowledgeBase, write_bundle
from kbench.knowledge.controls import Shuffled
from kbench.model import AttentionCall, LanguageModel, digest
from kbench.model.beginnings import sharing
from kbench.model.candidates import log_likelihoods
from kbench.model.huggingface import load_folder
from kbench.testing.tiny import tiny
from kbench.training import Recipe
from kbench_baselines.facts import FactTable, told_facts
from kbench_baselines.kblam import Kblam, KblamPlug, _Looking
from tests.architectures import write, write_decoder
from tests.baselines.texts import entity_of, inputs_of, some_rows, standard, words
from tests.baselines.trials import fitted

FAMILIES = ("bert", "gemma2", "gpt2", "llama", "mistral", "phi", "qwen2", "qwen3")


@pytest.fixture(scope="module")
def knowledge() -> Bundle:
    return Bundle(tiny().uneven)


@pytest.fixture(scope="module", params=FAMILIES)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    wrote = write if request.param == "bert" else write_decoder
    return load_folder(wrote(folder, request.param))


def plug_of(lm: LanguageModel, knowledge: KnowledgeBase, **options: Any) -> KblamPlug:
    """A plug far from the identity, in every layer."""
    torch.manual_seed(0)
    plug = Kblam({"every": 1, **options}).build(lm, knowledge).eval()
    for parameter in plug.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert isinstance(plug, KblamPlug)
    return plug


def close(one: Tensor, other: Tensor) -> None:
    most = max(1.0, float(other.abs().max()))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * most)


def _watched(plug: KblamPlug, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, list[int]]]:
    """What the texts of each batch look at, and the numbers of these facts."""
    seen: list[tuple[Any, list[int]]] = []
    gather, told = _Looking._laid_out, _Looking._of
    asked: list[list[int]] = []

    def of(self: _Looking, numbers: np.ndarray[Any, Any]) -> Tensor:
        asked.append(numbers.tolist())
        return told(self, numbers)

    def laid_out(self: _Looking, *given: Any) -> Any:
        seen.append((gather(self, *given), asked[-1]))
        return seen[-1][0]

    monkeypatch.setattr(_Looking, "_of", of)
    monkeypatch.setattr(_Looking, "_laid_out", laid_out)
    return seen


def looked_at(plug: KblamPlug, rows: list[int]) -> list[tuple[int, int, int]]:
    """The facts that a text with these entities looks at, by the words of the docstring."""
    every = [tuple(fact) for fact in plug.knowledge.triples.tolist()]
    every.sort(key=lambda fact: fact[0])
    most = int(plug.method.options["facts"])
    of_each = [[fact for fact in every if fact[0] == row] for row in rows]
    turns = [(turn, at) for at, facts in enumerate(of_each) for turn in range(len(facts))]
    own = [of_each[at][turn] for turn, at in sorted(turns)[:most]]
    if plug.method.options["mode"] == "linked":
        return own
    block = [every[n * len(every) // min(most, len(every))] for n in range(min(most, len(every)))]
    return own + [fact for fact in block if fact not in own][: len(block) - len(own)]


def by_hand(
    plug: KblamPlug, lm: LanguageModel, texts: list[list[int]], number: int, call: AttentionCall
) -> Tensor:
    """The equation, one text and one head after the other, in one softmax."""
    form, width = plug.form, plug.form.key_heads * plug.form.size
    change = (call.hidden @ plug.query[number].T).view(*call.hidden.shape[:2], form.heads, -1)
    own = call.unrotated() + change.transpose(1, 2)
    hidden, output = call.visible(), call.output().clone()
    of = slice(number * width, (number + 1) * width)
    relations, source = list(plug.knowledge.relations.values()), plug.method.options["source"]
    entity = partial(entity_of, plug.knowledge, lm, source)
    true = partial(entity_of, plug.knowledge.unbroken, lm, source)
    for text, rows in enumerate(texts):
        facts = looked_at(plug, rows)
        if not facts:
            continue
        keys, values = [], []
        for head, relation, tail in facts:
            given = torch.cat([entity(head), words(lm, relations[relation])])
            keys.append(standard(plug.key.weight[of] @ given + plug.key.bias[of]))
            value = plug.value.weight[of] @ true(tail) + plug.value.bias[of]
            values.append(value)
        for head in range(form.heads):
            at = head * form.key_heads // form.heads
            part = slice(at * form.size, (at + 1) * form.size)
            key, value = (torch.stack(several)[:, part] for several in (keys, values))
            beside = own[text, head] @ key.T * call.scaling
            beside = beside - np.log(len(facts)) + plug.bias[number]
            inner = call.queries[text, head] @ call.keys[text, at].T * call.scaling
            if call.softcap is not None:
                inner = call.softcap * torch.tanh(inner / call.softcap)
            seen = hidden.expand(len(texts), *hidden.shape[1:])[text, 0]
            inner = inner.masked_fill(~seen, -torch.inf)
            weights = torch.cat([beside, inner], 1).softmax(-1)
            output[text, :, head] = weights @ torch.cat([value, call.values[text, at]])
    return output


@contextmanager
def attached_by_hand(plug: KblamPlug, lm: LanguageModel, texts: list[list[int]]) -> Iterator[None]:
    with ExitStack() as stack:
        for number, layer in enumerate(plug.form.layers):
            change = partial(by_hand, plug, lm, texts, number)
            stack.enter_context(lm.attention(layer).changed(change))
        yield


MODES: list[dict[str, Any]] = [
    {},
    {"source": "words"},
    {"facts": 3},
    {"mode": "global", "facts": 7},
    {"mode": "global", "facts": 4096, "source": "words"},
]
THOROUGH = ("bert", "llama")
"""Families that are tried in every mode."""


@torch.no_grad()
def test_it_is_one_softmax_over_facts_and_text(lm: LanguageModel, knowledge: Bundle) -> None:
    for options in MODES if lm.config.model_type in THOROUGH else MODES[:1]:
        one_softmax(lm, plug_of(lm, knowledge, **options), knowledge)


@torch.no_grad()
def test_the_facts_of_another_say_their_own_values(lm: LanguageModel, knowledge: Bundle) -> None:
    one_softmax(lm, plug_of(lm, Shuffled(knowledge, 0)), knowledge)


def one_softmax(lm: LanguageModel, plug: KblamPlug, knowledge: Bundle) -> None:
    inputs, texts = inputs_of(lm, knowledge)
    batch = inputs.collate(np.arange(len(texts)))
    base, weights = lm(batch), digest(lm)
    with attached_by_hand(plug, lm, texts):
        expected = lm(batch)
    with plug.attach(lm):
        found = lm(batch)
        again = lm(inputs.collate(np.array([1])))[0]
    kept = batch.mask.bool()
    close(found[kept], expected[kept])
    close(again, found[1, : len(again)])
    assert (found[0] - base[0]).abs().max() > 1e-3
    if plug.method.options["mode"] == "linked":
        assert not texts[-1]
        assert torch.equal(found[-1], base[-1])
    assert torch.equal(lm(batch), base)
    assert digest(lm) == weights


@torch.no_grad()
def test_without_facts_to_look_at_the_layer_is_untouched(
    lm: LanguageModel, knowledge: Bundle
) -> None:
    batch = inputs_of(lm, knowledge)[0].collate(np.arange(3))
    base = lm(batch)
    for mode in ("linked", "global"):
        with plug_of(lm, knowledge, facts=0, mode=mode).attach(lm):
            assert torch.equal(lm(batch), base)
    rows = np.arange(len(knowledge))
    assert not Kblam({"facts": 0}).covers(knowledge, rows).any()
    torch.manual_seed(0)
    untrained = Kblam({"every": 1}).build(lm, knowledge).eval()
    with untrained.attach(lm):
        change = (lm(batch) - base).abs().max() / base.abs().max()
    assert 0 < change < 0.2


@torch.no_grad()
def test_candidates_in_a_tree_are_those_of_a_row_each(lm: LanguageModel, knowledge: Bundle) -> None:
    if not lm.left_to_right:
        return
    inputs = inputs_of(lm, knowledge)[0]
    candidates = [[5], [6, 7], [6, 7, 8]]
    several = Trees(inputs, (Tree.of(candidates),), np.zeros(3, dtype=np.int64))
    batch = several.collate(np.arange(3))
    assert batch.tree is not None
    with plug_of(lm, knowledge).attach(lm):
        found = log_likelihoods(lm, lm(batch, batch.tree.states), batch)
        for at, own in enumerate(candidates):
            one = Trees(inputs, (Tree.of([own]),), np.zeros(3, dtype=np.int64))
            alone = one.collate(np.arange(3))
            assert alone.tree is not None
            close(found[:, at : at + 1], log_likelihoods(lm, lm(alone, alone.tree.states), alone))
        with sharing(lm):
            assert lm.beginnings is None  # a token sees what is known of those who come later


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_folder(write_decoder(tmp_path_factory.mktemp("one"), "llama"))


@torch.no_grad()
def test_what_weighs_most_is_all_that_is_read(llama: LanguageModel, knowledge: Bundle) -> None:
    plug = plug_of(llama, knowledge, facts=1)
    nn.init.constant_(plug.bias, 1e4)
    inputs, texts = inputs_of(llama, knowledge)
    fact = FactTable(knowledge).facts[FactTable(knowledge).of(np.array(texts[0]))[0][:1]]
    held: list[Tensor] = []

    def keep(call: AttentionCall) -> Tensor:
        held.append(call.output())
        return held[0]

    with plug.attach(llama), llama.attention(1).changed(keep):
        llama(inputs.collate(np.array([0])))
    value = plug.value(entity_of(knowledge, llama, "kge", int(fact[0, 2]))).view(2, -1)[1]
    per_head = value.view(plug.form.key_heads, -1)
    per_head = per_head.repeat_interleave(plug.form.heads // plug.form.key_heads, 0)
    close(held[0][0], per_head.expand_as(held[0][0]))


@torch.no_grad()
def test_each_fact_is_projected_once_until_the_plug_changes(
    llama: LanguageModel, knowledge: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    project = KblamPlug.project

    def counted(plug: KblamPlug, told: tuple[Tensor, Tensor]) -> Tensor:
        made.append(len(told[0]))
        return project(plug, told)

    monkeypatch.setattr(KblamPlug, "project", counted)
    plug = plug_of(llama, knowledge, mode="global", facts=4096)
    inputs = inputs_of(llama, knowledge)[0]
    with plug.attach(llama):
        with torch.inference_mode():
            before = llama(inputs.collate(np.arange(3)))
        llama(inputs.collate(np.array([1])))
        llama(inputs.collate(np.arange(3)))
        assert made == [len(knowledge.triples)]
        plug.value.weight.mul_(2)
        assert (llama(inputs.collate(np.arange(3))) - before).abs().max() > 1e-4
        assert made == [len(knowledge.triples)] * 2
    monkeypatch.setattr("kbench_baselines.kblam._BYTES", 0)
    with plug.attach(llama):
        llama(inputs.collate(np.array([0])))
        llama(inputs.collate(np.array([1])))
        assert made == [len(knowledge.triples)] * 4


@torch.no_grad()
def test_in_whatever_order_entities_are_spoken_of(llama: LanguageModel, knowledge: Bundle) -> None:
    batch = inputs_of(llama, knowledge)[0].collate(np.arange(3))
    turned = replace(batch, mention_rows=batch.mention_rows.clone())
    first = torch.nonzero(batch.mention_owners == 1).flatten()
    turned.mention_rows[first] = batch.mention_rows[first.flip(0)]
    assert not torch.equal(turned.mention_rows, batch.mention_rows)
    with plug_of(llama, knowledge).attach(llama):
        close(llama(turned), llama(batch))


def test_while_it_learns_it_is_shown_few_facts_drawn_anew(
    llama: LanguageModel, knowledge: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug = plug_of(llama, knowledge, mode="global", facts=30, shown=5)
    inputs, texts = inputs_of(llama, knowledge)
    seen = _watched(plug, monkeypatch)
    torch.manual_seed(0)
    with plug.attach(llama):
        for _ in range(40):
            llama(inputs.collate(np.arange(3)))
        with torch.inference_mode():
            llama(inputs.collate(np.arange(3)))
    *learned, (later, _) = seen
    assert later.visible.sum(1).tolist() == [30] * 3
    assert len({tuple(numbers) for _, numbers in learned}) > 20
    table = FactTable(knowledge)
    counts = set()
    for facts, numbers in learned:
        for text, rows in enumerate(texts):
            own = {*table.of(np.array(rows, dtype=np.int64))[0].tolist()}
            known = {numbers[at] for at in torch.nonzero(facts.own[text]).flatten().tolist()}
            shown = {numbers[at] for at in torch.nonzero(facts.visible[text]).flatten().tolist()}
            assert known == own <= shown
            assert len(shown) <= max(5, len(own))
            counts.add(len(shown))
    assert {1, 5} <= counts  # the last text has no facts of its own


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_it_may_be_told_which_facts_are_a_texts_own(
    tmp_path: Path, knowledge: Bundle, family: str
) -> None:
    wrote = write if family == "bert" else write_decoder
    lm = load_folder(wrote(tmp_path, family))
    plug = plug_of(lm, knowledge, mode="global", facts=9, pointing=0.5)
    inputs, texts = inputs_of(lm, knowledge)
    batch = inputs.collate(np.arange(3))
    form, found = plug.form, list[Tensor]()
    at = len(form.layers) // 2
    of = slice(at * form.key_heads * form.size, (at + 1) * form.key_heads * form.size)
    relations = list(knowledge.relations.values())

    def by_hand_missed(call: AttentionCall) -> Tensor:
        change = (call.hidden @ plug.query[at].T).view(*call.hidden.shape[:2], form.heads, -1)
        queries = call.unrotated() + change.transpose(1, 2)
        for text, rows in enumerate(texts):
            own = [tuple(f) for row in rows for f in knowledge.triples.tolist() if f[0] == row]
            mentions = torch.nonzero((batch.mention_owners == text) & (batch.mention_rows >= 0))
            if not len(mentions):
                continue
            facts, keys = looked_at(plug, rows), []
            for head, relation, _ in facts:
                entity = entity_of(knowledge, lm, "kge", head)
                given = torch.cat([entity, words(lm, relations[relation])])
                keys.append(standard(plug.key.weight[of] @ given + plug.key.bias[of]))
            key = torch.stack(keys).view(len(facts), form.key_heads, form.size)
            key = key.repeat_interleave(form.heads // form.key_heads, 1)
            ends = [int(batch.mentions[m, 1]) - text * batch.ids.shape[1] for m in mentions]
            for token in range(max(ends) - 1, int(batch.mask[text].sum())):
                products = torch.einsum("hs,fhs->hf", queries[text, :, token], key)
                weights = (products * call.scaling).softmax(-1)
                share = weights[:, [fact in own for fact in facts]].sum(1).mean()
                found.append(-share.log())
        return call.output()

    with lm.attention(form.layers[at]).changed(by_hand_missed):
        lm(batch)
        expected = torch.stack(found).mean()
    with plug.attach(lm):
        # What the layers before have looked up changes what this one asks.
        for parameter in (plug.value.weight, plug.value.bias):
            nn.init.zeros_(parameter)
        nn.init.constant_(plug.bias, -1e4)
        lm(batch)
        assert plug.missed is not None
        close(plug.missed.detach(), expected.detach())
        plug.missed.backward()
        assert plug.query.grad is not None
        assert plug.query.grad[at].abs().sum() > 0
        with torch.no_grad():
            lm(batch)
        assert plug.missed is None
    other = plug_of(lm, knowledge, mode="global", facts=9)
    with other.attach(lm):
        lm(batch)
    assert other.missed is None


def test_the_tails_of_facts_are_asked_for(tmp_path: Path, knowledge: Bundle) -> None:
    both = load_folder(write(tmp_path / "bert", "bert"))
    left = load_folder(write_decoder(tmp_path / "llama", "llama"))
    told = [fact for fact, ok in zip(knowledge.triples.tolist(), knowledge.told, strict=True) if ok]
    for lm in (both, left):
        data = told_facts(lm, knowledge, None, 64, most=20, seed=0)
        assert len(data.sentence) == 20 < len(told)
        batch = data.batch(np.arange(20))
        assert batch.targets is not None
        heads = [row for row in batch.mention_rows.tolist() if row >= 0]
        said = dict(zip(np.unique(batch.mention_owners), heads, strict=True))
        owners = (batch.blank_index // batch.ids.shape[1]).tolist()
        tails = {
            (said[at], tuple(batch.targets[[o == at for o in owners]].tolist())) for at in said
        }
        names = lm.tokenizer([knowledge.name_of(tail) for *_, tail in told])["input_ids"]
        true = inner_tokens(lm.tokenizer, [knowledge.name_of(tail) for *_, tail in told])
        assert len(names) == len(true)
        assert tails <= {(fact[0], tuple(own)) for fact, own in zip(told, true, strict=True)}
        if lm.left_to_right:
            assert torch.equal(batch.ids.flatten()[batch.blank_index + 1], batch.targets)
        else:
            assert (batch.ids.flatten()[batch.blank_index] == lm.tokenizer.mask_token_id).all()


def test_what_cannot_run_says_why(tmp_path: Path, llama: LanguageModel, knowledge: Bundle) -> None:
    deberta = load_folder(write(tmp_path / "deberta", "deberta-v2"))
    with pytest.raises(Unsupported, match="not of a form that kbench knows"):
        Kblam().check(deberta, knowledge)
    card = {"name": "mute", "version": "1", "licence": "none", "source": "test"}
    write_bundle(tmp_path / "mute", card, [Entity("Q1", "it")])
    with pytest.raises(Unsupported, match="has no facts"):
        Kblam().build(llama, Bundle(tmp_path / "mute"))
    write_bundle(tmp_path / "plain", card, [Entity("Q1", "it")], [("Q1", "P1", "Q1")], {"P1": "is"})
    with pytest.raises(Unsupported, match="has no entity vectors"):
        Kblam().check(llama, Bundle(tmp_path / "plain"))
    Kblam({"source": "words"}).check(llama, Bundle(tmp_path / "plain"))
    for option in ({"shown": 5}, {"pointing": 1.0}):
        with pytest.raises(Unsupported, match="of its mode global"):
            Kblam(option).check(llama, knowledge)
    with pytest.raises(Unsupported, match="no usable fact"):
        told_facts(llama, knowledge, None, 2, most=20, seed=0)


def test_some_entities_have_facts_and_some_have_none(knowledge: Bundle) -> None:
    rows = some_rows(knowledge)
    table = FactTable(knowledge)
    assert [len(table.of(np.array([row]))[0]) for row in rows] == [
        int((knowledge.triples[:, 0] == row).sum()) for row in rows
    ]


def test_what_it_is_told_it_learns_in_parts_of_a_batch_too(
    llama: LanguageModel, knowledge: Bundle
) -> None:
    recipe = Recipe(learning_rate=0.02, batch_size=8, epochs=3)
    given = {"mode": "global", "facts": 30, "lessons": 40, "every": 1}
    learned: dict[str, dict[str, Tensor]] = {}
    missed: dict[str, float] = {}
    for name, pointing, micro in (("whole", 1.0, None), ("parts", 1.0, 3), ("untold", 0.0, None)):
        method = Kblam({**given, "pointing": pointing})
        plug, history = fitted(method, llama, knowledge, recipe.updated({"micro_batch": micro}))
        assert history.micro_batch == (micro or 8)
        learned[name] = {key: value.clone() for key, value in plug.state_dict().items()}
        watching = Kblam({**given, "pointing": 1.0}).build(llama, knowledge).eval()
        watching.load_state_dict(plug.state_dict())
        assert isinstance(watching, KblamPlug)
        with watching.attach(llama):
            llama(inputs_of(llama, knowledge)[0].collate(np.arange(3)))
        assert watching.missed is not None
        missed[name] = float(watching.missed.detach())
    for key, value in learned["whole"].items():
        torch.testing.assert_close(learned["parts"][key], value, rtol=1e-3, atol=1e-4)
    assert missed["whole"] < missed["untold"] - 0.3
