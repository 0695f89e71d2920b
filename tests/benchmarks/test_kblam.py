"""kblam beside a frozen Llama: facts projected once, against one by one in each layer at each step.

The plain form is that of the release: each fact is projected by itself, keys and values are spread
over all heads and all texts, and stand before the text's own in one softmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.knowledge import Bundle
from kbench.model import AttentionCall, LanguageModel
from kbench.model.huggingface import load_folder
from kbench.testing.tiny import tiny
from kbench.testing.toys import write_backbone
from kbench_baselines.facts import FactVectors
from kbench_baselines.kblam import Kblam, KblamPlug
from tests.baselines.texts import inputs_of

from .conftest import Demands

FACTS = 256


class Plain:
    """The layers' attention with all facts, made anew at every pass."""

    def __init__(self, plug: KblamPlug, lm: LanguageModel, knowledge: Bundle) -> None:
        self.plug, self.lm = plug, lm
        given = FactVectors(lm, knowledge, "kge", torch.device("cpu"))
        facts = given.table.facts[np.arange(FACTS) * len(given.table) // FACTS].astype(np.int64)
        heads, kinds, tails = facts.T
        self.keys = torch.cat([given.entities(heads), given.relations(kinds)], 1)
        self.values = given.entities(tails)

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            for number, layer in enumerate(self.plug.form.layers):
                change = partial(self.attended, number)
                stack.enter_context(self.lm.attention(layer).changed(change))
            yield

    def attended(self, number: int, call: AttentionCall) -> Tensor:
        plug, form = self.plug, self.plug.form
        width, groups = form.key_heads * form.size, form.heads // form.key_heads
        of = slice(number * width, (number + 1) * width)
        keys, values = [], []
        for key, value in zip(self.keys, self.values, strict=True):
            made = plug.key.weight[of] @ key + plug.key.bias[of]
            keys.append(F.layer_norm(made, made.shape))
            values.append(plug.value.weight[of] @ value + plug.value.bias[of])
        texts = len(call.hidden)
        spread = [
            torch.stack(several).view(FACTS, form.key_heads, form.size).transpose(0, 1)
            .repeat_interleave(groups, 0).repeat(texts, 1, 1, 1)
            for several in (keys, values)
        ]  # fmt: skip
        change = F.linear(call.hidden, plug.query[number])
        change = change.view(*change.shape[:2], form.heads, form.size).transpose(1, 2)
        beside = (call.unrotated() + change) @ spread[0].mT * call.scaling
        beside = beside - np.log(FACTS) + plug.bias[number]
        own = [part.repeat_interleave(groups, 1) for part in (call.keys, call.values)]
        scores = call.queries @ own[0].mT * call.scaling
        scores = scores.masked_fill(~call.visible(), -torch.inf)
        weights = torch.cat([beside, scores], 3).softmax(-1)
        return (weights @ torch.cat([spread[1], own[1]], 2)).transpose(1, 2)


def test_facts_are_projected_once(tmp_path: Path, demands: Demands) -> None:
    folder = write_backbone(tmp_path / "llama", layers=4, width=128, left_to_right=True)
    lm, other = load_folder(folder), load_folder(folder)
    knowledge = Bundle(tiny().knowledge)
    options = {"mode": "global", "facts": FACTS, "every": 1}
    plug = Kblam(options).build(lm, knowledge).eval()
    assert isinstance(plug, KblamPlug)
    nn.init.normal_(plug.query, std=0.1)
    # Texts on nobody: all look at the same facts.
    batch = inputs_of(lm, knowledge)[0].collate(np.array([2, 2, 2, 2]))
    plain = Plain(plug, other, knowledge)
    with torch.inference_mode(), plug.attach(lm), plain.attached():
        torch.testing.assert_close(lm(batch), other(batch), rtol=1e-4, atol=1e-4)
        demands.ratio(
            f"kblam, {FACTS} facts", lambda: lm(batch), lambda: other(batch), least=3, rounds=3
        )
