"""The stage ``fit``: a plug from the store, or trained, while the model around it is frozen."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from kbench.data import Split
from kbench.encoding import Examples
from kbench.errors import FrozenError
from kbench.method import Fit, Plug
from kbench.model import DownstreamModel, LanguageModel, digest
from kbench.model.freezing import frozen
from kbench.parts.run_parts import Parts
from kbench.pipeline.addresses import plug_inputs
from kbench.pipeline.processor import ProcessorClock
from kbench.pipeline.session import Session
from kbench.pipeline.training_record import TrainingRecord
from kbench.pipeline.weights import check_finite, refill
from kbench.spec import Setting
from kbench.store.folder import address

__all__ = ["fit"]


def fit(
    session: Session, parts: Parts, setting: Setting, model: DownstreamModel | None
) -> tuple[Plug, TrainingRecord]:
    """Returns the plug of a run for a setting, and what is recorded of its making.

    Args:
        session: of this process.
        parts: of the run.
        setting: of the plug.
        model: the downstream model; only a task-specific plug sees it.
    """
    assert parts.knowledge is not None
    inputs = plug_inputs(parts, setting)
    key = address("plug", inputs)
    # A general plug belongs to the backbone as pre-trained, whatever was tuned since.
    downstream = model if setting == Setting.TASK_SPECIFIC else None
    fitted = session.remember(
        ("plug", key), lambda: _fitted(session, parts, setting, downstream, inputs, key)
    )
    if parts.knowledge_of(setting).digest == parts.knowledge.digest:
        return fitted
    return session.remember(
        ("plug", key, parts.knowledge.digest), lambda: _over(session, parts, *fitted)
    )


def _over(
    session: Session, parts: Parts, fitted: Plug, record: TrainingRecord
) -> tuple[Plug, TrainingRecord]:
    """Returns a plug of the same weights over the knowledge base as the run sees it."""
    assert parts.knowledge is not None
    plug = parts.method.build(session.pretrained(parts), parts.knowledge).to(session.device)
    plug.load_state_dict(fitted.state_dict())
    return plug.eval(), record


def _fitted(
    session: Session,
    parts: Parts,
    setting: Setting,
    model: DownstreamModel | None,
    inputs: dict[str, Any],
    key: str,
) -> tuple[Plug, TrainingRecord]:
    knowledge = parts.knowledge_of(setting)
    lm = model.lm if model else session.pretrained(parts)
    torch.manual_seed(parts.spec.seed)
    plug = parts.method.build(lm, knowledge).to(session.device)
    start: TrainingRecord | None = None
    if model and parts.method.starts_general(lm, knowledge):
        general, start = fit(session, parts, Setting.GENERAL, model)
        plug.load_state_dict(general.state_dict())
    with session.artifacts.making("plug", key):
        stored = session.artifacts.load("plug", key)
        if stored is None:
            record = replace(
                _train(session, parts, setting, lm, model, plug),
                of=parts.spec.title,
                address=key,
                start=start,
            )
            session.artifacts.save("plug", inputs, dict(plug.state_dict()), **record.as_json())
        else:
            path = session.artifacts.path("plug", key)
            refill(plug, stored.tensors, path, parts.spec.method)
            record = TrainingRecord.from_json(stored.about)
    return plug.eval(), record


def _train(
    session: Session,
    parts: Parts,
    setting: Setting,
    lm: LanguageModel,
    model: DownstreamModel | None,
    plug: Plug,
) -> TrainingRecord:
    asked = _asked(session, parts, setting, lm, model, plug)
    network = model if model is not None else lm
    before = digest(network)
    session.reset_peak()
    processor = ProcessorClock(session.device)
    with frozen(network):
        history = parts.method.fit(plug, asked)
    spent = processor.seconds
    if digest(network) != before:
        raise FrozenError(f"{parts.spec.method} changed weights of the frozen model")
    check_finite(plug, f"{parts.spec.method}: the plug", history)
    return TrainingRecord(
        recipe=asked.recipe.as_dict(),
        history=history,
        trainable_parameters=sum(p.numel() for p in plug.parameters() if p.requires_grad),
        processor_seconds=spent,
        **session.computed(parts, compiled=session.compiled),
    )


def _asked(
    session: Session,
    parts: Parts,
    setting: Setting,
    lm: LanguageModel,
    model: DownstreamModel | None,
    plug: Plug,
) -> Fit:
    """Puts together all that a method may look at while it trains a plug."""
    recipe, spec = parts.plug_recipe(setting), parts.spec
    common = partial(
        Fit,
        lm=lm,
        knowledge=parts.knowledge_of(setting),
        recipe=recipe,
        options=parts.method.options,
        seed=spec.seed,
        device=session.device,
        dtype=spec.dtype,
        compiled=session.compiled,
    )
    if model is None:
        steps = session.steps(f"fit {spec.method} ({spec.control})")
        return common(Setting.GENERAL, model=None, examples=None, validate=None, progress=steps)
    states = session.states_of_dev(parts, model, plug) if recipe.select else None
    train = session.prepared(parts, Split.TRAIN, model, injected=True)
    return common(
        Setting.TASK_SPECIFIC,
        model=model,
        examples=Examples(train.inputs, train.gold.targets),
        validate=lambda: session.validate(parts, model, injected=True, states=states),
        progress=session.steps(f"fit {spec.method} on {spec.task} ({spec.control})"),
    )
