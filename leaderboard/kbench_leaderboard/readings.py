"""How a run reads its test set, made again where its task, backbone and knowledge base are here.

Which questions a tokenizer leaves out, who is linked, in how many facts an entity is, and whether a
text that was brought holds an answer: all of it is as it was before anything was predicted. Of the
backbone its tokenizer alone is asked.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
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
from kbench.store import Predictions, Result
from kbench.task import Task

__all__ = ["Readings"]

_LARGEST = 256 << 20
"""Bytes of a backbone that is loaded for the sake of its tokenizer."""


class Readings:
    """What runs read of their test sets, each kept for all that read it alike."""

    def __init__(self) -> None:
        self._models: dict[str, LanguageModel | None] = {}
        self._kept: dict[Hashable, list[Example]] = {}
        self._linked: dict[Hashable, tuple[list[bool], list[int]]] = {}
        self._told: dict[Hashable, list[bool]] = {}

    def findings(
        self, result: Result, given: Predictions, task: Task, base: KnowledgeBase | None
    ) -> Iterator[str]:
        """Yields where predictions are of other inputs than a run has.

        Args:
            result: of the run, without a limit.
            given: its predictions.
            task: of the run, with its data.
            base: its knowledge base; None where that is not here.
        """
        made = result.provenance
        digest = made.digests.get("backbone") if made else None
        if (lm := self._model(result.spec.backbone, digest)) is None:
            return
        parts = Parts(result.spec, _Loader(task, base))
        model = DownstreamModel(lm, headed(parts, lm))
        about = self._about(parts)
        if about not in self._kept:
            self._kept[about] = expressed(model, task.examples(Split.TEST))[0]
        kept = self._kept[about]
        if [example.id for example in kept] != [*given.ids]:
            yield (
                f"is tested on {len(given.ids)} examples, and of those of task "
                f"{result.spec.task} backbone {result.spec.backbone} is asked {len(kept)}"
            )
        elif base is not None and not any(example.candidates for example in kept):
            yield from self._knowing((*about, self._with(parts)), parts, model, kept, given)

    def _model(self, name: str, digest: str | None) -> LanguageModel | None:
        """An installed backbone of no great size, if it is the one of this digest."""
        if name not in self._models:
            self._models[name] = None
            if name in names(Kind.BACKBONES):
                found: Backbone = find_backbone(name)
                if found.digest == digest and found.size().bytes <= _LARGEST:
                    self._models[name] = found.load()
        return self._models[name]

    @staticmethod
    def _about(parts: Parts) -> tuple[Hashable, ...]:
        spec, task = parts.spec, parts.task
        own = [spec.options_of("task"), spec.options_of("tuning"), spec.chat]
        return task.digest, spec.task, spec.backbone, spec.tuning, canonical_digest(own)

    @staticmethod
    def _with(parts: Parts) -> Hashable:
        spec, base = parts.spec, parts.base_knowledge
        assert base is not None
        own = canonical_digest(parts.method.options)
        return base.digest, parts.linker, spec.method, own

    def _knowing(
        self,
        about: Hashable,
        parts: Parts,
        model: DownstreamModel,
        kept: Sequence[Example],
        given: Predictions,
    ) -> Iterator[str]:
        """What of a run with knowledge was made up of who is known."""
        base = parts.base_knowledge
        assert base is not None
        if about not in self._linked:
            covers = partial(parts.method.covers, base)
            _, links = linked(kept, base, parts.linker, covers)
            there = [max(rows, default=-1) >= 0 for rows in links.rows]
            self._linked[about] = there, degrees(kept, links, base)
        there, facts = self._linked[about]
        if [*map(bool, given.linked)] != there:
            yield (
                f"says of {sum(map(bool, given.linked))} examples that they are linked, and by "
                f"{parts.linker} with {parts.spec.knowledge} {sum(there)} are"
            )
        elif [*given.degrees] != facts:
            yield f"states other numbers of facts than {parts.spec.knowledge} has"
        if not parts.method.text:
            if given.in_context:
                yield "says which texts held an answer, and its method brings none"
            return
        spec = parts.spec
        seen = (about, spec.control, spec.seed)
        if seen not in self._told:
            found = prepare(parts, Split.TEST, model, injected=True).answered
            self._told[seen] = [*(found or ())]
        if [*map(bool, given.in_context)] != self._told[seen]:
            yield "states of other texts that they held an answer than those that it was brought"


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

    def backbone(self, name: str) -> Backbone:
        if name not in names(Kind.BACKBONES):
            raise KbenchError(f"backbone {name} is not installed")
        return super().backbone(name)

    def knowledge(self, name: str) -> KnowledgeBase:
        if self._base is None:
            raise KbenchError(f"knowledge base {name} is not installed")
        return self._base
