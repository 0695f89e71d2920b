"""A step of training never waits for the device: shown for every method that trains, on a stand-in.

The real thing, with CUDA's own alarm, is in tests/gpu.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.encoding import Batch, Inputs, Tree, Trees
from kbench.encoding.batch import Choices
from kbench.knowledge import Bundle
from kbench.method import InjectionMethod
from kbench.model import DownstreamModel, LanguageModel
from kbench.model.heads import PairHead
from kbench.model.huggingface import load_folder
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.pipeline.models import tune
from kbench.pipeline.plugs import fit
from kbench.spec import Setting
from kbench.testing.bench import Bench
from kbench.testing.tiny import TASKS, offered, tiny
from kbench.testing.trial import new_session
from kbench.training.steps import OptimizerStep
from kbench_baselines.untrained import Untrained
from tests.architectures import write_decoder
from tests.baselines.texts import inputs_of
from tests.devices import TRAINED, Device
from tests.devices import device as device  # a fixture

BESIDE_DECODERS = ["concept", "kblam", "knowla", "kv-text", "kv-train", "xrag"]
"""Methods that work inside a network, or make slots by it."""


@pytest.fixture(autouse=True)
def _tiny() -> Iterator[None]:
    with offered():
        yield


@pytest.fixture
def steps(device: Device, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has every step looked at; counts them."""
    step: Callable[[OptimizerStep, Batch], Tensor] = OptimizerStep.step
    taken: list[int] = []

    def looked_at(stepper: OptimizerStep, batch: Batch) -> Tensor:
        taken.append(len(batch.ids))
        with device.looked_at():
            return step(stepper, batch)

    monkeypatch.setattr(OptimizerStep, "step", looked_at)
    return taken


def test_every_method_that_trains_is_looked_at() -> None:
    known: dict[str, Any] = {
        name: registry.get(Kind.METHODS, name) for name in registry.names(Kind.METHODS)
    }
    trains = {n for n, kind in known.items() if kind.settings and not issubclass(kind, Untrained)}
    assert trains == {name for name, _ in TRAINED}


@pytest.mark.parametrize(("method", "setting"), TRAINED)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_step_of_a_plug_waits_for_nothing(
    method: str, setting: str, dtype: str, device: Device, steps: list[int]
) -> None:
    bench, session = Bench(method), new_session()
    # What narrow numbers add is the step's scaler, which is the same for all tasks.
    for task in TASKS if setting == "task-specific" and dtype == "float32" else TASKS[:1]:
        parts = bench.parts(Setting(setting), task=task, dtype=dtype)
        model, _ = tune(session, parts)
        with device:
            fit(session, parts, Setting(setting), model)
    assert len(steps) > 3
    assert not device.waits


@pytest.mark.parametrize("name", BESIDE_DECODERS)
def test_a_plug_beside_a_decoder_waits_no_more_than_the_network(
    name: str, device: Device, tmp_path: Path
) -> None:
    """Once texts are read; the library's own masks of decoders read a number back at each pass."""
    lm = load_folder(write_decoder(tmp_path, "llama", max_position_embeddings=200))
    knowledge = Bundle(tiny().knowledge)
    method: InjectionMethod = registry.get(Kind.METHODS, name)({})
    plug = method.build(lm, knowledge)
    plain, _ = inputs_of(lm, knowledge)
    slotted, _ = inputs_of(lm, knowledge, method.template(), method.slot_count())
    bare = [waits(device, lm, batch) for batch in with_candidates(plain)]
    with plug.attach(lm):
        for batch in with_candidates(slotted):
            lm(batch)
        assert [waits(device, lm, batch) for batch in with_candidates(slotted)] == bare


def with_candidates(inputs: Inputs) -> list[Batch]:
    """Texts as they are, and with candidates behind them as a tree."""
    chosen, tree = np.arange(3), Tree.of([[5], [6, 7], [6, 8]])
    trees = Trees(inputs, (tree,), np.zeros(3, dtype=np.int64))
    return [inputs.collate(chosen), trees.collate(chosen)]


def waits(device: Device, lm: LanguageModel, batch: Batch) -> list[str]:
    """What waits while a batch is read that gradients are to go through."""
    device.waits.clear()
    with device:
        there = batch.to(torch.device("cpu"))
        with device.looked_at():
            lm(there)
    return [*device.waits]


@pytest.mark.parametrize("tuning", ["full", "lora", "adapter", "bitfit", "head"])
def test_a_step_of_a_tuning_waits_for_nothing(
    tuning: str, device: Device, steps: list[int]
) -> None:
    # A task that is answered at [MASK] has no head to train alone.
    for task in TASKS[:2] if tuning == "head" else TASKS:
        parts = Bench("none").parts(Setting.GENERAL, task=task, tuning=tuning)
        with device:
            tune(new_session(), parts)
    assert len(steps) > 3
    assert not device.waits


def test_what_waits_is_seen(
    device: Device, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    loss: Callable[[DownstreamModel, Batch], Tensor] = DownstreamModel.loss

    def curious(model: DownstreamModel, batch: Batch) -> Tensor:
        value = loss(model, batch)
        if value > 1e9 or batch.ids[batch.mask > 0].numel() == 0:
            raise AssertionError("it was not to get this far")
        return value

    monkeypatch.setattr(DownstreamModel, "loss", curious)
    with device:
        tune(new_session(), Bench("none").parts(Setting.GENERAL))
    assert {*device.waits} >= {"__bool__", "index"}
    assert device.waits.count("__bool__") == len(steps)


def test_the_way_of_a_gpu_gives_the_weights_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Batches made ahead by a thread, and masks that are ready, change no more than last bits."""
    made = []
    parts = Bench("kar").parts(Setting.GENERAL)
    for way in ("cpu", "gpu"):
        if way == "gpu":
            request.getfixturevalue("device")
        session = new_session()
        model, _ = tune(session, parts)
        plug, _ = fit(session, parts, Setting.GENERAL, model)
        made.append({**model.state_dict(), **plug.state_dict()})
    apart = max(float((made[0][name] - made[1][name]).abs().max()) for name in made[0])
    assert apart < 1e-4


def test_a_head_that_compares_pairs_waits_for_nothing(device: Device) -> None:
    head = PairHead(4, none=True)
    there = torch.device("cpu")
    with device, device.looked_at():
        scores = head.linear(device.sent(torch.randn(5, 4), there))
        cells = device.sent(torch.tensor([0, 0, 2, 3, 5]), there)
        logits = head.decide(scores, Choices(cells, 2, 3))
        head.loss(logits, device.sent(torch.tensor([0, 3]), there)).backward()
    assert not device.waits
    assert torch.isinf(logits.detach()).tolist() == [
        [False, True, False, False],
        [False, True, False, False],
    ]
