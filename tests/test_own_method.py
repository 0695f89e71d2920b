"""docs/own-method.md: its examples as they are printed there keep all contracts, and learn."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kbench.data import Example, Mention, Role
from kbench.encoding import Layout, encode
from kbench.knowledge import Bundle
from kbench.method import InjectionMethod
from kbench.model.generation import go_on
from kbench.model.huggingface import load_folder
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.testing import assert_contracts, registered
from kbench.testing.tiny import tiny
from tests.architectures import write_decoder

PAGE = Path(__file__).parents[1] / "docs" / "own-method.md"
NAMES = {
    "sign_and_map": "SignAndMapTuning",
    "two_facts": "TwoFacts",
    "own_weights": "OwnWeights",
}


@pytest.fixture(scope="module", autouse=True)
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("examples")
    codes = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for name, code in zip(NAMES, codes, strict=True):
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    with registered(Kind.METHODS, **{name: f"{name}:{kind}" for name, kind in NAMES.items()}):
        yield
    sys.path.remove(str(folder))
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_keeps_its_contracts(name: str) -> None:
    assert_contracts(Kind.METHODS, name.replace("_", "-"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("network", ["gpt2", "llama"])
def test_an_example_answers_with_a_cache_as_without(
    name: str, network: str, tmp_path: Path
) -> None:
    lm = load_folder(write_decoder(tmp_path / network, network))
    knowledge = Bundle(tiny().knowledge)
    method: InjectionMethod = registry.get(Kind.METHODS, name.replace("_", "-"))()
    toys = np.array([row for row, own in enumerate(knowledge.ids) if own.startswith("toy:")])
    row = int(toys[method.covers(knowledge, toys)][0])
    text = f"we saw {knowledge.labels[row]}"
    mention = Mention(7, len(text), knowledge.ids[row], Role.TARGET)
    layout = Layout({}, slot=method.template(), left_to_right=True, slots=method.slot_count())
    example = Example("1", text, (mention,), "", blank=len(text))
    batch = encode(lm.tokenizer, [example], [[row]], layout).collate(np.array([0]))
    torch.manual_seed(0)
    plug = method.build(lm, knowledge).eval()
    for parameter in plug.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    with torch.inference_mode(), plug.attach(lm):
        tokens, _ = go_on(lm, batch, 5, torch.empty(0, dtype=torch.int64))
        for step in range(5):
            assert int(lm.predict_tokens(lm(batch)[0, -1:]).argmax()) == int(tokens[0, step])
            ids = torch.cat([batch.ids, tokens[:, step : step + 1]], 1)
            batch = replace(batch, ids=ids, mask=torch.ones_like(ids))


def test_links_and_names_of_the_page_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)", text):
        assert (PAGE.parent / link).is_file(), link
    import kbench.corpus

    table = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert table
    assert [name for name in table if not hasattr(kbench.corpus, name)] == []
