"""A step in parts is the step of the whole batch, for every method; and when memory is short.

What is tried in vain is an artificial error here; tests/gpu has a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kbench.encoding import Batch
from kbench.encoding.micro_batches import split
from kbench.errors import KbenchError
from kbench.model import DownstreamModel, digest
from kbench.pipeline.models import tune
from kbench.pipeline.plugs import fit
from kbench.pipeline.prediction import predict
from kbench.pipeline.stages import evaluate
from kbench.spec import Setting
from kbench.testing.bench import Bench
from kbench.testing.tiny import TASKS, offered
from kbench.testing.trial import QUICK, new_session
from kbench.training.steps import Objective, OptimizerStep

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has ...")


@pytest.fixture(autouse=True)
def _tiny() -> Iterator[None]:
    with offered():
        yield


class Enough(Exception):
    """The test has seen what it wanted to see."""


@pytest.fixture
def without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = F.scaled_dot_product_attention

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        *more: Any,
        **named: Any,
    ) -> Tensor:
        return attend(query, key, value, attn_mask, 0.0, *more, **named)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(F, "dropout", lambda given, *_, **__: given)


@pytest.mark.usefixtures("without_dropout")
@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("map-tuning", "general"),
        ("map-tuning", "task-specific"),
        ("ernie", "task-specific"),
        ("kar", "general"),
        ("kar", "task-specific"),
        ("k-adapter", "general"),
        ("k-adapter", "task-specific"),
        ("adapter-no-knowledge", "task-specific"),
        ("none", "general"),
    ],
)
def test_gradients_of_parts_are_those_of_the_whole(
    method: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart: list[float] = []

    def compared(stepper: OptimizerStep, batch: Batch) -> None:
        found = []
        for size in (len(batch.ids), 5, 1):
            loss, reached = stepper._gradients(split(batch, size))
            assert reached
            gradients = [p.grad for p in stepper._parameters if p.grad is not None]
            found.append([loss, *(gradient.clone() for gradient in gradients)])
        for parts in found[1:]:
            pairs = zip(found[0], parts, strict=True)
            apart.append(max(float((a - b).norm() / (a.norm() + 1e-3)) for a, b in pairs))
        raise Enough

    bench, session = Bench(method), new_session()
    parts = bench.parts(Setting(setting))
    if method == "none":
        monkeypatch.setattr(OptimizerStep, "step", compared)
        with pytest.raises(Enough):
            tune(session, parts)
    else:
        model, _ = tune(session, parts)
        if setting == "task-specific" and Setting.GENERAL in bench.declared:
            fit(session, parts, Setting.GENERAL, model)
        monkeypatch.setattr(OptimizerStep, "step", compared)
        with pytest.raises(Enough):
            fit(session, parts, Setting(setting), model)
    assert max(apart) < 1e-4


def _scarce(most: int, *, at: int = 1) -> Callable[[Objective, Batch], Tensor]:
    """Memory for so many examples, from so manyth call on."""
    of: Callable[[Objective, Batch], Tensor] = Objective.of
    calls = 0

    def limited(objective: Objective, batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        value = of(objective, batch)  # what draws at random has drawn when memory runs out
        if calls >= at and len(batch.ids) > most:
            raise FULL
        return value

    return limited


@pytest.mark.parametrize("task", TASKS)
def test_a_training_that_ran_out_of_memory_is_repeated_by_fixing_its_parts(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, dropout included: what was tried in vain leaves no trace."""
    bench = Bench("none")
    found = []
    for most, fixed in ((4, None), (10**6, 4), (10**6, None)):
        with monkeypatch.context() as patch:
            patch.setattr(Objective, "of", _scarce(most))
            tuned = {"tuned": {"micro_batch": fixed}} if fixed else {}
            model, record = tune(new_session(), bench.parts(Setting.GENERAL, task=task, **tuned))
        found.append((digest(model), record.history.micro_batch))
    assert found[0] == found[1]
    assert [size for _, size in found] == [4, 4, QUICK["batch_size"]]
    assert found[2][0] != found[0][0]  # in other parts dropout draws otherwise


def test_memory_that_runs_out_later_makes_parts_from_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench("map-tuning")
    parts, session = bench.parts(Setting.TASK_SPECIFIC), new_session()
    model, _ = tune(session, parts)
    fit(session, parts, Setting.GENERAL, model)
    monkeypatch.setattr(Objective, "of", _scarce(5, at=2))
    _, record = fit(session, parts, Setting.TASK_SPECIFIC, model)
    assert record.history.micro_batch == 4


def test_a_loss_that_compares_a_whole_batch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, session = Bench("ernie").parts(Setting.GENERAL), new_session()
    model, _ = tune(session, parts)
    monkeypatch.setattr(Objective, "of", _scarce(5))
    with pytest.raises(KbenchError, match="compares its examples with each other"):
        fit(session, parts, Setting.GENERAL, model)


@pytest.mark.parametrize("most", [1, 3, 128])
def test_a_prediction_takes_fewer_at_once_and_is_the_same(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, session = Bench("map-tuning").parts(Setting.TASK_SPECIFIC), new_session()
    model, _ = tune(session, parts)
    plug, _ = fit(session, parts, Setting.TASK_SPECIFIC, model)
    whole = evaluate(session, parts)
    forward: Callable[[DownstreamModel, Batch], Tensor] = DownstreamModel.forward

    def limited(model: DownstreamModel, batch: Batch) -> Tensor:
        if len(batch.ids) > most:
            raise FULL
        return forward(model, batch)

    monkeypatch.setattr(DownstreamModel, "forward", limited)
    with plug.attach(model.lm):
        found = predict(model, whole.prepared.inputs, torch.device("cpu"))
    assert found.labels == whole.predicted.labels
    assert found.scores == pytest.approx(whole.predicted.scores, abs=1e-5)
    assert found.batch_size == {1: 1, 3: 3, 128: 128}[most]
    assert evaluate(session, parts).training["evaluation"]["batch_size"] == found.batch_size
