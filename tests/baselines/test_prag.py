"""prag: each text has weights of its own, learned from it alone, and many are read in one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.encoding import affixes, bare_tokens
from kbench.errors import Unsupported
from kbench.knowledge import Bundle, Entity, KnowledgeBase, write_bundle
from kbench.model import LanguageModel, digest
from kbench.testing.tiny import tiny
from kbench.training import Recipe
from kbench_baselines.prag import Learned, Prag, PragPlug
from tests.baselines.texts import inputs_of, reader

STEPS = 4


@pytest.fixture(scope="module")
def knowledge() -> Bundle:
    return Bundle(tiny().knowledge)


@pytest.fixture(scope="module", params=["bert", "gemma2", "gpt2", "llama"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return reader(tmp_path_factory.mktemp(request.param), request.param)


def plug_of(lm: LanguageModel, knowledge: KnowledgeBase, **options: Any) -> PragPlug:
    torch.manual_seed(0)
    plug = Prag(options).build(lm, knowledge).eval()
    assert isinstance(plug, PragPlug)
    plug.learn_by(Recipe(learning_rate=1e-2, batch_size=4, epochs=STEPS))
    return plug


def test_weights_are_learned_from_a_text_alone(lm: LanguageModel, knowledge: Bundle) -> None:
    """By hand: one text after the other, one lesson after the other, with parametrised maps."""
    plug = plug_of(lm, knowledge)
    inputs, texts = inputs_of(lm, knowledge)
    weights = digest(lm)
    with torch.inference_mode(), plug.attach(lm):
        found = lm(inputs.collate(np.arange(3)))
    assert digest(lm) == weights
    for number, rows in enumerate(texts[:2]):
        learned = [by_hand(plug, lm, row) for row in rows]
        with torch.no_grad(), Added(plug, lm, learned):
            expected = lm(inputs.collate(np.array([number])))[0]
        most = float(expected.abs().max())
        own = found[number, : len(expected)]
        torch.testing.assert_close(own, expected, rtol=0, atol=2e-4 * max(1.0, most))
    assert digest(lm) == weights


class Added:
    """The products of low rank, added to the weights themselves inside the block."""

    def __init__(self, plug: PragPlug, lm: LanguageModel, learned: list[list[Tensor]]) -> None:
        modules = [lm.layers[layer].get_submodule(name) for layer, name in plug.maps]
        self.weights: list[Tensor] = [module.weight for module in modules]
        self.changes = [sum(several) for several in zip(*learned, strict=True)]

    def __enter__(self) -> None:
        self.before = [weight.data for weight in self.weights]
        for weight, change in zip(self.weights, self.changes, strict=True):
            assert isinstance(change, Tensor)
            weight.data = weight.data + (change if change.shape == weight.shape else change.T)

    def __exit__(self, *_: object) -> None:
        for weight, before in zip(self.weights, self.before, strict=True):
            weight.data = before


def by_hand(plug: PragPlug, lm: LanguageModel, row: int) -> list[Tensor]:
    """The change of each map, ``[out, in]``, after the lessons of one text."""
    method, knowledge, rank = plug.method, plug.knowledge, plug.rank
    begins = plug.begin.split([rank * given for given, _ in plug.sizes])
    downs = [nn.Parameter(own.view(rank, -1).clone()) for own in begins]
    ups = [nn.Parameter(torch.zeros(made, rank)) for _, made in plug.sizes]
    optimizer = torch.optim.AdamW([*downs, *ups], lr=float(plug.rate), weight_decay=0.0)
    modules = [lm.layers[layer].get_submodule(name) for layer, name in plug.maps]

    def hook(number: int) -> Any:
        def added(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            scale = method.options["alpha"] / rank
            return output + scale * F.linear(F.linear(given[0], downs[number]), ups[number])

        return added

    handles = [module.register_forward_hook(hook(n)) for n, module in enumerate(modules)]
    for step in range(STEPS):
        losses = []
        for text in method.lessons(knowledge, row):
            losses += said_by_hand(lm, text, step)
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    for handle in handles:
        handle.remove()
    lm.zero_grad(set_to_none=True)
    scale = method.options["alpha"] / rank
    return [scale * (up @ down).detach() for up, down in zip(ups, downs, strict=True)]


def said_by_hand(lm: LanguageModel, text: str, step: int) -> list[Tensor]:
    """What is lost at each token of a lesson that is asked for at a step."""
    special, own = affixes(lm.tokenizer), bare_tokens(lm.tokenizer, [text])[0]
    before = [*special.before]
    whole = before + own + ([] if lm.left_to_right else [*special.after])
    if lm.left_to_right:
        asked = range(max(1, len(before)), len(whole))
    else:  # every seventh, from another one on at each step
        asked = range(len(before) + step % min(7, len(own)), len(before) + len(own), 7)
    ids = torch.tensor([whole])
    for at in asked if not lm.left_to_right else ():
        ids[0, at] = lm.tokenizer.mask_token_id
    logits = lm.network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    shift = 1 if lm.left_to_right else 0
    return [-logits[at - shift].log_softmax(-1)[whole[at]] for at in asked]


@torch.no_grad()
def test_texts_learn_and_are_read_each_for_itself(lm: LanguageModel, knowledge: Bundle) -> None:
    inputs, texts = inputs_of(lm, knowledge)
    batch = inputs.collate(np.arange(3))
    base = lm(batch)
    with plug_of(lm, knowledge).attach(lm):
        together = lm(batch)
        for row in range(3):
            alone = lm(inputs.collate(np.array([row])))[0]
            close(together[row, : len(alone)], alone)
    own = plug_of(lm, knowledge)
    with own.attach(lm):
        for row in (1, 0):  # learned in another order, and apart
            alone = lm(inputs.collate(np.array([row])))[0]
            close(together[row, : len(alone)], alone)
    assert (together[0] - base[0]).abs().max() > 1e-3
    assert not texts[2]
    width = int(batch.mask[2].sum())
    assert torch.equal(together[2, :width], base[2, :width])
    assert torch.equal(lm(batch), base)


def close(one: Tensor, other: Tensor) -> None:
    most = max(1.0, float(other.abs().max()))
    torch.testing.assert_close(one, other, rtol=0, atol=3e-4 * most)


@torch.no_grad()
def test_a_text_is_learned_once_beside_the_same_weights(
    lm: LanguageModel, knowledge: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[list[int]] = []
    learn = Learned.learn

    def counted(self: Learned, lm: LanguageModel, rows: list[int]) -> None:
        learned.append(rows)
        learn(self, lm, rows)

    monkeypatch.setattr(Learned, "learn", counted)
    inputs, texts = inputs_of(lm, knowledge)
    plug = plug_of(lm, knowledge)
    for several in ([0], [0, 1], [0]):
        with plug.attach(lm):
            lm(inputs.collate(np.array(several)))
            lm(inputs.collate(np.array(several)))
    assert learned == [texts[0], texts[1], []]
    lm.word_embeddings.weight.mul_(1.0)  # as if they had been tuned
    with plug.attach(lm):
        lm(inputs.collate(np.array([0])))
    assert learned[-1] == texts[0]


def test_what_is_learned_is_found_likelier(lm: LanguageModel, knowledge: Bundle) -> None:
    """Lessons are said better after them, also where tokens are masked by turns."""
    plug = plug_of(lm, knowledge)
    losses: list[float] = []

    def noted(*given: Any, **named: Any) -> Tensor:
        each = cross_entropy(*given, **named)
        losses.append(float(each.detach().mean()))
        return each

    cross_entropy = F.cross_entropy
    plug.learn_by(Recipe(learning_rate=1e-2, batch_size=4, epochs=30))
    inputs, _ = inputs_of(lm, knowledge)
    with pytest.MonkeyPatch.context() as patch, plug.attach(lm):
        patch.setattr(F, "cross_entropy", noted)
        lm(inputs.collate(np.array([0])))
    assert len(losses) == 30
    assert np.mean(losses[-7:]) < np.mean(losses[:7]) - 0.5


def test_what_cannot_run_says_why(tmp_path: Path, lm: LanguageModel) -> None:
    card = {"name": "mute", "version": "1", "licence": "none", "source": "test"}
    write_bundle(tmp_path / "mute", card, [Entity("Q1", "it")])
    with pytest.raises(Unsupported, match="has nothing to tell"):
        Prag().build(lm, Bundle(tmp_path / "mute"))
