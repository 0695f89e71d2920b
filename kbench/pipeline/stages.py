"""The three stages of a run, each with its own address: tune, fit, evaluate.

``task + backbone + tuning -> downstream model (frozen) -> fit -> plug -> attach, predict``

All methods share one downstream model, all tasks one general plug. Nothing here writes a result;
the runner does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from enum import StrEnum
from typing import Any

from kbench.data import Split
from kbench.encoding.computing import described
from kbench.errors import FrozenError, InputError, Unsupported
from kbench.method import Plug
from kbench.model import DownstreamModel, LanguageModel, digest
from kbench.model.compiling import compiled
from kbench.parts.run_parts import Parts
from kbench.pipeline.boundaries import respelled
from kbench.pipeline.costs import Spent, cost, counted
from kbench.pipeline.evaluation import Evaluation
from kbench.pipeline.following import false_answers
from kbench.pipeline.locality import locality
from kbench.pipeline.models import tune
from kbench.pipeline.plugs import fit
from kbench.pipeline.prediction import Predicted, predict
from kbench.pipeline.preparation import Prepared, limited
from kbench.pipeline.processor import ProcessorClock
from kbench.pipeline.reproducibility import evaluated
from kbench.pipeline.session import Session
from kbench.pipeline.training_record import TrainingRecord
from kbench.spec import Control, Setting

__all__ = ["Stage", "evaluate", "make"]


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


def make(session: Session, stage: Stage, parts: Parts) -> None:
    """Makes what one stage before evaluation leaves in the store, if it is not there."""
    setting = parts.spec.setting
    if stage == Stage.TUNE:
        tune(session, parts)
    elif stage == Stage.FIT:
        on_task = setting == Setting.TASK_SPECIFIC
        fit(session, parts, setting, tune(session, parts)[0] if on_task else None)
    elif stage == Stage.START:
        assert parts.knowledge is not None
        if parts.method.starts_general(session.pretrained(parts), parts.knowledge):
            fit(session, parts, Setting.GENERAL, None)


def evaluate(session: Session, parts: Parts) -> Evaluation:
    """Runs all stages of a run and predicts its test split, once.

    Raises:
        FrozenError: weights moved that had to stay.
    """
    model, tuned = tune(session, parts)
    plug: Plug | None = None
    fitted: TrainingRecord | None = None
    if parts.knowledge is not None:
        plug, fitted = fit(session, parts, parts.spec.setting, model)
    choice = _choose(session, parts, model, plug) if plug else None
    dev = _dev(session, parts, model, plug, tuned, fitted, choice)
    prepared = session.prepared(parts, Split.TEST, model, injected=plug is not None)
    started, processor = time.perf_counter(), ProcessorClock(session.device)
    session.reset_peak()
    predicted = _predicted(session, parts, model, plug, prepared)
    spent = Spent(time.perf_counter() - started, processor.seconds, session.peak())
    moved = locality(session, parts, model, plug, prepared) if plug and session.locality else {}
    after = digest(model)
    if after != tuned.digest:
        raise FrozenError(
            "the downstream model's weights changed after tuning, or in the cache since they were "
            "stored; `kbench cache prune --all` has all made anew"
        )
    return Evaluation(
        prepared=prepared,
        predicted=predicted,
        cost=cost(tuned, fitted, plug, spent, len(predicted.labels)),
        counts={
            **_whole(parts, prepared),
            **_kept(session, parts, model),
            **respelled(parts, model, prepared.examples),
            **counted(fitted),
        },
        training=_told(session, parts, model.lm, tuned, fitted, predicted, choice),
        dev=dev,
        before=tuned.digest,
        after=after,
        locality=moved,
        false=false_answers(parts, model, prepared),
    )


def _kept(session: Session, parts: Parts, model: DownstreamModel) -> dict[str, int]:
    """What was read of train and dev, and how much of it the head can express."""
    counts: dict[str, int] = {}
    for split in (Split.TRAIN, Split.DEV):
        examples = limited(parts.task.examples(split), parts.spec.limit)
        if examples:
            kept = len(examples) if model.head.keeps_all else session.kept(parts, split, model)
            counts |= {f"{split}_total": len(examples), f"{split}_kept": kept}
    return _with_dropped(parts, counts)


def _whole(parts: Parts, prepared: Prepared) -> dict[str, int]:
    return _with_dropped(parts, {**parts.task.counts, **prepared.counts})


def _with_dropped(parts: Parts, counts: dict[str, int]) -> dict[str, int]:
    """Counts what the task itself left out among all, unless a limit was drawn of the rest."""
    if parts.spec.limit is None:
        for name in (f"{split}_total" for split in Split):
            if name in counts:
                counts[name] = max(counts[name], parts.task.counts.get(name, 0))
    return counts


def _dev(
    session: Session,
    parts: Parts,
    model: DownstreamModel,
    plug: Plug | None,
    tuned: TrainingRecord,
    fitted: TrainingRecord | None,
    choice: Mapping[str, Any] | None,
) -> float | None:
    """Returns the main metric on dev, of which the options of a sweep are chosen.

    What training or a choice has found is not computed again. A control is read under the options
    of its true run, and so has no part in it.
    """
    if parts.spec.control != Control.NONE:
        return None
    if choice is not None:
        return float(max(choice["dev"]))
    last = tuned if plug is None or parts.plug_is_fixed else fitted
    if last is not None and last.history.dev:
        return last.history.dev[last.history.best]  # of the weights that were kept
    try:
        if not parts.task.examples(Split.DEV):
            return None
        with plug.attach(model.lm) if plug else nullcontext():
            return session.validate(parts, model, injected=plug is not None)
    except InputError:  # a split that is not there, or of which nothing can be used
        return None


def _told(
    session: Session,
    parts: Parts,
    lm: LanguageModel,
    tuned: TrainingRecord,
    fitted: TrainingRecord | None,
    predicted: Predicted,
    choice: dict[str, Any] | None,
) -> dict[str, Any]:
    """What a result says of how each stage was done."""
    how = described(session.device, session.compiled)
    if parts.spec.weights != "float32":
        how["weights"] = parts.spec.weights
    return {
        "tuning": tuned.summary(),
        "evaluation": evaluated(how, parts.spec.dtype, predicted, lm.rounding),
        **({"unread": list(lm.unread)} if lm.unread else {}),
        **({"plug": fitted.summary_of_plug()} if fitted else {}),
        **({"choice": choice} if choice else {}),
    }


def _predicted(
    session: Session,
    parts: Parts,
    model: DownstreamModel,
    plug: Plug | None,
    prepared: Prepared,
) -> Predicted:
    with (
        plug.attach(model.lm) if plug else nullcontext(),
        compiled(model.lm, session.compiled),
    ):
        return predict(
            model, prepared.inputs, session.device, parts.spec.dtype, session.evaluation_batch
        )


def _choose(
    session: Session, parts: Parts, model: DownstreamModel, plug: Plug
) -> dict[str, Any] | None:
    """Lets a general plug take the value that is best on dev; the first of equals."""
    values = list(parts.method.choices())
    if parts.spec.setting != Setting.GENERAL or not values:
        return None
    if not parts.task.examples(Split.DEV):
        raise Unsupported(
            f"{parts.spec.method} chooses between values on dev, and task {parts.spec.task} "
            "has no dev example"
        )
    states = session.states_of_dev(parts, model, plug)
    scores = []
    for value in values:
        plug.choose(value)
        with plug.attach(model.lm):
            scores.append(session.validate(parts, model, injected=True, states=states))
    best = values[scores.index(max(scores))]
    plug.choose(best)
    return {"values": values, "dev": scores, "chosen": best}
