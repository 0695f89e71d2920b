"""Compiled layers give what the layers give, with every plug hung onto and into them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from kbench.errors import Unsupported
from kbench.model import LanguageModel
from kbench.model.compiling import CompilerWarning, can_compile, compiled
from kbench.spec import Setting
from kbench.testing.bench import Bench
from kbench.testing.tiny import offered
from kbench.testing.trial import Trial, new_session, try_out

CPU = torch.device("cpu")

# Torch's own, when it first imports its compiler, and when that looks at what it is given.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]


@pytest.fixture(autouse=True)
def _tiny() -> Iterator[None]:
    with offered():
        yield


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    torch.compiler.reset()


def _logits(tried: Trial, backend: str | None) -> Tensor:
    model, batch = tried.model, tried.batch
    with (
        tried.chosen(),
        tried.plug.attach(model.lm),
        compiled(model.lm, backend is not None, backend or ""),
        torch.inference_mode(),
    ):
        logits: Tensor = model(batch)
    return logits


def test_every_plug_works_in_compiled_layers_one_after_the_other() -> None:
    """One model for all, so that code compiled with the hooks of another would be seen."""
    session, apart = new_session(), {}
    for method in ("map-tuning", "k-adapter", "ernie", "kar", "adapter-no-knowledge", "ra-vm"):
        setting = Setting.GENERAL if method == "ra-vm" else Setting.TASK_SPECIFIC
        tried = try_out(Bench(method).parts(setting), session)
        before = _logits(tried, None)
        # What is compiled is the layer alone, which all but a mask of another shape share.
        backend = "aot_eager" if method in ("map-tuning", "ra-vm") else "eager"
        apart[method] = float((before - _logits(tried, backend)).abs().max())
        assert torch.equal(before, _logits(tried, None))  # nothing is left behind
        assert float((before - tried.base().logits).abs().max()) > 0  # the plug does something
    assert max(apart.values()) < 1e-5, apart


def test_layers_are_really_compiled_and_gradients_reach_the_plug() -> None:
    tried = try_out(Bench("map-tuning").parts(Setting.TASK_SPECIFIC), new_session())
    model, plug = tried.model, tried.plug
    plain, found = _logits(tried, None), _logits(tried, "inductor")
    assert torch.allclose(plain, found, atol=1e-5)
    gradients = []
    for wanted in (False, True):
        with plug.attach(model.lm), compiled(model.lm, wanted, "aot_eager"):
            assert all(("forward" in vars(layer)) == wanted for layer in model.lm.layers)
            model.loss(tried.batch).backward()
        gradients.append([p.grad.clone() for p in plug.parameters() if p.grad is not None])
        plug.zero_grad()
    assert len(gradients[0]) == len(gradients[1]) == 2
    for one, two in zip(*gradients, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


def test_without_a_compiler_the_network_runs_as_it_is_and_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(torch, "compile", missing)
    with pytest.warns(CompilerWarning, match=r"for cpu here \(Failed to find C compiler.\); the"):
        assert not can_compile(CPU)


def test_a_network_without_layers_of_its_own_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm: LanguageModel = Bench("none").parts(Setting.GENERAL).backbone.load()

    def shared(_: LanguageModel) -> None:
        raise Unsupported("AlbertModel has no list of layers that kbench knows")

    monkeypatch.setattr(LanguageModel, "layers", property(shared))
    told = "AlbertModel has no list of layers .*; it runs as it is"
    with pytest.warns(CompilerWarning, match=told), compiled(lm):
        pass
    with compiled(lm, wanted=False):
        pass
