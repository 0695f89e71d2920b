"""What holds for every tuning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from kbench.data import Split
from kbench.errors import Unsupported
from kbench.model import DownstreamModel, digest
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.run_parts import Parts, headed
from kbench.parts.source_text import summary
from kbench.pipeline.models import tune
from kbench.pipeline.session import Session
from kbench.spec import Control, RunSpec, Setting
from kbench.task import Family
from kbench.testing.contracts import TOLERANCE, Finding, Verdict, contract
from kbench.testing.tiny import BACKBONE, DECODER, NOTHING, TASKS
from kbench.testing.trial import QUICK, disturb, new_session
from kbench.training import Recipe, Tuning

__all__ = ["CONTRACTS", "subject"]


@dataclass(frozen=True)
class Tuned:
    """A tuned model beside the same one untrained.

    Attributes:
        parts: of the run.
        session: that tuned it.
        base: logits of the backbone and head, before it prepared them. ``[examples, classes]``.
        untrained: the same model, prepared.
        model: tuned.
    """

    parts: Parts
    session: Session
    base: Tensor
    untrained: DownstreamModel
    model: DownstreamModel

    def logits(self, model: DownstreamModel) -> Tensor:
        """Returns logits on the test split. ``[examples, classes]``."""
        return _logits(self.parts, self.session, model)


class TuningBench:
    """A tuning, tried on tiny tasks.

    Args:
        name: of the tuning.
    """

    def __init__(self, name: str) -> None:
        self.entry = registry.find(Kind.TUNINGS, name)
        self.tuning = cast("type[Tuning]", registry.load(self.entry))

    @cached_property
    def tuned(self) -> list[Tuned]:
        """The tuning on each kind of model and each task that it supports.

        Raises:
            Unsupported: it supports none.
        """
        tuned, refused = [], Unsupported("there is no task")
        for backbone, task in product((BACKBONE, DECODER), TASKS):
            try:
                tuned.append(self._tune(self.parts(task, backbone)))
            except Unsupported as error:
                refused = error
        if not tuned:
            raise refused
        return tuned

    def parts(self, task: str, backbone: str = BACKBONE) -> Parts:
        """Returns the parts of a quick run without knowledge."""
        spec = RunSpec(
            task=task,
            backbone=backbone,
            tuning=self.entry.name,
            method=NOTHING,
            setting=Setting.GENERAL,
            knowledge=None,
            control=Control.NONE,
            seed=0,
            options={"tuning": {self.entry.name: QUICK}} if self.trains else {},
        )
        return Parts(spec)

    @property
    def trains(self) -> bool:
        """Whether it has a recipe for any family."""
        return any(self.tuning().recipe(family) for family in Family)

    def _tune(self, parts: Parts) -> Tuned:
        own = new_session()
        model = _fresh(parts)
        base = _logits(parts, own, model)
        parts.tuning.prepare(model, parts.tuning_options)
        tuned, _ = tune(own, parts)
        return Tuned(parts, own, base, model, tuned)


def _fresh(parts: Parts) -> DownstreamModel:
    """The backbone and a head, before the tuning prepares them."""
    lm = parts.backbone.load()
    torch.manual_seed(parts.spec.seed)
    return DownstreamModel(lm, headed(parts, lm)).eval()


def _logits(parts: Parts, on: Session, model: DownstreamModel) -> Tensor:
    inputs = on.prepared(parts, Split.TEST, model, injected=False).inputs
    with torch.inference_mode():
        logits: Tensor = model.eval()(inputs.collate(np.arange(len(inputs))))
    return logits


subject = TuningBench


@contract
def card(bench: TuningBench) -> Verdict:
    """It says in a line what it is, has a revision, and a recipe for every family, or for none."""
    missing = [] if summary(bench.entry) else ["the first line of its docstring"]
    missing += [] if str(bench.tuning.revision).strip() else ["revision"]
    for family in Family:
        if bench.trains and not isinstance(bench.tuning().recipe(family), Recipe):
            missing.append(f"a recipe for {family}")
    return not missing, f"missing: {', '.join(missing)}" if missing else summary(bench.entry)


@contract
def starts_as_base(bench: TuningBench) -> Verdict:
    """A prepared, untrained model gives the logits of the backbone with that head."""
    apart = [float((t.logits(t.untrained) - t.base).abs().max()) for t in bench.tuned]
    added = [
        sum(p.numel() for p in t.untrained.parameters())
        - sum(p.numel() for p in _fresh(t.parts).parameters())
        for t in bench.tuned
    ]
    figure = f"max |Δ| {max(apart):.1e} (at most {TOLERANCE:.0e}), {max(added)} parameters added"
    return max(apart) <= TOLERANCE, figure


@contract
def trains(bench: TuningBench) -> Verdict:
    """What it marks moves, the head with it, and nothing else; without a recipe nothing does."""
    wrong, figures = [], []
    for tuned in bench.tuned:
        marked = {n for n, p in tuned.untrained.named_parameters() if p.requires_grad}
        before, after = (dict(m.named_parameters()) for m in (tuned.untrained, tuned.model))
        moved = {name for name, p in before.items() if not torch.equal(p, after[name])}
        heads = {f"head.{name}" for name, _ in tuned.untrained.head.named_parameters()}
        figures.append(f"{sum(before[n].numel() for n in marked)}")
        task = tuned.parts.spec.task
        wrong += [f"{task}: {name} moved unmarked" for name in sorted(moved - marked)[:2]]
        wrong += [f"{task}: {name} does not train" for name in sorted(heads - marked)[:2]]
        if bench.trains and not moved:
            wrong.append(f"{task}: nothing moved")
        if marked and not bench.trains:
            wrong.append(f"{task}: {min(marked)} is marked, and nothing trains")
    total = sum(p.numel() for p in bench.tuned[0].untrained.parameters())
    return not wrong, "; ".join(wrong) or f"{', '.join(figures)} parameters of {total}"


@contract
def frozen_words(bench: TuningBench) -> Verdict:
    """The word embeddings stay as they are: a map into their space stays valid."""
    apart = [
        float((tuned.model.lm.word_embeddings.weight - _words(tuned)).abs().max())
        for tuned in bench.tuned
    ]
    return max(apart) == 0, f"max |Δ| {max(apart):.1e}"


def _words(tuned: Tuned) -> Tensor:
    return tuned.untrained.lm.word_embeddings.weight


@contract
def same_seed(bench: TuningBench) -> Verdict:
    """The same seed gives the same model, bit for bit."""
    tuned = bench.tuned[0]
    disturb()
    spec = tuned.parts.spec
    again, _ = tune(new_session(), bench.parts(spec.task, spec.backbone))
    one, two = digest(tuned.model)[:8], digest(again)[:8]
    return one == two, f"tuned twice: {one} and {two}"


@contract
def round_trip(bench: TuningBench) -> Verdict:
    """A model that was stored and loaded gives bit-identical outputs."""
    apart, names = [], []
    for tuned in bench.tuned:
        tuned.session.forget("model")
        loaded, record = tune(tuned.session, tuned.parts)
        apart.append(float((tuned.logits(loaded) - tuned.logits(tuned.model)).abs().max()))
        names.append(digest(loaded)[:8])
        if loaded is tuned.model or digest(loaded) != digest(tuned.model):
            return False, f"{tuned.parts.spec.task}: the loaded model has other weights"
        if digest(loaded) != record.digest:
            return False, f"{tuned.parts.spec.task}: not the digest on record"
    return not any(apart), f"max |Δ| {max(apart):.1e} ({', '.join(names)})"


CONTRACTS: tuple[Callable[[Any], Finding], ...] = (
    card,
    starts_as_base,
    trains,
    frozen_words,
    same_seed,
    round_trip,
)
