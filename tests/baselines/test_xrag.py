"""xrag: a slot is a map of what the network itself makes of a text, and learns to say the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.encoding import Batch, affixes, bare_tokens
from kbench.errors import Unsupported
from kbench.knowledge import Bundle, Entity, KnowledgeBase, write_bundle
from kbench.knowledge.controls import ValueSwapped
from kbench.model import LanguageModel
from kbench.testing.tiny import tiny
from kbench_baselines.retrieval import RetrievalAugmentation
from kbench_baselines.xrag import Taught, Xrag, XragPlug, distilled, paraphrases, taught
from tests.baselines.texts import check_slots_alone, inputs_of, reader, some_rows, standard

TOLD = RetrievalAugmentation()


@pytest.fixture(scope="module")
def knowledge() -> Bundle:
    return Bundle(tiny().knowledge)


@pytest.fixture(scope="module", params=["bert", "gemma2", "gpt2", "llama"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return reader(tmp_path_factory.mktemp(request.param), request.param)


def plug_of(lm: LanguageModel, knowledge: KnowledgeBase, **options: Any) -> XragPlug:
    torch.manual_seed(0)
    plug = Xrag(options).build(lm, knowledge).eval()
    assert isinstance(plug, XragPlug)
    return plug


def states_of(lm: LanguageModel, text: str) -> Tensor:
    """What the network by itself makes of a text's own tokens. ``[tokens, H]``."""
    special = affixes(lm.tokenizer)
    own = bare_tokens(lm.tokenizer, [text])[0]
    if lm.left_to_right:  # a text of its own line
        own = own + bare_tokens(lm.tokenizer, ["\n"])[0]
    ids = torch.tensor([[*special.before, *own, *([] if lm.left_to_right else special.after)]])
    hidden: Tensor = lm.base(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return hidden[0, len(special.before) : len(special.before) + len(own)]


def by_hand(plug: XragPlug, lm: LanguageModel, row: int) -> Tensor:
    """The equation, part after part. ``[n, W]``."""
    (text,) = TOLD.passages(plug.knowledge, row)
    states, parts = states_of(lm, text), plug.method.slot_count()
    first, _, second = plug.map
    slots = []
    for part in range(parts):
        start, end = part * len(states) / parts, (part + 1) * len(states) / parts
        own = [state for at, state in enumerate(states) if at + 1 > start and at < end]
        vector = standard(torch.stack(own).mean(0))
        inner = first.weight @ vector + first.bias
        inner = 0.5 * inner * (1 + torch.erf(inner / 2**0.5))
        slots.append(second.weight @ inner + second.bias)
    return torch.stack(slots)


@torch.no_grad()
def test_slots_are_a_map_of_what_the_network_makes_of_texts(
    lm: LanguageModel, knowledge: Bundle
) -> None:
    rows = some_rows(knowledge)
    for slots in (1, 3):
        plug = plug_of(lm, knowledge, slots=slots)
        with plug.attach(lm):
            found = plug.slot_vectors(torch.tensor(rows)).view(len(rows), slots, -1)
            turned = plug.slot_vectors(torch.tensor(rows[::-1])).view(len(rows), slots, -1)
        for row, own in zip(rows, found, strict=True):
            torch.testing.assert_close(own, by_hand(plug, lm, row), rtol=1e-4, atol=1e-5)
        assert torch.equal(turned.flip(0), found)
        assert (found[0] - found[1]).abs().max() > 1e-4
    with pytest.raises(RuntimeError, match="attach the plug first"):
        plug.slot_vectors(torch.tensor(rows))


@torch.no_grad()
def test_one_without_an_entity_is_left_as_it_is(lm: LanguageModel, knowledge: Bundle) -> None:
    check_slots_alone(lm, knowledge, plug_of(lm, knowledge, slots=2), Xrag.slot, 2)


@torch.no_grad()
def test_texts_are_read_once_and_beside_no_plug(
    lm: LanguageModel, knowledge: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while another text is being read, and where slots are served from a table."""
    plug = plug_of(lm, knowledge)
    inputs, texts = inputs_of(lm, knowledge, Xrag.slot)
    rows = torch.tensor([row for several in texts for row in several])
    with plug.attach(lm):
        expected = plug.slot_vectors(rows)
    with plug.attach(lm), lm.layers[0].register_forward_hook(lambda *_: None):
        lm(inputs.collate(np.array([1])))
        read: list[int] = []
        forward = type(lm).forward

        def counted(of: LanguageModel, batch: Batch, wanted: Tensor | None = None) -> Tensor:
            read.append(len(batch.ids))
            return forward(of, batch, wanted)

        monkeypatch.setattr(type(lm), "forward", counted)
        with torch.inference_mode(), lm.held(rows):
            lm(inputs.collate(np.arange(3)))
        assert read == [1, 3]  # the one text that was not known, and the batch
        torch.testing.assert_close(plug.slot_vectors(rows), expected, rtol=1e-4, atol=1e-5)
        assert read == [1, 3]


def test_a_text_is_asked_for_after_its_name(lm: LanguageModel, knowledge: Bundle) -> None:
    data = paraphrases(lm, knowledge, TOLD, Xrag.slot, 300, room=200, most=9, seed=0)
    assert len(data.sentence) == 9
    batch = data.batch(np.arange(9))
    assert batch.targets is not None
    assert len(batch.slot_rows) == 9
    owners = batch.blank_index // batch.ids.shape[1]
    for at, row in enumerate(batch.slot_rows.tolist()):
        text = " ".join(TOLD.passages(knowledge, row))
        assert batch.targets[owners == at].tolist() == bare_tokens(lm.tokenizer, [f" {text}"])[0]
    if lm.left_to_right:
        assert torch.equal(batch.ids.flatten()[batch.blank_index + 1], batch.targets)
    short = paraphrases(lm, knowledge, TOLD, Xrag.slot, 300, room=9, most=9, seed=0)
    assert np.diff(short.bounds).max() < 20 < np.diff(data.bounds).max()


def lessons_of(lm: LanguageModel, knowledge: KnowledgeBase) -> Taught:
    lessons = taught(lm, knowledge, TOLD, Xrag.slot, 64, room=96, most=6, seed=0)
    assert lessons is not None
    return lessons


def test_what_is_distilled_is_what_is_said_behind_the_text(
    lm: LanguageModel, knowledge: Bundle
) -> None:
    """The teacher by hand, token after token; the loss too, the first token of a tail in it."""
    lessons = lessons_of(lm, knowledge)
    batch = lessons.batch(np.arange(len(lessons.lengths)))
    assert batch.targets is not None
    tokens, likely = lessons.of(batch)
    first = batch.blank_index // batch.ids.shape[1]
    plug = plug_of(lm, knowledge)
    for at in range(3):
        row = int(batch.slot_rows[at])
        head = knowledge.name_of(row)
        mine = torch.nonzero(first == at).flatten()
        fact = next(
            f"{head} {relation} {tail}"
            for relation, tail in knowledge.facts(row)
            if bare_tokens(lm.tokenizer, [f" {tail}"])[0] == batch.targets[mine].tolist()
        )
        said = behind_its_text(lm, TOLD.passages(knowledge, row)[0], fact, len(mine))
        own = said.gather(1, tokens[mine])
        torch.testing.assert_close(own, likely[mine], rtol=1e-4, atol=1e-4)
        assert torch.equal(tokens[mine][:, 0], said.argmax(1))
    with plug.attach(lm):
        loss = distilled(lm, lessons, batch)
        hidden = lm(batch).flatten(0, 1)[batch.blank_index]
        ours = lm.predict_tokens(hidden).float().log_softmax(-1)
    expected = torch.zeros(())
    for at, target in enumerate(batch.targets.tolist()):
        apart = sum(
            value.exp() * (value - ours[at, token])
            for token, value in zip(tokens[at].tolist(), likely[at], strict=True)
        )
        expected = expected + (2 * apart - ours[at, target]) / len(batch.targets)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    (toward,) = torch.autograd.grad(loss, [plug.map[0].weight], retain_graph=True)
    assert toward.abs().max() > 0
    # The first token of the first tail by itself: it is taught, too.
    start = int(torch.nonzero(first == 0)[0])
    of_first = -(likely[start].exp() * ours[start][tokens[start]]).sum()
    (toward,) = torch.autograd.grad(of_first, [plug.map[0].weight])
    assert toward.abs().max() > 0


def behind_its_text(lm: LanguageModel, text: str, fact: str, asked: int) -> Tensor:
    """What the network says at the last tokens of a fact with a text. ``[asked, V]``."""
    tokenizer, special = lm.tokenizer, affixes(lm.tokenizer)
    told, own = bare_tokens(tokenizer, [text])[0], bare_tokens(tokenizer, [fact])[0]
    if lm.left_to_right:
        line = bare_tokens(tokenizer, ["\n"])[0]
        ids = torch.tensor([[*special.before, *told, *line, *own]])
        logits = lm.network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return logits[0, -asked - 1 : -1].log_softmax(-1).detach()
    given = tokenizer(fact, text, return_tensors="pt")
    end = len(special.before) + len(own)
    given["input_ids"][0, end - asked : end] = tokenizer.mask_token_id
    segments = torch.zeros_like(given["input_ids"])
    segments[0, -len(told) - len(special.after) :] = 1
    given["token_type_ids"] = segments
    return lm.network(**given).logits[0, end - asked : end].log_softmax(-1).detach()


@torch.no_grad()
def test_false_values_are_seen(lm: LanguageModel, knowledge: Bundle) -> None:
    rows, found = torch.tensor(some_rows(knowledge)), []
    for of in (knowledge, ValueSwapped(knowledge, 0)):
        plug = plug_of(lm, of, text="facts")
        with plug.attach(lm):
            found.append(plug.slot_vectors(rows))
    assert (found[0] - found[1]).abs().max() > 1e-4


def test_what_cannot_run_says_why(tmp_path: Path, lm: LanguageModel, knowledge: Bundle) -> None:
    card = {"name": "mute", "version": "1", "licence": "none", "source": "test"}
    write_bundle(tmp_path / "mute", card, [Entity("Q1", "it")])
    with pytest.raises(Unsupported, match="has nothing to tell"):
        Xrag().build(lm, Bundle(tmp_path / "mute"))
    with pytest.raises(Unsupported, match="none fits into 3 tokens"):
        paraphrases(lm, knowledge, TOLD, Xrag.slot, 3, room=40, most=9, seed=0)
