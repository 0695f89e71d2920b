"""The three stages of a run, each with its own address: tune, fit, evaluate.

``task + backbone + tuning -> downstream model (frozen) -> fit -> plug -> attach, predict``

All methods share one downstream model, all tasks one general plug. Nothing here writes a result;
the runner does.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn

from kbench.data import Label, Split
from kbench.data.files import canonical_digest
from kbench.encoding import Examples
from kbench.encoding.computing import described, peak_bytes, reset_peak
from kbench.errors import FrozenError, KbenchError, Unsupported
from kbench.method import Fit, InjectionMethod, Plug
from kbench.metrics.stratified import scored
from kbench.model import DownstreamModel, Encoder, FrozenReader, Reading, ReadStates, digest
from kbench.model.compiling import compiled
from kbench.model.freezing import frozen
from kbench.model.frozen_reading import WithStates, last_states
from kbench.parts.run_parts import Parts
from kbench.run.addresses import model_inputs, plug_inputs
from kbench.run.costs import cost, counted, summary
from kbench.run.prediction import Predicted, predict
from kbench.run.preparation import Prepared, prepare
from kbench.run.reproducibility import evaluated
from kbench.run.weights import check_finite, refill, restore, untied
from kbench.spec import Setting
from kbench.store import Artifacts
from kbench.store.folder import address
from kbench.training import History, Progress, Recipe, train

if TYPE_CHECKING:
    pass

__all__ = ["Evaluation", "Stage", "Stages"]

_CACHED = 12

T = TypeVar("T")


@dataclass
class Evaluation:
    """What the stages hand to the runner."""

    prepared: Prepared
    predictions: list[Label]
    scores: list[float]
    cost: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    before: str = ""
    after: str = ""


class Stages:
    """Tunes, fits and evaluates, taking from the store what is there.

    Args:
        artifacts: where downstream models and plugs lie.
        device: where to compute.
        progress: told of what is being done: description, steps done, steps in all.
        evaluation_batch: examples predicted at once; None for what suits the device.
        compiled: whether frozen networks run as compiled code.
    """

    def __init__(
        self,
        artifacts: Artifacts,
        device: torch.device,
        progress: Callable[[str, int, int], None] | None = None,
        *,
        evaluation_batch: int | None = None,
        compiled: bool = False,
    ) -> None:
        self.artifacts = artifacts
        self.device = device
        self.compiled = compiled
        self._evaluation_batch = evaluation_batch
        self._progress = progress
        self._memory: dict[Any, Any] = {}

    def make(self, stage: Stage, parts: Parts) -> None:
        """Makes what one stage before evaluation leaves in the store, if it is not there."""
        setting = parts.spec.setting
        if stage == Stage.TUNE:
            self.tune(parts)
        elif stage == Stage.FIT:
            self.fit(parts, setting, self.tune(parts)[0] if _on_task(setting) else None)
        elif stage == Stage.START:
            assert parts.knowledge is not None
            if parts.method.starts_general(self._pretrained(parts), parts.knowledge):
                self.fit(parts, Setting.GENERAL, None)

    def tune(self, parts: Parts) -> tuple[DownstreamModel, dict[str, Any]]:
        """Returns the downstream model of a run, and what is recorded of its making."""
        inputs = model_inputs(parts)
        key = address("model", inputs)
        return self._remember(("model", key), lambda: self._tuned(parts, inputs, key))

    def _tuned(
        self, parts: Parts, inputs: dict[str, Any], key: str
    ) -> tuple[DownstreamModel, dict[str, Any]]:
        self.forget("model")  # one tuned model in memory at a time
        model = self._untrained(parts)
        recipe = parts.tuning_recipe
        if recipe is None:
            # The backbone as it is: to store it would be to copy it.
            return model.eval(), _made(model, None, History(), 0)
        with self.artifacts.making("model", key):
            stored = self.artifacts.load("model", key)
            if stored is None:
                about = {"of": parts.spec.title, **self._train_model(parts, model, recipe)}
                self.artifacts.save("model", inputs, untied(model), **about)
            else:
                restore(model, stored.tensors)
                about = stored.about
        return model.eval(), about

    def _untrained(self, parts: Parts) -> DownstreamModel:
        encoder = parts.backbone.load()
        torch.manual_seed(parts.spec.seed)
        head = parts.task.head(encoder.width)
        if head.needs_lm_head and not encoder.has_lm_head:
            raise Unsupported(
                f"task {parts.spec.task} is answered at [MASK], and backbone "
                f"{parts.spec.backbone} has no masked-LM head"
            )
        model = DownstreamModel(encoder, head)
        parts.tuning.prepare(model, parts.tuning_options)
        return model.to(self.device)

    def _train_model(self, parts: Parts, model: DownstreamModel, recipe: Recipe) -> dict[str, Any]:
        plug: Plug | None = None
        if parts.plug_is_fixed:
            plug, _ = self.fit(parts, Setting.FINE_TUNING, model)
        train_split = self.prepare(parts, Split.TRAIN, model, injected=plug is not None)
        data = Examples(train_split.inputs, train_split.gold.targets)
        once = parts.tuning.reads_once
        started = time.perf_counter()
        known = self._known(parts, model, data, plug) if once else None
        # What is known was read with the plug in place.
        fixed = None if known else plug

        reset_peak(self.device)
        # The plug is fixed: it gives slot vectors, and its own parameters stay out of `model`.
        with (
            fixed.attach(model.encoder) if fixed else nullcontext(),
            frozen(fixed) if fixed else nullcontext(),
        ):
            history = train(
                model,
                model.loss,
                known[0] if known else data,
                recipe,
                seed=parts.spec.seed,
                device=self.device,
                dtype=parts.spec.dtype,
                mode=lambda: _training(model.head if once else model, model),
                validate=lambda: self._validate(parts, model, plug is not None, known and known[1]),
                progress=self._steps(f"tune {parts.spec.task}"),
            )
        if once:
            history.seconds = time.perf_counter() - started
            history.states = "kept" if known else "recomputed"
        check_finite(model, f"tuning {parts.spec.tuning}: the model", history)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        model.requires_grad_(False).eval()
        return {**_made(model, recipe, history, trained), **self._computed(parts, False)}

    def _known(
        self, parts: Parts, model: DownstreamModel, data: Examples, plug: Plug | None
    ) -> tuple[WithStates, ReadStates | None] | None:
        """Reads train and dev once, with the plug in place that is fixed while a head learns.

        Returns:
            None if there is no room for what the encoder says; without dev if nothing is selected.

        Raises:
            KbenchError: something of the encoder would train.
        """
        trains = [name for name, p in model.encoder.named_parameters() if p.requires_grad]
        if trains:
            raise KbenchError(
                f"tuning {parts.spec.tuning} says that nothing of the encoder trains "
                f"(`reads_once`), and marks {trains[0]}"
            )
        fixed = plug and address("plug", plug_inputs(parts, Setting.FINE_TUNING))
        encoder, head = model.encoder, model.head
        reading = last_states(encoder, {"plug": fixed}, lambda batch: head.reads(encoder, batch))
        with plug.attach(encoder) if plug else nullcontext():
            reader = FrozenReader(encoder, self.device)
            learnt = reader.kept(data.inputs, reading)
            if learnt is None:
                return None
            recipe = parts.tuning_recipe
            if recipe is None or not recipe.select:
                return WithStates(data, learnt), None
            dev = self.prepare(parts, Split.DEV, model, injected=plug is not None)
            scored_on = reader.kept(dev.inputs, reading)
        return None if scored_on is None else (WithStates(data, learnt), scored_on)

    def _dev(
        self, parts: Parts, model: DownstreamModel, reading: Reading | None
    ) -> ReadStates | None:
        """Reads dev once for a plug that says what of it stays the same."""
        if reading is None:
            return None
        inputs = self.prepare(parts, Split.DEV, model, injected=True).inputs
        return FrozenReader(model.encoder, self.device).kept(inputs, reading)

    def fit(
        self, parts: Parts, setting: Setting, model: DownstreamModel | None
    ) -> tuple[Plug, dict[str, Any]]:
        """Returns the plug of a run for a setting, and what is recorded of its making.

        Args:
            parts: of the run.
            setting: of the plug.
            model: the downstream model; only a task-specific plug sees it.
        """
        inputs = plug_inputs(parts, setting)
        key = address("plug", inputs)
        return self._remember(
            ("plug", key), lambda: self._fitted(parts, setting, model, inputs, key)
        )

    def _fitted(
        self,
        parts: Parts,
        setting: Setting,
        model: DownstreamModel | None,
        inputs: dict[str, Any],
        key: str,
    ) -> tuple[Plug, dict[str, Any]]:
        assert parts.knowledge is not None
        # A general plug belongs to the backbone as pre-trained, whatever was tuned since.
        downstream = model if _on_task(setting) else None
        encoder = downstream.encoder if downstream else self._pretrained(parts)
        torch.manual_seed(parts.spec.seed)
        plug = parts.method.build(encoder, parts.knowledge).to(self.device)
        start: dict[str, Any] | None = None
        if downstream and parts.method.starts_general(encoder, parts.knowledge):
            general, start = self.fit(parts, Setting.GENERAL, model)
            plug.load_state_dict(general.state_dict())
        with self.artifacts.making("plug", key):
            stored = self.artifacts.load("plug", key)
            if stored is None:
                about = self._train_plug(parts, setting, encoder, downstream, plug)
                about["of"] = parts.spec.title
                about["start"] = start and {"address": start["address"], **summary(start)}
                self.artifacts.save("plug", inputs, dict(plug.state_dict()), **about)
            else:
                refill(plug, stored.tensors, self.artifacts.path("plug", key), parts.spec.method)
                about = stored.about
        return plug.eval(), {"address": key, **about}

    def _pretrained(self, parts: Parts) -> Encoder:
        """The backbone that nothing was tuned of."""
        return self._remember(
            ("encoder", parts.backbone.digest), lambda: parts.backbone.load().to(self.device)
        )

    def _train_plug(
        self,
        parts: Parts,
        setting: Setting,
        encoder: Encoder,
        model: DownstreamModel | None,
        plug: Plug,
    ) -> dict[str, Any]:
        assert parts.knowledge is not None
        recipe = parts.plug_recipe(setting)
        examples = dev = None
        if model is not None:
            reading = plug.reading(encoder) if recipe.select else None
            dev = self._dev(parts, model, reading)
            prepared = self.prepare(parts, Split.TRAIN, model, injected=True)
            examples = Examples(prepared.inputs, prepared.gold.targets)
        label = parts.spec.method if model is None else f"{parts.spec.method} on {parts.spec.task}"
        fit = Fit(
            setting=Setting.TASK_SPECIFIC if model is not None else Setting.GENERAL,
            encoder=encoder,
            model=model,
            knowledge=parts.knowledge,
            examples=examples,
            validate=None if model is None else lambda: self._validate(parts, model, True, dev),
            recipe=recipe,
            options=parts.method.options,
            seed=parts.spec.seed,
            device=self.device,
            progress=self._steps(f"fit {label} ({parts.spec.control})"),
            dtype=parts.spec.dtype,
            compiled=self.compiled,
        )
        network = model if model is not None else encoder
        before = digest(network)
        reset_peak(self.device)
        with frozen(network):
            history = parts.method.fit(plug, fit)
        if digest(network) != before:
            raise FrozenError(f"{parts.spec.method} changed weights of the frozen model")
        check_finite(plug, f"{parts.spec.method}: the plug", history)
        return {
            "recipe": recipe.as_dict(),
            "history": dataclasses.asdict(history),
            "trainable_parameters": sum(p.numel() for p in plug.parameters() if p.requires_grad),
            **self._computed(parts, self.compiled),
        }

    def _computed(self, parts: Parts, compiled: bool) -> dict[str, Any]:
        """What is recorded of how something was trained."""
        how = {**described(self.device, compiled), "dtype": parts.spec.dtype}
        peak = peak_bytes(self.device)
        return {"computed": how, **({} if peak is None else {"peak_device_memory_bytes": peak})}

    def evaluate(self, parts: Parts) -> Evaluation:
        """Runs all stages of a run and predicts its test split, once."""
        model, tuned = self.tune(parts)
        plug: Plug | None = None
        fitted: dict[str, Any] | None = None
        if parts.knowledge is not None:
            plug, fitted = self.fit(parts, parts.spec.setting, model)
        chosen = self._choose(parts, model, plug) if plug else None
        prepared = self.prepare(parts, Split.TEST, model, injected=plug is not None)
        started = time.perf_counter()
        reset_peak(self.device)
        found = self._predicted(model, plug, prepared, parts.spec.dtype)
        seconds, peak = time.perf_counter() - started, peak_bytes(self.device)
        after = digest(model)
        if after != tuned["digest"]:
            raise FrozenError("the downstream model's weights changed after tuning")
        evaluation = Evaluation(
            prepared, found.labels, found.scores, before=tuned["digest"], after=after
        )
        evaluation.cost = cost(tuned, fitted, plug, seconds, len(found.labels), peak)
        evaluation.counts = {**parts.task.counts, **prepared.counts, **counted(fitted)}
        how = described(self.device, self.compiled)
        evaluation.training = {
            "tuning": summary(tuned),
            "evaluation": evaluated(how, parts.spec.dtype, found),
        }
        if fitted:
            evaluation.training["plug"] = {**summary(fitted), "start": fitted.get("start")}
        if chosen:
            evaluation.training["choice"] = chosen
        return evaluation

    def _predicted(
        self, model: DownstreamModel, plug: Plug | None, prepared: Prepared, dtype: str
    ) -> Predicted:
        with (
            plug.attach(model.encoder) if plug else nullcontext(),
            compiled(model.encoder, self.compiled),
        ):
            return predict(model, prepared.inputs, self.device, dtype, self._evaluation_batch)

    def _choose(self, parts: Parts, model: DownstreamModel, plug: Plug) -> dict[str, Any] | None:
        """Lets a general plug take the value that is best on dev; the first of equals."""
        values = list(parts.method.choices())
        if parts.spec.setting != Setting.GENERAL or not values:
            return None
        if not parts.task.examples(Split.DEV):
            raise Unsupported(
                f"{parts.spec.method} chooses between values on dev, and task {parts.spec.task} "
                "has no dev example"
            )
        known = self._dev(parts, model, plug.reading(model.encoder))
        scores = []
        for value in values:
            plug.choose(value)
            with plug.attach(model.encoder):
                scores.append(self._validate(parts, model, True, known))
        best = values[scores.index(max(scores))]
        plug.choose(best)
        return {"values": values, "dev": scores, "chosen": best}

    def prepare(
        self, parts: Parts, split: Split, model: DownstreamModel, *, injected: bool
    ) -> Prepared:
        """Returns a split linked and encoded; tokenized once for all runs that read it alike."""
        key = ("inputs", parts.task.digest, split, parts.spec.limit, parts.backbone.digest)
        reading = _reading(parts) if injected else ()
        return self._remember(
            (*key, *reading), lambda: prepare(parts, split, model, injected=injected)
        )

    def _validate(
        self,
        parts: Parts,
        model: DownstreamModel,
        injected: bool,
        known: ReadStates | None = None,
    ) -> float:
        prepared = self.prepare(parts, Split.DEV, model, injected=injected)
        # In float32 whatever the dtype of the run: a choice must not hang on what is rounded off.
        found = predict(
            model, prepared.inputs, self.device, batch_size=self._evaluation_batch, states=known
        )
        return scored(parts.task.main_metric, prepared.gold.labels, found.labels, prepared.strata)

    def _steps(self, what: str) -> Progress | None:
        report = self._progress
        if report is None:
            return None
        return lambda done, total: report(what, done, total)

    def _remember(self, key: Any, make: Callable[[], T]) -> T:
        if key not in self._memory:
            value = make()
            while len(self._memory) >= _CACHED:
                self._memory.pop(next(iter(self._memory)))
            self._memory[key] = value
        return cast("T", self._memory[key])

    def forget(self, kind: str | None = None) -> None:
        """Drops what is kept in memory: all of it, or what is of one kind."""
        for key in [key for key in self._memory if kind in (None, key[0])]:
            del self._memory[key]


def _reading(parts: Parts) -> tuple[Any, ...]:
    """What of a method and its knowledge shapes the inputs."""
    method, base, seen = parts.method, parts.base_knowledge, parts.knowledge
    assert base is not None
    assert seen is not None
    own = method.text or type(method).covers is not InjectionMethod.covers
    return (
        base.digest,
        parts.linker,
        method.template(),
        (parts.spec.method, canonical_digest(method.options)) if own else None,
        seen.digest if method.text else None,
    )


def _on_task(setting: Setting) -> bool:
    return setting == Setting.TASK_SPECIFIC


def _made(
    model: DownstreamModel, recipe: Recipe | None, history: History, trained: int
) -> dict[str, Any]:
    """What is recorded of a downstream model's making."""
    return {
        "digest": digest(model),
        "recipe": recipe and recipe.as_dict(),
        "history": dataclasses.asdict(history),
        "trainable_parameters": trained,
    }


def _training(trained: nn.Module, model: DownstreamModel) -> Any:
    """Puts what trains in train mode, and the rest of the model in eval mode."""
    model.eval()
    trained.train()
    return nullcontext()


class Stage(StrEnum):
    """The stages of a run."""

    TUNE = "tune"
    START = "start"
    """Fitting the general plug that a task-specific one may start from."""
    FIT = "fit"
    EVALUATE = "evaluate"

    @property
    def resource(self) -> str:
        """The stage whose requests of CPUs and GPUs hold for this one."""
        return "fit" if self == Stage.START else str(self)
