"""concept: each slot is its own look at an entity's facts, and no more than that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kbench.errors import Unsupported
from kbench.knowledge import Bundle, Entity, write_bundle
from kbench.knowledge.controls import Shuffled, ValueSwapped
from kbench.model import LanguageModel
from kbench.model.huggingface import load_folder
from kbench.testing.tiny import tiny
from kbench_baselines.concept import Concept, ConceptPlug
from tests.architectures import write, write_decoder
from tests.baselines.texts import check_slots_alone, entity_of, some_rows, words


@pytest.fixture(scope="module")
def knowledge() -> Bundle:
    return Bundle(tiny().uneven)


@pytest.fixture(scope="module", params=["bert", "gemma2", "gpt2", "llama"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    wrote = write if request.param == "bert" else write_decoder
    return load_folder(wrote(folder, request.param))


def plug_of(lm: LanguageModel, knowledge: Any, **options: Any) -> ConceptPlug:
    torch.manual_seed(0)
    plug = Concept(options).build(lm, knowledge).eval()
    assert isinstance(plug, ConceptPlug)
    return plug


def by_hand(plug: ConceptPlug, lm: LanguageModel, row: int) -> Tensor:
    """The equation, slot after slot and fact after fact. ``[n, W]``."""
    source, width = plug.method.options["source"], lm.slot_width
    knowledge, relations = plug.knowledge, list(plug.knowledge.relations.values())
    facts = [fact for fact in knowledge.triples.tolist() if fact[0] == row]
    facts = facts[: int(plug.method.options["facts"])]
    slots = []
    for slot in range(plug.slots):
        of = slice(slot * width, (slot + 1) * width)
        own = entity_of(knowledge, lm, source, row)
        query = plug.query.weight[of] @ own + plug.query.bias[of]
        scores, values = [], []
        for _, relation, tail in facts:
            given = entity_of(knowledge.unbroken, lm, source, tail)
            key = plug.key.weight[of] @ given
            key = key + plug.edge.weight[of] @ words(lm, relations[relation])
            scores.append(query @ key / width**0.5)
            values.append(plug.value.weight[of] @ given)
        found = torch.stack(scores).softmax(0) @ torch.stack(values)
        inner, _, outer = plug.shared
        slots.append(outer(F.leaky_relu(inner(found))))
    return torch.stack(slots)


@torch.no_grad()
def test_slots_are_what_attention_finds_among_facts(lm: LanguageModel, knowledge: Bundle) -> None:
    rows = some_rows(knowledge)
    others = Shuffled(knowledge, 0)  # whose facts say their own values
    for of, options in (
        (knowledge, {"slots": 3}),
        (knowledge, {"slots": 2, "facts": 1, "source": "words"}),
        (others, {"slots": 2}),
    ):
        plug = plug_of(lm, of, **options)
        with plug.attach(lm):
            found = plug.slot_vectors(torch.tensor(rows))
            turned = plug.slot_vectors(torch.tensor(rows[::-1]))
        for row, slots in zip(rows, found, strict=True):
            torch.testing.assert_close(slots, by_hand(plug, lm, row), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(turned.flip(0), found)
    with pytest.raises(RuntimeError, match="attach the plug first"):
        plug.slot_vectors(torch.tensor(rows))


@torch.no_grad()
def test_one_without_an_entity_is_left_as_it_is(lm: LanguageModel, knowledge: Bundle) -> None:
    check_slots_alone(lm, knowledge, plug_of(lm, knowledge, slots=2), Concept.slot, 2)


@torch.no_grad()
def test_false_values_are_seen(lm: LanguageModel, knowledge: Bundle) -> None:
    rows = torch.tensor(some_rows(knowledge))
    found = []
    for of in (knowledge, ValueSwapped(knowledge, 0)):
        plug = plug_of(lm, of, source="words")
        with plug.attach(lm):
            found.append(plug.slot_vectors(rows))
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_what_cannot_run_says_why(tmp_path: Path, lm: LanguageModel) -> None:
    card = {"name": "mute", "version": "1", "licence": "none", "source": "test"}
    write_bundle(tmp_path / "mute", card, [Entity("Q1", "it")])
    with pytest.raises(Unsupported, match="has no facts"):
        Concept().build(lm, Bundle(tmp_path / "mute"))
    write_bundle(tmp_path / "plain", card, [Entity("Q1", "it")], [("Q1", "P1", "Q1")], {"P1": "is"})
    with pytest.raises(Unsupported, match="has no entity vectors"):
        Concept().check(lm, Bundle(tmp_path / "plain"))
