"""The narrowed last layer gives what the whole one gives, where it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kbench.data import Example
from kbench.encoding import Batch, Layout, encode
from kbench.model import DownstreamModel, LanguageModel, rewritten
from kbench.model.heads import RelationHead
from kbench.model.huggingface import load_folder
from kbench.model.last_layer import only_at
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from tests.architectures import ARCHITECTURES, DECODERS, write, write_decoder

NARROW = {"bert", "roberta", "camembert", "xlm-roberta", "electra"}
TEXTS = ("a b", "the quick brown fox jumps over it", "c", "so they say of it")


@pytest.fixture(scope="module", params=sorted([*ARCHITECTURES, *DECODERS]))
def named(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, LanguageModel]:
    writes = write_decoder if request.param in DECODERS else write
    folder = writes(tmp_path_factory.mktemp(request.param), request.param)
    return request.param, load_folder(folder).eval()


def batch_of(lm: LanguageModel) -> Batch:
    examples = [Example(str(n), text, (), "") for n, text in enumerate(TEXTS)]
    inputs = encode(lm.tokenizer, examples, [()] * len(examples), Layout({}))
    return inputs.collate(torch.arange(len(TEXTS)).numpy())


def last_layer_rows(lm: LanguageModel, batch: Batch, wanted: Tensor | None) -> list[int]:
    """How many states go through each linear map of the last layer."""
    rows: list[int] = []
    layer = lm.layers[-1]
    original, original_conv = nn.Linear.forward, Conv1D.forward
    inside = {id(module) for module in layer.modules()}

    def forward(self: nn.Linear, given: Tensor) -> Tensor:
        if id(self) in inside:
            rows.append(given.numel() // given.shape[-1])
        return original(self, given)

    def conv(self: Conv1D, given: Tensor) -> Tensor:
        if id(self) in inside:
            rows.append(given.numel() // given.shape[-1])
        seen: Tensor = original_conv(self, given)
        return seen

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(nn.Linear, "forward", forward)
        patch.setattr(Conv1D, "forward", conv)
        lm(batch, wanted)
    return rows


def test_states_and_gradients_are_those_of_the_whole_layer(
    named: tuple[str, LanguageModel],
) -> None:
    _, lm = named
    batch = batch_of(lm)
    width = batch.ids.shape[1]
    wanted = torch.tensor([0, 1, width, 3 * width + 2])
    found = []
    for asked in (None, wanted):
        lm.zero_grad()
        states = lm(batch, asked).flatten(0, 1)[wanted]
        (states * torch.arange(states.numel()).view_as(states)).mean().backward()  # type: ignore[no-untyped-call]
        grads = {n: p.grad for n, p in lm.named_parameters() if p.grad is not None}
        found.append((states.detach(), grads))
    (whole, grads), (narrow, narrow_grads) = found
    assert (whole - narrow).abs().max() < 1e-5
    assert grads.keys() == narrow_grads.keys()
    for name, gradient in grads.items():
        bound = 1e-4 * (1 + gradient.abs().max())
        assert (gradient - narrow_grads[name]).abs().max() <= bound, name


def test_only_what_is_read_goes_through_the_last_layer(named: tuple[str, LanguageModel]) -> None:
    name, lm = named
    if name == "albert":
        return  # its layers share their weights and are no list
    batch = batch_of(lm)
    whole = last_layer_rows(lm, batch, None)
    narrow = last_layer_rows(lm, batch, lm.pooled(batch))
    if name in NARROW:
        assert set(whole) == {batch.ids.numel()}
        # Query, key and value see every token; the three maps after attention see one a text.
        assert sorted(narrow) == [len(TEXTS)] * 3 + [batch.ids.numel()] * 3
    elif name in DECODERS:
        # The last map of attention and the feed-forward network see one state a text.
        assert len(narrow) == len(whole)
        assert {*narrow} == {len(TEXTS), batch.ids.numel()}
        assert narrow.count(len(TEXTS)) >= 3
    else:
        assert narrow == whole


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_a_plug_in_its_attention_makes_no_more_of_it(name: str, tmp_path: Path) -> None:
    lm = load_folder((write_decoder if name in DECODERS else write)(tmp_path, name))
    batch = batch_of(lm)
    wanted = lm.pooled(batch)
    assert wanted is not None
    narrow = last_layer_rows(lm, batch, wanted)
    with torch.no_grad():
        plain = lm(batch, wanted).flatten(0, 1)[wanted]
        with lm.attention(-1).changed(lambda call: call.output()):
            assert last_layer_rows(lm, batch, wanted) == narrow
            assert torch.equal(lm(batch, wanted).flatten(0, 1)[wanted], plain)
        with lm.attention(-1).changed(lambda call: 2 * call.output()):
            assert (lm(batch, wanted).flatten(0, 1)[wanted] - plain).abs().max() > 1e-3
    assert len(TEXTS) in narrow


@pytest.fixture
def lm(tmp_path: Path) -> LanguageModel:
    return load_folder(write(tmp_path, "bert")).eval()


def hooks(lm: LanguageModel) -> Iterator[nn.Module]:
    yield lm
    yield lm.layers[-1]
    yield lm.layers[-1].output  # type: ignore[misc]


def test_what_hooks_into_it_sees_every_position(lm: LanguageModel) -> None:
    batch = batch_of(lm)
    for module in hooks(lm):
        seen: list[Tensor] = []

        def look(states: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(states)
            return states

        with rewritten(module, look), torch.no_grad():
            hidden = lm(batch, lm.pooled(batch))
            assert torch.equal(hidden, lm(batch))
        assert torch.equal(seen[0], seen[1])
        assert seen[0].shape[:2] == batch.ids.shape


def test_nothing_is_left_behind_even_after_an_error(lm: LanguageModel) -> None:
    layer = lm.layers[-1]
    before = set(vars(layer))
    with pytest.raises(ZeroDivisionError), only_at(lm.layers, torch.tensor([0])):
        raise ZeroDivisionError
    assert set(vars(layer)) == before


@pytest.mark.parametrize("tuning", ["lora", "adapter", "bitfit"])
def test_light_tunings_are_narrowed_too(lm: LanguageModel, tuning: str) -> None:
    torch.manual_seed(0)
    model = DownstreamModel(lm, RelationHead(lm.width, ("a", "b")))
    part = registry.get(Kind.TUNINGS, tuning)()
    part.prepare(model, {**part.defaults, "rank": 2, "alpha": 2})
    for parameter in model.parameters():  # what a tuning adds does nothing at first
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.eval()
    batch = batch_of(lm)
    with torch.no_grad():
        whole = model.head(lm, lm(batch), batch)
        assert (model(batch) - whole).abs().max() < 1e-5
    assert len(TEXTS) in last_layer_rows(lm, batch, lm.pooled(batch))
