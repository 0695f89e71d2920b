"""kblam beside a frozen Llama: facts projected once, against one by one in each layer at each step.

The plain form is that of the release: each fact is projected by itself, keys and values are spread
over all heads and all texts, and stand before the text's own in one softmax. At the steps of an
answer they are projected already there, too, and what is left is to spread and to join them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.encoding import Batch
from kbench.knowledge import Bundle
from kbench.model import AttentionCall, LanguageModel
from kbench.model.generation import go_on
from kbench.model.huggingface import load_folder
from kbench.testing.tiny import tiny
from kbench.testing.toys import write_backbone
from kbench_baselines.facts import FactVectors
from kbench_baselines.kblam import Kblam, KblamPlug
from tests.baselines.texts import inputs_of
from tests.scale_world import lay

from .conftest import Demands


class Plain:
    """The layers' attention with all facts, made anew at every pass, or joined with the text's."""

    def __init__(
        self, plug: KblamPlug, lm: LanguageModel, knowledge: Bundle, *, once: bool = False
    ) -> None:
        self.plug, self.lm, self.once = plug, lm, once
        self.known: dict[int, list[Tensor]] = {}
        given = FactVectors(lm, knowledge, "kge", torch.device("cpu"))
        self.count = int(plug.method.options["facts"])
        spaced = np.arange(self.count) * len(given.table) // self.count
        facts = given.table.facts[spaced].astype(np.int64)
        heads, kinds, tails = facts.T
        self.keys = torch.cat([given.heads(heads), given.relations(kinds)], 1)
        self.values = given.tails(tails)

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            for number, layer in enumerate(self.plug.form.layers):
                change = partial(self.attended, number)
                stack.enter_context(self.lm.attention(layer).changed(change))
            yield

    def made(self, number: int) -> list[Tensor]:
        """Keys and values of all facts in a layer, fact after fact. ``[facts, width]`` each."""
        plug, width = self.plug, self.plug.form.key_heads * self.plug.form.size
        of = slice(number * width, (number + 1) * width)
        keys, values = [], []
        for key, value in zip(self.keys, self.values, strict=True):
            made = plug.key.weight[of] @ key + plug.key.bias[of]
            keys.append(F.layer_norm(made, made.shape))
            values.append(plug.value.weight[of] @ value + plug.value.bias[of])
        return [torch.stack(keys), torch.stack(values)]

    def attended(self, number: int, call: AttentionCall) -> Tensor:
        plug, form = self.plug, self.plug.form
        groups, texts = form.heads // form.key_heads, len(call.hidden)
        if not self.once or number not in self.known:
            self.known[number] = self.made(number)
        spread = [
            several.view(self.count, form.key_heads, form.size).transpose(0, 1)
            .repeat_interleave(groups, 0).repeat(texts, 1, 1, 1)
            for several in self.known[number]
        ]  # fmt: skip
        change = F.linear(call.hidden, plug.query[number])
        change = change.view(*change.shape[:2], form.heads, form.size).transpose(1, 2)
        beside = (call.unrotated() + change) @ spread[0].mT * call.scaling
        beside = beside - np.log(self.count) + plug.bias[number]
        own = [part.repeat_interleave(groups, 1) for part in (call.keys, call.values)]
        scores = call.queries @ own[0].mT * call.scaling
        scores = scores.masked_fill(~call.visible(), -torch.inf)
        weights = torch.cat([beside, scores], 3).softmax(-1)
        return (weights @ torch.cat([spread[1], own[1]], 2)).transpose(1, 2)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A knowledge base of more than 4,096 facts, which no embedded task comes with."""
    return lay(tmp_path_factory.mktemp("scale") / "kb", 50_000)


@pytest.mark.parametrize("facts", [256, 4096])
def test_facts_are_projected_once(
    tmp_path: Path, demands: Demands, facts: int, request: pytest.FixtureRequest
) -> None:
    small = facts < 4096
    knowledge = Bundle(tiny().knowledge) if small else request.getfixturevalue("large")
    plug, lm, plain = _both(tmp_path, knowledge, facts)
    batch = _nobody(lm)
    with torch.inference_mode(), plug.attach(lm), plain.attached():
        torch.testing.assert_close(lm(batch), plain.lm(batch), rtol=1e-4, atol=1e-4)
        demands.ratio(
            f"kblam, {facts} facts",
            lambda: lm(batch),
            lambda: plain.lm(batch),
            least=3,
            rounds=3 if small else 1,
        )


def test_facts_are_not_joined_at_each_step(tmp_path: Path, demands: Demands, large: Bundle) -> None:
    plug, lm, plain = _both(tmp_path, large, 4096, once=True)
    batch, never = _nobody(lm), torch.empty(0, dtype=torch.int64)
    with torch.inference_mode(), plug.attach(lm), plain.attached():
        ours, theirs = (go_on(of, batch, 8, never)[0] for of in (lm, plain.lm))
        assert torch.equal(ours, theirs)
        demands.ratio(
            "kblam, 4096 facts, 8 steps",
            lambda: go_on(lm, batch, 8, never),
            lambda: go_on(plain.lm, batch, 8, never),
            least=1,
            rounds=3,
            against="facts joined with the text's",
        )


def _both(
    folder: Path, knowledge: Bundle, facts: int, *, once: bool = False
) -> tuple[KblamPlug, LanguageModel, Plain]:
    written = write_backbone(folder / "llama", layers=4, width=128, left_to_right=True)
    lm, other = load_folder(written), load_folder(written)
    options = {"mode": "global", "facts": facts, "every": 1}
    plug = Kblam(options).build(lm, knowledge).eval()
    assert isinstance(plug, KblamPlug)
    nn.init.normal_(plug.query, std=0.1)
    return plug, lm, Plain(plug, other, knowledge, once=once)


def _nobody(lm: LanguageModel) -> Batch:
    """Texts on nobody: all look at the same facts."""
    return inputs_of(lm, Bundle(tiny().knowledge))[0].collate(np.array([2, 2, 2, 2]))
