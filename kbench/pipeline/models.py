"""The stage ``tune``: a downstream model from the store, or trained, and frozen from then on."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from kbench.data import Split
from kbench.encoding import Data, Examples
from kbench.errors import KbenchError
from kbench.method import Plug
from kbench.model import DownstreamModel, FrozenReader, ReadStates, digest
from kbench.model.freezing import frozen
from kbench.model.frozen_reading import WithStates, last_states
from kbench.parts.run_parts import Parts, headed
from kbench.pipeline.addresses import model_inputs, plug_inputs
from kbench.pipeline.plugs import fit
from kbench.pipeline.prediction import logits_of
from kbench.pipeline.preparation import demonstrated
from kbench.pipeline.processor import ProcessorClock
from kbench.pipeline.session import Session
from kbench.pipeline.training_record import TrainingRecord
from kbench.pipeline.weights import check_finite, restore, untied
from kbench.spec import Setting
from kbench.store.folder import address
from kbench.training import History, Recipe, train

__all__ = ["tune", "untrained"]


def tune(session: Session, parts: Parts) -> tuple[DownstreamModel, TrainingRecord]:
    """Returns the downstream model of a run, and what is recorded of its making."""
    inputs = model_inputs(parts)
    key = address("model", inputs)
    return session.remember(("model", key), lambda: _tuned(session, parts, inputs, key))


def _tuned(
    session: Session, parts: Parts, inputs: dict[str, Any], key: str
) -> tuple[DownstreamModel, TrainingRecord]:
    session.forget("model")  # one tuned model in memory at a time
    model = untrained(session, parts)
    # Before stored weights take their place: what the head does not store is of the backbone.
    model.head.settle(model.lm, demonstrated(parts, model.lm, injected=False))
    recipe = parts.tuning_recipe
    if recipe is None:
        _settle_on_dev(session, parts, model)
        # The backbone as it is: to store it would be to copy it.
        return model.eval(), TrainingRecord(digest=digest(model))
    with session.artifacts.making("model", key):
        stored = session.artifacts.load("model", key)
        if stored is None:
            _settle_on_dev(session, parts, model)
            made = _train(session, parts, model, recipe)
            record = replace(made, of=parts.spec.title, address=key)
            session.artifacts.save("model", inputs, untied(model), **record.as_json())
        else:
            restore(model, stored.tensors)
            record = TrainingRecord.from_json(stored.about)
    return model.eval(), record


def _settle_on_dev(session: Session, parts: Parts, model: DownstreamModel) -> None:
    """Lets dev choose, before anything trains, where the head leaves a choice.

    Whatever is injected later, the rows of a grid share what was chosen here without it.
    """
    if model.head.chooses:
        dev = session.prepared(parts, Split.DEV, model, injected=False)
        said = logits_of(model, dev.inputs, session.device, session.evaluation_batch)
        model.head.settle_on_dev(said, torch.from_numpy(dev.gold.targets))


def untrained(session: Session, parts: Parts) -> DownstreamModel:
    """Returns the model as its tuning finds it: backbone, new head, and what the tuning adds.

    Raises:
        Unsupported: the head reads a masked-LM head that the backbone lacks.
    """
    # What nothing trains in is the backbone as it is, of which one copy is enough.
    shared = parts.tuning_recipe is None
    lm = session.pretrained(parts) if shared else session.loaded(parts)
    torch.manual_seed(parts.spec.seed)
    model = DownstreamModel(lm, headed(parts, lm))
    parts.tuning.prepare(model, parts.tuning_options)
    return model.to(session.device)


@dataclass(frozen=True)
class _Material:
    """What a model is tuned on.

    Attributes:
        data: training examples, with what the network says of them where it was read before.
        plug: that is in place meanwhile; None where it was in place when the network was read.
        dev: what the network says of dev, where it was read before.
        states: of the network: ``kept``, ``recomputed``, or empty where the network trains.
    """

    data: Data
    plug: Plug | None
    dev: ReadStates | None = None
    states: str = ""


def _train(
    session: Session, parts: Parts, model: DownstreamModel, recipe: Recipe
) -> TrainingRecord:
    plug = fit(session, parts, Setting.FINE_TUNING, model)[0] if parts.plug_is_fixed else None
    split = session.prepared(parts, Split.TRAIN, model, injected=plug is not None)
    examples = Examples(split.inputs, split.gold.targets)
    once, started = parts.tuning.reads_once, time.perf_counter()
    processor = ProcessorClock(session.device)
    if once:
        material = _read_once(session, parts, model, recipe, examples, plug)
    else:
        material = _Material(examples, plug)
    session.reset_peak()
    history = _moved(session, parts, model, recipe, material, injected=plug is not None)
    spent = processor.seconds
    if once:
        history.seconds, history.states = time.perf_counter() - started, material.states
    check_finite(model, f"tuning {parts.spec.tuning}: the model", history)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.requires_grad_(False).eval()
    return TrainingRecord(
        recipe=recipe.as_dict(),
        history=history,
        trainable_parameters=trained,
        digest=digest(model),
        processor_seconds=spent,
        **session.computed(parts, compiled=False),
    )


def _moved(
    session: Session,
    parts: Parts,
    model: DownstreamModel,
    recipe: Recipe,
    material: _Material,
    *,
    injected: bool,
) -> History:
    """Trains what the tuning has marked, with a fixed plug in place if there is one."""
    plug, trained = material.plug, model.head if parts.tuning.reads_once else model
    around = f" around {parts.spec.method} ({parts.spec.control})" if plug else ""

    def mode() -> AbstractContextManager[None]:
        model.eval()
        trained.train()
        return nullcontext()

    # A plug that is fixed gives slot vectors, and its own parameters stay out of `model`.
    with (
        plug.attach(model.lm) if plug else nullcontext(),
        frozen(plug) if plug else nullcontext(),
    ):
        return train(
            model,
            model.loss,
            material.data,
            recipe,
            seed=parts.spec.seed,
            device=session.device,
            dtype=parts.spec.dtype,
            mode=mode,
            validate=lambda: session.validate(parts, model, injected=injected, states=material.dev),
            progress=session.steps(f"tune {parts.spec.task}{around}"),
        )


def _read_once(
    session: Session,
    parts: Parts,
    model: DownstreamModel,
    recipe: Recipe,
    examples: Examples,
    plug: Plug | None,
) -> _Material:
    """Reads train and dev once, with the plug in place that is fixed while a head learns.

    Where there is no room for what the network says, the texts are read in each epoch.

    Raises:
        KbenchError: something of the network would train.
    """
    trains = [name for name, p in model.lm.named_parameters() if p.requires_grad]
    if trains:
        raise KbenchError(
            f"tuning {parts.spec.tuning} says that nothing of the network trains "
            f"(`reads_once`), and marks {trains[0]}"
        )
    fixed = plug and address("plug", plug_inputs(parts, Setting.FINE_TUNING))
    lm, head = model.lm, model.head
    reading = last_states(lm, {"plug": fixed}, lambda batch: head.reads(lm, batch))
    dev: ReadStates | None = None
    with plug.attach(lm) if plug else nullcontext():
        reader = FrozenReader(lm, session.device)
        train_states = reader.read(examples.inputs, reading)
        if train_states is not None and recipe.select:
            split = session.prepared(parts, Split.DEV, model, injected=plug is not None)
            dev = reader.read(split.inputs, reading)
    if train_states is None or (recipe.select and dev is None):
        return _Material(examples, plug, states="recomputed")
    return _Material(WithStates(examples, train_states), None, dev, "kept")
