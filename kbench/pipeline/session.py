"""What the stages of all runs of a process share: the device, the store, what is in memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import torch

from kbench.data import Split
from kbench.data.files import canonical_digest
from kbench.encoding.computing import described, peak_bytes, reset_peak
from kbench.method import InjectionMethod, Plug
from kbench.model import DownstreamModel, FrozenReader, LanguageModel, ReadStates
from kbench.parts.run_parts import Parts, loaded
from kbench.pipeline.prediction import predict
from kbench.pipeline.preparation import Prepared, expressed, limited, prepare
from kbench.store import Artifacts
from kbench.training import Progress

__all__ = ["Session"]

_HELD = 12
"""Things that are held in memory: models, plugs, encoded splits."""

T = TypeVar("T")


class Session:
    """The device, the store and the memory of a process.

    Args:
        artifacts: where downstream models and plugs lie.
        device: where to compute.
        progress: told of what is being done: description, steps done, steps in all.
        evaluation_batch: examples predicted at once; None for what suits the device.
        compiled: whether frozen networks run as compiled code.
        locality: whether it is measured how far plugs move what a model says.
        spread: whether backbones are parted among all GPUs, the device being that of all else.
    """

    def __init__(
        self,
        artifacts: Artifacts,
        device: torch.device,
        progress: Callable[[str, int, int], None] | None = None,
        *,
        evaluation_batch: int | None = None,
        compiled: bool = False,
        locality: bool = False,
        spread: bool = False,
    ) -> None:
        self.artifacts = artifacts
        self.device = device
        self.evaluation_batch = evaluation_batch
        self.compiled = compiled
        self.locality = locality
        self.spread = spread
        self._progress = progress
        self._memory: dict[tuple[Hashable, ...], Any] = {}
        self._kept: dict[tuple[Hashable, ...], int] = {}

    def prepared(
        self, parts: Parts, split: Split, model: DownstreamModel, *, injected: bool
    ) -> Prepared:
        """Returns a split linked and encoded; tokenized once for all runs that read it alike."""
        key = ("inputs", *_read(parts, split))
        shaped = _shaping(parts) if injected else ()
        return self.remember(
            (*key, *shaped), lambda: prepare(parts, split, model, injected=injected)
        )

    def kept(self, parts: Parts, split: Split, model: DownstreamModel) -> int:
        """Returns how many examples of a split the head can express; counted once for all runs."""
        about = _read(parts, split)
        if about not in self._kept:
            examples = limited(parts.task.examples(split), parts.spec.limit)
            self._kept[about] = len(expressed(model, examples)[0])
        return self._kept[about]

    def validate(
        self,
        parts: Parts,
        model: DownstreamModel,
        *,
        injected: bool,
        states: ReadStates | None = None,
    ) -> float:
        """Returns the main metric on dev.

        Args:
            parts: of the run.
            model: with whatever is attached to it.
            injected: whether the inputs have what the method adds.
            states: what the network says of dev, where it was read before.
        """
        dev = self.prepared(parts, Split.DEV, model, injected=injected)
        # In float32 whatever the dtype of the run: a choice must not hang on what is rounded off.
        predicted = predict(
            model, dev.inputs, self.device, batch_size=self.evaluation_batch, states=states
        )
        return parts.task.main_metric.score_of(dev.answers(predicted.labels))

    def states_of_dev(self, parts: Parts, model: DownstreamModel, plug: Plug) -> ReadStates | None:
        """Reads dev once for a plug that says what of it stays the same; None for others.

        None too where the model answers in its own words.
        """
        reading = plug.reading(model.lm)
        # To go on with a text a model has to read it.
        if reading is None or model.head.speaks:
            return None
        inputs = self.prepared(parts, Split.DEV, model, injected=True).inputs
        return FrozenReader(model.lm, self.device).read(inputs, reading)

    def pretrained(self, parts: Parts) -> LanguageModel:
        """Returns the backbone that nothing was tuned of; no other copy of it is in memory."""
        return self.remember(
            ("encoder", parts.backbone.digest, parts.spec.weights),
            lambda: self.loaded(parts),
        )

    def loaded(self, parts: Parts) -> LanguageModel:
        """Returns a copy of the backbone of its own, on the device, or spread from there on."""
        lm = loaded(parts, str(self.device), spread=self.spread)
        return lm.to(self.device)

    def reset_peak(self) -> None:
        """Begins to look how many bytes are held on the device at most."""
        reset_peak(self.device)

    def peak(self) -> int | None:
        """Returns the bytes held on the device at most since then; None where nobody counts."""
        return peak_bytes(self.device)

    def computed(self, parts: Parts, *, compiled: bool) -> dict[str, Any]:
        """Returns what is recorded of how something was trained just now."""
        spec = parts.spec
        how = {**described(self.device, compiled), "dtype": spec.dtype}
        if spec.weights != "float32":
            how["weights"] = spec.weights
        return {"computed": how, "peak_device_memory_bytes": self.peak()}

    def steps(self, what: str) -> Progress | None:
        """Returns what is told of the steps of a training, or None if nobody listens."""
        report = self._progress
        if report is None:
            return None
        return lambda done, total: report(what, done, total)

    def remember(self, key: tuple[Hashable, ...], make: Callable[[], T]) -> T:
        """Returns what is in memory under a key, made if it is not; the oldest makes room."""
        if key not in self._memory:
            value = make()
            while len(self._memory) >= _HELD:
                self._memory.pop(next(iter(self._memory)))
            self._memory[key] = value
        return cast("T", self._memory[key])

    def forget(self, kind: str | None = None) -> None:
        """Drops what is in memory: all of it, or what is of one kind."""
        for key in [key for key in self._memory if kind in (None, key[0])]:
            del self._memory[key]


def _read(parts: Parts, split: Split) -> tuple[Hashable, ...]:
    """What is read of a split, and in what form: tasks may share data and mark them otherwise."""
    task = parts.task
    form = canonical_digest(task.form)
    asked = None
    if parts.prompting is not None:
        asked = repr(task.asked), parts.demonstrations, parts.spec.chat
    return task.digest, form, split, parts.spec.limit, parts.backbone.digest, asked


def _shaping(parts: Parts) -> tuple[Hashable, ...]:
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
