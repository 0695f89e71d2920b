"""How a run reads its test set, made again where its task, backbone and knowledge base are here.

Which questions a tokenizer leaves out, who is linked, in how many facts an entity is, and whether a
text that was brought holds an answer: all of it is so before anything is predicted. Of the backbone
its tokenizer alone is asked.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

from kbench.data import Example, Split
from kbench.data.files import canonical_digest
from kbench.errors import KbenchError
from kbench.knowledge import KnowledgeBase
from kbench.knowledge.linked import linked
from kbench.model import Backbone, DownstreamModel, LanguageModel
from kbench.parts.find import find_backbone
from kbench.parts.registry import Kind, names
from kbench.parts.run_parts import PartLoader, Parts, headed
from kbench.pipeline.buckets import degrees
from kbench.pipeline.preparation import expressed, prepare
from kbench.spec import RunSpec
from kbench.store import Result
from kbench.task import Task

__all__ = ["Reading", "Readings"]

_LARGEST = 256 << 20
"""Bytes of a backbone that is loaded for the sake of its tokenizer."""


@dataclass(frozen=True)
class Reading:
    """How a run reads its test set.

    Attributes:
        ids: of the examples that its head can express, in their order.
        linked: whether each has knowledge; None where that is not known here.
        degrees: in how many facts its entity is, -1 without one; likewise.
        in_context: whether the texts that are brought to it spell out an answer; empty of a method
            that brings none, None likewise.
    """

    ids: Sequence[str]
    linked: Sequence[bool] | None = None
    degrees: Sequence[int] | None = None
    in_context: Sequence[bool] | None = None


class Readings:
    """What runs read of their test sets, each kept for all that read it alike."""

    def __init__(self) -> None:
        self._models: dict[str, LanguageModel | None] = {}
        self._kept: dict[Hashable, list[Example]] = {}
        self._linked: dict[Hashable, tuple[list[bool], list[int]]] = {}
        self._told: dict[Hashable, list[bool]] = {}

    def of(self, result: Result, task: Task, base: KnowledgeBase | None) -> Reading | None:
        """Returns how a run reads its test set; None where its backbone is not here, or large.

        Args:
            result: of the run, without a limit.
            task: of the run, with its data.
            base: its knowledge base; None of a run without one, or where that is not here.

        Raises:
            KbenchError: such a run cannot be.
        """
        made = result.provenance
        digest = made.digests.get("backbone") if made else None
        if (lm := self._model(result.spec.backbone, digest)) is None:
            return None
        parts = Parts(result.spec, _Loader(task, base))
        model = DownstreamModel(lm, headed(parts, lm))
        about = _asked(parts)
        if about not in self._kept:
            self._kept[about] = expressed(model, task.examples(Split.TEST))[0]
        kept = self._kept[about]
        ids = [example.id for example in kept]
        if base is None or any(example.candidates for example in kept):
            return Reading(ids)
        about = (about, base.digest, parts.linker, parts.spec.method, _options(parts))
        if about not in self._linked:
            covers = partial(parts.method.covers, base)
            _, links = linked(kept, base, parts.linker, covers)
            there = [max(rows, default=-1) >= 0 for rows in links.rows]
            self._linked[about] = there, degrees(kept, links, base)
        told = self._told_of(about, parts, model) if parts.method.text else []
        return Reading(ids, *self._linked[about], told)

    def _model(self, name: str, digest: str | None) -> LanguageModel | None:
        """An installed backbone of no great size, if it is the one of this digest."""
        if name not in self._models:
            self._models[name] = None
            if name in names(Kind.BACKBONES):
                found: Backbone = find_backbone(name)
                if found.digest == digest and found.size().bytes <= _LARGEST:
                    self._models[name] = found.load()
        return self._models[name]

    def _told_of(self, about: Hashable, parts: Parts, model: DownstreamModel) -> list[bool]:
        about = (about, parts.spec.control, parts.spec.seed)
        if about not in self._told:
            found = prepare(parts, Split.TEST, model, injected=True).answered
            self._told[about] = [*(found or ())]
        return self._told[about]


def _asked(parts: Parts) -> Hashable:
    """What is asked of which model, in which form."""
    spec, task = parts.spec, parts.task
    own = canonical_digest([spec.options_of("task"), spec.options_of("tuning"), spec.chat])
    return task.digest, spec.task, spec.backbone, spec.tuning, own


def _options(parts: Parts) -> str:
    return canonical_digest(parts.method.options)


class _Loader(PartLoader):
    """Parts that are here: nothing that a result names is opened.

    Args:
        task: of the run.
        base: its knowledge base, or None.
    """

    def __init__(self, task: Task, base: KnowledgeBase | None) -> None:
        super().__init__(download=False)
        self._task = task
        self._base = base

    def task(self, spec: RunSpec) -> Task:
        return self._task

    def knowledge(self, name: str) -> KnowledgeBase:
        if self._base is None:
            raise KbenchError(f"knowledge base {name} is not here")
        return self._base
