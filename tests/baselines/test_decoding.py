"""What a decoder says with the plug of each method: cached, it is the full forward pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kbench.data import Example, Mention, Role
from kbench.encoding import Inputs, Layout, Passage, encode
from kbench.errors import Unsupported
from kbench.knowledge import Bundle
from kbench.method import InjectionMethod
from kbench.model import LanguageModel
from kbench.model.generation import go_on
from kbench.model.huggingface import load_folder
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.testing.tiny import tiny
from tests.architectures import write_decoder

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (name, {})
        for name in ("none", "ra", "map-tuning", "map-tuning-mlp", "adapter-no-knowledge")
    },
    "k-adapter": ("k-adapter", {}),
    "e-bert": ("e-bert", {}),
    "kv-text": ("kv-text", {"room": 24}),  # the window is of 70 tokens
    "kv-train": ("kv-train", {"room": 24, "slots": 3}),
    "knowla": ("knowla", {}),
    "concept": ("concept", {"slots": 3}),
    "xrag": ("xrag", {"slots": 2}),
    "prag": ("prag", {"facts": 1}),
    "kblam": ("kblam", {}),
    "kblam, global": ("kblam", {"mode": "global", "facts": 30, "every": 1}),
}
MOST = 6
NEVER = torch.empty(0, dtype=torch.int64)


@pytest.fixture(
    scope="module", params=["gemma2", "gpt2", "llama", "mistral", "phi", "qwen2", "qwen3"]
)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    return load_folder(write_decoder(folder, request.param, initializer_range=0.3))


@pytest.fixture(scope="module")
def knowledge() -> Bundle:
    return Bundle(tiny().knowledge)


def inputs_of(lm: LanguageModel, method: InjectionMethod, knowledge: Bundle) -> Inputs:
    """Three texts of unlike length, each on an entity that the method has something to say of."""
    toys = np.array([row for row, own in enumerate(knowledge.ids) if own.startswith("toy:")])
    known = toys[method.covers(knowledge, toys) & knowledge.has_vector(toys)][:3].tolist()
    examples, passages = [], []
    for number, row in enumerate(known):
        name = knowledge.labels[row]
        text = "well " * number + f"we saw {name}"
        mention = Mention(len(text) - len(name), len(text), knowledge.ids[row], Role.TARGET)
        examples.append(Example(str(number), text, (mention,), "", blank=len(text)))
        told = method.passages(knowledge, row) if method.text else ()
        passages.append([*map(Passage, told)])
    slots = method.slot_count()
    layout = Layout({}, slot=method.template(), left_to_right=True, room=60, slots=slots)
    brought = passages if any(passages) else ()
    return encode(lm.tokenizer, examples, [[row] for row in known], layout, brought)


@pytest.mark.parametrize("name", METHODS)
def test_cached_decoding_is_the_full_forward_pass(
    lm: LanguageModel, knowledge: Bundle, name: str
) -> None:
    method = registry.get(Kind.METHODS, METHODS[name][0])(METHODS[name][1])
    inputs = inputs_of(lm, method, knowledge)
    assert len(inputs.slots) == (3 * method.slot_count() if method.template() else 0)
    torch.manual_seed(0)
    plug = method.build(lm, knowledge).eval()
    for parameter in plug.parameters():  # far from the identity
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.inference_mode(), plug.attach(lm):
        tokens, said = go_on(lm, inputs.collate(np.arange(3)), MOST, NEVER)
        for row in range(3):
            batch = inputs.collate(np.array([row]))
            total = 0.0
            for step in range(MOST):
                logits = lm.predict_tokens(lm(batch)[0, -1:])[0].log_softmax(-1)
                assert int(logits.argmax()) == int(tokens[row, step])
                total += float(logits.max())
                ids = torch.cat([batch.ids, tokens[row, step].view(1, 1)], 1)
                batch = replace(batch, ids=ids, mask=torch.ones_like(ids))
            assert float(said[row]) == pytest.approx(total, abs=1e-4 * max(1, abs(total)))


@pytest.mark.parametrize("lm", ["llama"], indirect=True)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("kar", "reads both ways"),
        ("ernie", "those behind them too.*reads both ways"),
        ("ra-vm", "hidden from the text that goes on there"),
    ],
)
def test_what_cannot_run_beside_a_decoder_says_why(
    lm: LanguageModel, knowledge: Bundle, name: str, reason: str
) -> None:
    method: InjectionMethod = registry.get(Kind.METHODS, name)({})
    with pytest.raises(Unsupported, match=reason):
        method.build(lm, knowledge)
