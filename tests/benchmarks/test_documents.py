"""Texts of entities beside a frozen Llama: as keys and values, and as weights of low rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Inputs, Layout, Passage, encode
from kbench.knowledge import Bundle, Entity, write_bundle
from kbench.model import LanguageModel
from kbench.model.huggingface import load_folder
from kbench.testing.toys import write_backbone
from kbench.training import Recipe
from kbench_baselines.kv_text import KvText
from kbench_baselines.prag import Prag, PragPlug
from kbench_baselines.retrieval import RetrievalAugmentation

from .conftest import Demands
from .world import CARD, WORDS

ENTITIES, QUESTIONS, DESCRIPTION = 8, 32, 60


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("documents") / "llama"
    return load_folder(
        write_backbone(folder, layers=4, width=256, positions=256, left_to_right=True)
    )


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Entities with descriptions of sixty words."""
    rng = np.random.default_rng(0)
    told = [" ".join(rng.choice(WORDS, size=DESCRIPTION)) for _ in range(ENTITIES)]
    folder = tmp_path_factory.mktemp("documents") / "kb"
    write_bundle(folder, CARD, [Entity(f"Q{n}", description=text) for n, text in enumerate(told)])
    return Bundle(folder)


def asked(lm: LanguageModel, knowledge: Bundle, told: bool) -> Inputs:
    """Questions of some ten words, each on one entity; and its description before each."""
    rng = np.random.default_rng(1)
    examples, rows, texts = [], [], []
    for number in range(QUESTIONS):
        text = " ".join(["kevo", *rng.choice(WORDS, size=rng.integers(6, 12))])
        mention = Mention(0, 4, f"Q{number % ENTITIES}", Role.TARGET)
        examples.append(Example(str(number), text, (mention,), "", blank=len(text)))
        rows.append([number % ENTITIES])
        description = RetrievalAugmentation().passages(knowledge, number % ENTITIES)
        texts.append([Passage(text) for text in description])
    layout = Layout({}, left_to_right=True, room=lm.max_length)
    return encode(lm.tokenizer, examples, rows, layout, texts if told else ())


def test_keys_and_values_of_texts(lm: LanguageModel, knowledge: Bundle, demands: Demands) -> None:
    """Once they are read: as where an entity is asked about more than once."""
    short, long = (
        asked(lm, knowledge, told).collate(np.arange(QUESTIONS)) for told in (False, True)
    )
    fewer = int(long.mask.sum()) / int(short.mask.sum())
    demands.note("kv-text, tokens", f"{fewer:.2f} ×", "at least 4 ×", "ra: all texts", fewer >= 4)
    plug = KvText().build(lm, knowledge)

    def ra() -> Tensor:
        return lm.pool(lm(long), long.mask)

    with torch.inference_mode():
        expected = ra()
        with plug.attach(lm):
            torch.testing.assert_close(
                lm.pool(lm(short), short.mask), expected, rtol=1e-4, atol=1e-4
            )
        with plug.attach(lm):
            lm(short)

            def ours() -> Tensor:
                return lm.pool(lm(short), short.mask)

            def other() -> Tensor:
                with lm.bare():
                    return ra()

            demands.ratio("kv-text", ours, other, least=1.5, against="ra")


def low_rank(lm: LanguageModel, knowledge: Bundle, together: int) -> PragPlug:
    torch.manual_seed(0)
    plug = Prag({"facts": 0}).build(lm, knowledge).eval()
    assert isinstance(plug, PragPlug)
    plug.learn_by(Recipe(learning_rate=1e-2, batch_size=together, epochs=2))
    return plug


def test_weights_of_texts(lm: LanguageModel, knowledge: Bundle, demands: Demands) -> None:
    """Read: as many in a batch, against each put into the weights, read by and taken out again."""
    plug = low_rank(lm, knowledge, ENTITIES)
    inputs = asked(lm, knowledge, told=False)
    batch = inputs.collate(np.arange(QUESTIONS))
    modules = [lm.layers[layer].get_submodule(name) for layer, name in plug.maps]
    weights = [weight for module in modules if isinstance(weight := module.weight, Tensor)]
    with plug.attach(lm):
        with torch.inference_mode():
            lm(batch)
        learned = plug._learned[lm]._known
        changes = {
            row: [(up[0] @ down[0]).detach() for down, up in plug.factors(learned[row][None])]
            for row in learned
        }

        def ours() -> list[Tensor]:
            return list(lm.pool(lm(batch), batch.mask))

        def one_by_one() -> list[Tensor]:
            said = []
            with lm.bare():
                for number in range(QUESTIONS):
                    alone = inputs.collate(np.array([number]))
                    own = changes[number % ENTITIES]
                    for weight, change in zip(weights, own, strict=True):
                        weight.data += change
                    said += list(lm.pool(lm(alone), alone.mask))
                    for weight, change in zip(weights, own, strict=True):
                        weight.data -= change
            return said

        with torch.no_grad():
            for mine, theirs in zip(ours(), one_by_one(), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
            demands.ratio("prag, read", ours, one_by_one, least=3, against="one at a time")


def test_weights_of_texts_are_learned(
    lm: LanguageModel, knowledge: Bundle, demands: Demands
) -> None:
    batch = asked(lm, knowledge, told=False).collate(np.arange(ENTITIES))

    def learned(together: int) -> None:
        with low_rank(lm, knowledge, together).attach(lm), torch.inference_mode():
            lm(batch)

    demands.ratio(
        "prag, learned",
        lambda: learned(ENTITIES),
        lambda: learned(1),
        least=1.2,
        against="one at a time",
    )
