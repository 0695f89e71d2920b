"""The attention of a layer, seen and changed: in every architecture, cached, and left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Batch, Entities, Inputs, Layout, Tree, Trees, encode
from kbench.encoding.batch import picked
from kbench.errors import Unsupported
from kbench.model import AttentionCall, LanguageModel, digest
from kbench.model.candidates import log_likelihoods
from kbench.model.freezing import frozen
from kbench.model.generation import go_on
from kbench.model.huggingface import HuggingFaceBackbone, load_folder
from tests.architectures import DECODERS, write, write_decoder

TEXTS = ("we saw istanbul today", "near the river it rained and we saw istanbul again", "it rained")
NETWORKS = [
    *((name, "sdpa") for name in ("gpt-neox", "gpt2", "llama", "mistral", "phi", "phi3")),
    *((name, "sdpa") for name in ("qwen2", "qwen3", "bert")),
    # Gemma 2 caps what it compares, which sdpa cannot.
    *((name, "eager") for name in ("bert", "gemma2", "gpt2", "llama")),
]
MORE = 3


@pytest.fixture(scope="module", params=NETWORKS, ids="-".join)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    name, way = request.param
    folder = tmp_path_factory.mktemp(f"{name}-{way}")
    of = load_folder((write_decoder if name in DECODERS else write)(folder, name))
    of.network.set_attn_implementation(way)
    return of


def inputs_of(lm: LanguageModel) -> Inputs:
    examples = []
    for number, text in enumerate(TEXTS):
        start = text.find("istanbul")
        mentions = (Mention(start, start + 8, "Q1", Role.TARGET),) if start >= 0 else ()
        blank = len(text) if lm.left_to_right else None
        examples.append(Example(str(number), text, mentions, "", blank=blank))
    layout = Layout({}, left_to_right=lm.left_to_right)
    return encode(lm.tokenizer, examples, [[4], [9], []], layout)


def states(lm: LanguageModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        hidden: Tensor = lm(batch)
    return hidden


def close(one: Tensor, other: Tensor, atol: float = 1e-5) -> None:
    most = max(1.0, float(other.abs().max()))
    torch.testing.assert_close(one, other, rtol=0, atol=atol * most)


def own(call: AttentionCall) -> Tensor:
    return call.output()


class Facts:
    """Keys and values of each entity, for the attention of every layer."""

    def __init__(self, lm: LanguageModel, scale: float = 1.0) -> None:
        self.lm = lm
        drawn = torch.Generator().manual_seed(3)
        of = lm.attention(0)
        shape = (10, len(lm.layers), of.key_heads, MORE, of.size)
        self.keys, self.values = (scale * torch.randn(shape, generator=drawn) for _ in range(2))
        self.queries = torch.randn(of.heads * of.size, lm.width, generator=drawn) / 4

    def of(self, batch: Batch, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and which of them each text sees."""
        told, texts = batch.entities, len(batch.ids)
        (keys, taken), (values, _) = (
            told.seated(of[told.rows, layer], texts) for of in (self.keys, self.values)
        )
        keys, values = (of.permute(0, 2, 1, 3, 4).flatten(2, 3) for of in (keys, values))
        return keys, values, taken.repeat_interleave(MORE, 1)

    def beside(self, layer: int, call: AttentionCall) -> Tensor:
        """KBLaM's form: queries of its own, not rotated."""
        keys, values, seen = self.of(call.batch, layer)
        flat = call.hidden @ self.queries.T
        queries = flat.view(*flat.shape[:-1], call.layer.heads, call.layer.size).transpose(1, 2)
        return call.beside(queries, keys, values, seen, bias=-0.5)

    def before(self, layer: int, call: AttentionCall) -> Tensor:
        """A prefix's form: more keys and values for the layer's own queries."""
        return call.with_more(*self.of(call.batch, layer))

    @contextmanager
    def attached(self, form: str) -> Iterator[None]:
        with ExitStack() as stack:
            for layer in range(len(self.lm.layers)):
                change = getattr(self, form)
                stack.enter_context(
                    self.lm.attention(layer).changed(
                        lambda call, layer=layer, change=change: change(layer, call)
                    )
                )
            yield


FORMS = ("beside", "before")


def test_what_is_seen_is_what_attention_is_made_of(lm: LanguageModel) -> None:
    """Output put together by hand from what a plug sees is the layer's own."""
    batch = inputs_of(lm).collate(np.arange(3))
    tokens = batch.mask.bool()

    def by_hand(call: AttentionCall) -> Tensor:
        group = call.layer.heads // call.layer.key_heads
        keys, values = (of.repeat_interleave(group, 1) for of in (call.keys, call.values))
        scores = call.queries @ keys.transpose(2, 3) * call.scaling
        if call.softcap is not None:
            scores = call.softcap * torch.tanh(scores / call.softcap)
        scores = scores.masked_fill(~call.visible(), -1e30)
        made = (scores.softmax(-1) @ values).transpose(1, 2)
        close(made[tokens], call.output()[tokens])
        return made

    base = states(lm, batch)
    for layer in (0, -1):
        with lm.attention(layer).changed(by_hand):
            close(states(lm, batch)[tokens], base[tokens])


def test_queries_before_they_are_rotated(lm: LanguageModel) -> None:
    """They are those that are compared, where nothing is rotated: at the first place."""
    batch = inputs_of(lm).collate(np.arange(3))
    seen = []

    def see(call: AttentionCall) -> Tensor:
        assert call.hidden.shape == (*batch.ids.shape, lm.width)
        close(call.unrotated()[:, :, 0], call.queries[:, :, 0])
        seen.append(float((call.unrotated() - call.queries).abs().max()))
        return call.output()

    with lm.attention(1).changed(see):
        states(lm, batch)
    rotated = lm.config.model_type not in ("gpt2", "bert")
    assert (seen[0] > 1e-3) == rotated


def test_leaving_restores_configuration_and_bits(lm: LanguageModel) -> None:
    batch = inputs_of(lm).collate(np.arange(3))
    before, weights = states(lm, batch), digest(lm)
    configured, way = lm.config.to_dict(), lm.config._attn_implementation
    kept = [vars(lm.attention(n)._module)["config"] for n in range(2)]
    for form in FORMS:
        with Facts(lm).attached(form):
            assert (states(lm, batch) - before).abs().max() > 1e-3
            assert lm.config._attn_implementation == way
    with pytest.raises(ZeroDivisionError), Facts(lm).attached("beside"):
        raise ZeroDivisionError
    assert torch.equal(states(lm, batch), before)
    assert lm.config.to_dict() == configured
    assert [vars(lm.attention(n)._module)["config"] for n in range(2)] == kept
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in lm.modules())
    assert digest(lm) == weights


def test_without_the_plug_attention_is_the_network_s_own(lm: LanguageModel) -> None:
    """What a plug does in attention, prepares or shifts is left out where the base is asked."""
    batch = inputs_of(lm).collate(np.arange(3))
    before, prepared = states(lm, batch), list[Batch]()
    shifting = lm.shifted(lambda batch: batch.mask.sum(1)) if lm.left_to_right else nullcontext()
    assert not lm.looks_ahead
    with Facts(lm).attached("beside"), lm.preparing(prepared.append), shifting:
        assert lm.looks_ahead
        changed = states(lm, batch)
        with lm.bare():
            assert torch.equal(states(lm, batch), before)
        assert len(prepared) == 1
        assert torch.equal(states(lm, batch), changed)
    with lm.preparing(prepared.append):  # alone, without a hook
        assert lm.looks_ahead
    if lm.left_to_right:
        with lm.shifted(lambda batch: batch.mask.sum(1)):
            assert lm.looks_ahead
    assert not lm.looks_ahead


def test_a_plug_that_changes_nothing_leaves_all_bits(lm: LanguageModel) -> None:
    batch = inputs_of(lm).collate(np.arange(3))
    before = states(lm, batch)
    with lm.attention(0).changed(own), lm.attention(0).changed(own), lm.attention(1).changed(own):
        assert torch.equal(states(lm, batch), before)
        wanted = lm.pooled(batch)
        if wanted is not None:  # of the last layer no more than that is computed
            part = lm(batch, wanted).flatten(0, 1)[wanted]
            close(part, before.flatten(0, 1)[wanted])


@pytest.mark.parametrize("form", FORMS)
def test_a_text_without_entities_is_as_it_is(lm: LanguageModel, form: str) -> None:
    inputs = inputs_of(lm)
    together, alone = inputs.collate(np.arange(3)), inputs.collate(np.array([2]))
    length = int(together.mask[2].sum())
    base, base_alone = states(lm, together), states(lm, alone)
    with Facts(lm).attached(form):
        beside, by_itself = states(lm, together), states(lm, alone)
    assert torch.equal(by_itself, base_alone)
    if form == "beside":
        assert torch.equal(beside[2, :length], base[2, :length])
    torch.testing.assert_close(beside[2, :length], base[2, :length], rtol=0, atol=1e-5)
    assert (beside[0] - base[0]).abs().max() > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_neither_padding_nor_the_rest_of_a_batch_matters(lm: LanguageModel, form: str) -> None:
    inputs = inputs_of(lm)
    batch = inputs.collate(np.arange(3))
    with Facts(lm).attached(form):
        together = states(lm, batch)
        part = states(lm, picked(batch, torch.tensor([1, 2]), batch.ids.shape[1]))
        for row in range(3):
            alone = states(lm, inputs.collate(np.array([row])))[0]
            close(together[row, : len(alone)], alone)
        close(part[0], together[1])
        if lm.left_to_right:
            lengths = batch.mask.sum(1)
            rolled = [
                row.roll(len(row) - int(n)) for row, n in zip(batch.ids, lengths, strict=True)
            ]
            mask = batch.mask.flip(1)
            left = replace(
                batch,
                ids=torch.stack(rolled),
                mask=mask,
                positions=(mask.cumsum(1) - 1).clamp(min=0),
            )
            close(lm.pool(states(lm, left), left.mask), lm.pool(together, batch.mask))


def joint(facts: Facts, layer: int, call: AttentionCall) -> Tensor:
    """One softmax over both, as it is written down."""
    keys, values, seen = facts.of(call.batch, layer)
    group = call.layer.heads // call.layer.key_heads
    keys, values, own_keys, own_values = (
        of.repeat_interleave(group, 1) for of in (keys, values, call.keys, call.values)
    )
    flat = call.hidden @ facts.queries.T
    queries = flat.view(*flat.shape[:-1], call.layer.heads, call.layer.size).transpose(1, 2)
    told = queries @ keys.transpose(2, 3) * call.scaling - 0.5
    said = call.queries @ own_keys.transpose(2, 3) * call.scaling
    if call.softcap is not None:
        said = call.softcap * torch.tanh(said / call.softcap)
    told = told.masked_fill(~seen[:, None, None], -torch.inf)
    said = said.masked_fill(~call.visible(), -1e30)
    weights = torch.cat([told, said], -1).softmax(-1)
    return (weights @ torch.cat([values, own_values], 2)).transpose(1, 2)


def test_two_softmaxes_merged_are_one_over_both(lm: LanguageModel) -> None:
    batch, facts = inputs_of(lm).collate(np.arange(3)), Facts(lm)
    tokens = batch.mask.bool()

    def check(call: AttentionCall) -> Tensor:
        merged = facts.beside(1, call)
        close(merged[tokens], joint(facts, 1, call)[tokens])
        return merged

    with lm.attention(1).changed(check):
        states(lm, batch)


@torch.no_grad()
def test_what_is_looked_at_in_parts_is_looked_at_alike(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is much of it, some rows of a batch are looked up at a time, for the cache."""
    batch, facts = inputs_of(lm).collate(np.arange(3)), Facts(lm)
    asked: list[int] = []
    scores = AttentionCall.scores

    def counted(call: AttentionCall, *given: Tensor) -> Tensor:
        asked.append(len(given[0]))
        return scores(call, *given)

    def check(call: AttentionCall) -> Tensor:
        keys, values, seen = facts.of(call.batch, 1)
        bias = torch.arange(3.0)[:, None, None, None]
        for of in (lambda part: part, lambda part: part[:1]):
            given = call.unrotated(), of(keys), of(values)
            for visible in (None, seen, seen[:, None].expand(-1, batch.ids.shape[1], -1)):
                for added in (0.5, bias):
                    monkeypatch.setattr("kbench.model.attention._SCORES", {"cpu": 1 << 40})
                    whole = call.beside(*given, visible, added)
                    monkeypatch.setattr("kbench.model.attention._SCORES", {"cpu": 1})
                    close(call.beside(*given, visible, added), whole)
        return whole

    monkeypatch.setattr(AttentionCall, "scores", counted)
    with lm.attention(1).changed(check):
        states(lm, batch)
    assert asked == [3, 1, 1, 1] * 12


def test_an_entry_twice_weighs_twice_and_order_is_nothing(lm: LanguageModel) -> None:
    batch, facts = inputs_of(lm).collate(np.arange(1)), Facts(lm)

    def check(call: AttentionCall) -> Tensor:
        keys, values, seen = facts.of(call.batch, 1)
        queries = call.unrotated()
        once = call.beside(queries, keys, values, seen)
        turned = call.beside(queries, keys.flip(2), values.flip(2), seen)
        twice = call.beside(
            queries, *(torch.cat([of, of], 2) for of in (keys, values)), torch.cat([seen, seen], 1)
        )
        heavier = call.beside(queries, keys, values, seen, bias=float(np.log(2)))
        close(turned, once)
        close(twice, heavier)
        assert (twice - once).abs().max() > 1e-4
        one_for_all = call.beside(queries, keys[:1], values[:1])
        close(one_for_all[:1], once[:1])
        return once

    with lm.attention(1).changed(check):
        states(lm, batch)


def test_gradients_reach_what_is_looked_at_and_not_the_model(lm: LanguageModel) -> None:
    batch = inputs_of(lm).collate(np.arange(3))
    for form in FORMS:
        facts = Facts(lm)
        leaves = [facts.keys, facts.values, *([facts.queries] if form == "beside" else [])]
        for leaf in leaves:
            leaf.requires_grad_(True)
        with frozen(lm), facts.attached(form):
            lm(batch)[0, 0, :3].sum().backward()
        for leaf in leaves:
            assert leaf.grad is not None
            assert torch.isfinite(leaf.grad).all()
            assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("form", FORMS)
def test_cached_decoding_is_the_full_forward_pass(lm: LanguageModel, form: str) -> None:
    if not lm.left_to_right:
        with pytest.raises(Unsupported, match="reads both ways"), lm.cached():
            pass
        return
    inputs, most = inputs_of(lm), 5
    with torch.inference_mode(), Facts(lm).attached(form):
        never = torch.empty(0, dtype=torch.int64)
        tokens, said = go_on(lm, inputs.collate(np.arange(3)), most, never)
        for row in range(3):
            batch, total = inputs.collate(np.array([row])), 0.0
            for step in range(most):
                logits = lm.predict_tokens(lm(batch)[0, -1:])[0].log_softmax(-1)
                assert int(logits.argmax()) == int(tokens[row, step])
                total += float(logits.max())
                ids = torch.cat([batch.ids, tokens[row, step].view(1, 1)], 1)
                batch = replace(batch, ids=ids, mask=torch.ones_like(ids))
            assert float(said[row]) == pytest.approx(total, abs=1e-4 * max(1, abs(total)))
        # Texts that end leave the batch, and their entities with them.
        ends = tokens[0, :1]
        shorter, _ = go_on(lm, inputs.collate(np.arange(3)), most, ends)
        for row in range(3):
            stop = (tokens[row] == ends).nonzero()
            upto = int(stop[0]) + 1 if len(stop) else most
            assert shorter[row, :upto].tolist() == tokens[row, :upto].tolist()


@pytest.mark.parametrize("form", FORMS)
def test_a_tree_of_candidates_is_a_row_for_each(lm: LanguageModel, form: str) -> None:
    if not lm.left_to_right:
        with pytest.raises(Unsupported, match="reads both ways"), lm.shifted(lambda b: b.ids[:, 0]):
            pass
        return
    inputs = inputs_of(lm)
    spelled = ([5], [6, 7], [6, 7, 8])
    with torch.inference_mode(), Facts(lm).attached(form):
        found = []
        for candidates in (spelled, *([one] for one in spelled)):
            trees = Trees(inputs, (Tree.of(candidates),), np.zeros(3, dtype=np.int64))
            batch = trees.collate(np.arange(3))
            assert batch.tree is not None
            found.append(log_likelihoods(lm, lm(batch, batch.tree.states), batch))
    close(found[0], torch.cat(found[1:], 1), 1e-4)


def test_a_prefix_from_the_cache_is_the_text_before(lm: LanguageModel) -> None:
    """Keys and values that attention had for a text's beginning are that beginning, if shifted."""
    if not lm.left_to_right:
        return
    whole = inputs_of(lm).collate(np.array([1]))
    cut, at = 4, torch.arange(whole.ids.shape[1])
    first = replace(whole, ids=whole.ids[:, :cut], mask=whole.mask[:, :cut])
    rest = replace(whole, ids=whole.ids[:, cut:], mask=whole.mask[:, cut:])
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def keeping(layer: int, call: AttentionCall) -> Tensor:
        kept[layer] = call.keys, call.values
        return call.output()

    def told(layer: int, call: AttentionCall) -> Tensor:
        return call.with_more(*kept[layer])

    for change, batch in ((keeping, first), (told, rest)):
        with ExitStack() as stack:
            for layer in range(len(lm.layers)):
                stack.enter_context(
                    lm.attention(layer).changed(
                        lambda call, layer=layer, change=change: change(layer, call)
                    )
                )
            if change is told:
                stack.enter_context(lm.shifted(lambda b: torch.full((len(b.ids),), cut)))
                with pytest.raises(RuntimeError, match="another plug already shifts"):
                    stack.enter_context(lm.shifted(lambda b: b.ids[:, 0]))
            found = states(lm, batch)
    close(found[0], states(lm, whole)[0, at[cut:]], 1e-4)


def test_in_bfloat16_and_in_train_mode_it_works_too(tmp_path: Path) -> None:
    for name in ("llama", "gpt2", "gemma2"):
        lm = HuggingFaceBackbone(str(write_decoder(tmp_path / name, name))).load_held("bfloat16")
        batch = inputs_of(lm).collate(np.arange(3))
        base = states(lm, batch)
        for form in FORMS:
            with Facts(lm).attached(form):
                found = states(lm, batch)
            assert found.dtype == torch.float32
            assert torch.isfinite(found).all()
            assert (found - base)[0].abs().max() > 1e-3


def test_what_asks_no_registered_function_is_refused(tmp_path: Path) -> None:
    lm = load_folder(write(tmp_path / "deberta", "deberta-v2"))
    with pytest.raises(Unsupported, match=r"^the attention of DebertaV2Layer is not of a form"):
        lm.attention(0)
    own_way = load_folder(write_decoder(tmp_path / "gpt2", "gpt2", reorder_and_upcast_attn=True))
    with pytest.raises(Unsupported, match="reorder_and_upcast_attn"):
        own_way.attention(0)


def test_whom_texts_speak_of() -> None:
    """Each entity once a text, in the order of its mentions; those of texts that are left."""
    rows, owners = torch.tensor([7, -1, 3, 7, 3, 5]), torch.tensor([0, 0, 0, 0, 2, 2])
    empty = torch.empty(0, dtype=torch.int64)
    batch = Batch(
        ids=torch.zeros(3, 4, dtype=torch.int64),
        mask=torch.ones(3, 4, dtype=torch.int64),
        slot_index=empty,
        slot_rows=empty,
        mentions=torch.zeros(6, 2, dtype=torch.int64),
        mention_rows=rows,
        mention_owners=owners,
        blank_index=empty,
        examples=torch.arange(3),
    )
    found = batch.entities
    assert found.rows.tolist() == [7, 3, 3, 5]
    assert found.owners.tolist() == [0, 0, 2, 2]
    values, taken = found.seated(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), 3)
    assert values[..., 0].tolist() == [[1, 2], [0, 0], [3, 4]]
    assert taken.tolist() == [[True, True], [False, False], [True, True]]
    turned = found.picked(torch.tensor([2, 1]))
    assert (turned.rows.tolist(), turned.owners.tolist()) == ([3, 5], [0, 0])
    nobody, none = Entities(empty, empty).seated(torch.empty(0, 5), 2)
    assert (nobody.shape, none.shape) == ((2, 0, 5), (2, 0))
