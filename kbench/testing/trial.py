"""One fit of a method on tiny parts, and what comes out of the model with its plug and without."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kbench.data import Split
from kbench.encoding import Batch
from kbench.method import Plug
from kbench.model import DownstreamModel, ReadStates, digest
from kbench.parts.run_parts import Parts
from kbench.pipeline.models import tune
from kbench.pipeline.plugs import fit
from kbench.pipeline.preparation import Prepared
from kbench.pipeline.session import Session
from kbench.pipeline.training_record import TrainingRecord
from kbench.store import Artifacts
from kbench.testing.tiny import tiny

__all__ = ["QUICK", "Outputs", "Trial", "disturb", "new_session", "try_out"]

QUICK = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-2}
"""Few steps and a high rate: what leaks must leak visibly."""


@dataclass(frozen=True)
class Outputs:
    """What a model gives for a split.

    Attributes:
        logits: ``[examples, classes]``.
        states: last hidden states of each example, without padding. ``[tokens, width]`` each.
    """

    logits: Tensor
    states: list[Tensor]

    def of(self, chosen: NDArray[np.bool_]) -> Outputs:
        """Returns those of some examples."""
        states = [state for state, kept in zip(self.states, chosen, strict=True) if kept]
        return Outputs(self.logits[torch.from_numpy(chosen)], states)

    def apart(self, other: Outputs) -> float:
        """The largest difference; infinite where shapes differ or something is not finite."""
        pairs = zip([self.logits, *self.states], [other.logits, *other.states], strict=True)
        return max(_apart(one, two) for one, two in pairs)

    @property
    def finite(self) -> bool:
        """Whether all of it is."""
        return all(bool(torch.isfinite(part).all()) for part in (self.logits, *self.states))


def _leant(weight: Tensor) -> Tensor:
    """A weight near by: another share of each number, so that no normalisation undoes it."""
    return weight * torch.linspace(0.8, 1.2, weight.numel()).view_as(weight)


@torch.no_grad()
def _put(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


def _apart(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    distance = (one - other).abs().max() if one.numel() else torch.zeros(())
    return float(distance) if torch.isfinite(distance) else float("inf")


@dataclass(frozen=True)
class Trial:
    """A fitted plug and what to try it on.

    Attributes:
        parts: of the run.
        model: the frozen downstream model.
        plug: fitted on it, or on its backbone.
        record: what is recorded of the fit.
        plain: the test split as the model alone reads it.
        injected: the test split as it is read with the plug.
        before: digest of the model before the fit.
    """

    parts: Parts
    model: DownstreamModel
    plug: Plug
    record: TrainingRecord
    plain: Prepared
    injected: Prepared
    before: str

    @property
    def strangers(self) -> NDArray[np.bool_]:
        """Which test examples have no entity that the method knows. ``[examples]``."""
        return np.array([max(rows, default=-1) < 0 for rows in self.injected.links.rows])

    @property
    def batch(self) -> Batch:
        """The injected test split as one padded batch with targets."""
        inputs, gold = self.injected.inputs, self.injected.gold
        return inputs.collate(np.arange(len(inputs)), gold.targets)

    def base(self) -> Outputs:
        """Returns what the model gives without the plug."""
        return self._outputs(self.plain, None, False)

    def plugged(
        self,
        plug: Plug | None = None,
        *,
        alone: bool = False,
        narrow: bool = False,
        known: ReadStates | None = None,
    ) -> Outputs:
        """Returns what the model gives with the plug.

        Args:
            plug: another than that of the trial.
            alone: each example in a batch of its own, so without padding.
            narrow: under bfloat16 autocast.
            known: what was read of the model beforehand.
        """
        with torch.autocast("cpu", torch.bfloat16) if narrow else nullcontext():
            return self._outputs(self.injected, plug or self.plug, alone, known)

    def retuned(self) -> tuple[Outputs, Outputs]:
        """Changes the model's weights, as a step of tuning it does; afterwards they are put back.

        Returns:
            What it then gives with the plug that was attached before, and with it attached anew.
        """
        weights = list(self.model.parameters())
        before = [weight.detach().clone() for weight in weights]
        try:
            with self.plug.attach(self.model.lm):
                self._outputs(self.injected, None, False)
                _put(weights, [_leant(weight) for weight in before])
                held = self._outputs(self.injected, None, False)
            return held, self.plugged()
        finally:
            _put(weights, before)

    def _outputs(
        self, prepared: Prepared, plug: Plug | None, alone: bool, known: ReadStates | None = None
    ) -> Outputs:
        everyone = np.arange(len(prepared.inputs))
        logits, states = [], []
        self.model.eval()
        attached = plug.attach(self.model.lm) if plug else nullcontext()
        with attached, torch.inference_mode():
            for chosen in np.split(everyone, len(everyone)) if alone else [everyone]:
                batch = prepared.inputs.collate(chosen)
                batch = known.into(batch) if known else batch
                hidden = self.model.lm(batch)
                logits.append(self.model.head(self.model.lm, hidden, batch).float())
                pairs = zip(hidden.float(), batch.mask.bool(), strict=True)
                states += [state[mask] for state, mask in pairs]
        return Outputs(torch.cat(logits), states)

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """Sets what the engine chooses on dev to its largest value, for there it shows most."""
        self.choose(self.plug)
        try:
            yield
        finally:
            if choices := self.parts.method.choices():
                self.plug.choose(choices[0])

    def choose(self, plug: Plug) -> None:
        """Gives a plug the largest of the values that the engine chooses from on dev."""
        if choices := self.parts.method.choices():
            plug.choose(max(choices, key=abs))


def try_out(parts: Parts, on: Session) -> Trial:
    """Tunes, prepares and fits; nothing is evaluated."""
    model, _ = tune(on, parts)
    before = digest(model)
    # Before the fit: a general plug may not know what its method saw of a task.
    plain = on.prepared(parts, Split.TEST, model, injected=False)
    injected = on.prepared(parts, Split.TEST, model, injected=True)
    plug, record = fit(on, parts, parts.spec.setting, model)
    return Trial(parts, model, plug, record, plain, injected, before)


def new_session(artifacts: Artifacts | None = None) -> Session:
    """Returns a session over an empty store, which goes at the end of the process, or over one."""
    empty = artifacts or Artifacts(Path(tempfile.mkdtemp(dir=tiny().folder)))
    return Session(empty, torch.device("cpu"))


def disturb() -> None:
    """Moves every global random state, which no fit may depend on."""
    torch.manual_seed(987)
    np.random.seed(987)
    random.seed(987)
