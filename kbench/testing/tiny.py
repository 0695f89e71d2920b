"""Tiny parts that contracts are checked on: a small world, two backbones, three tasks.

Every second example of a task has no known entity: its mention is not linked, or linked to
somebody the knowledge base has not heard of, or there is no mention at all. Inputs differ in
length, and some have a second entity.
"""

from __future__ import annotations

import atexit
import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, final

from kbench.data import Example, Mention, Role, Split, TaskCard
from kbench.knowledge import Entity, KnowledgeBase, write_bundle
from kbench.method import InjectionMethod, MethodCard, NoPlug, Plug
from kbench.model import Backbone, Decoder, Encoder, LanguageModel
from kbench.model.huggingface import folder_digest, load_folder
from kbench.parts.catalogue import Kind
from kbench.spec import Setting
from kbench.task import QuestionTask, RelationTask, Task, TypingTask
from kbench.testing.registration import registered
from kbench.testing.toys import (
    ToyQuestions,
    ToyRelations,
    ToyTyping,
    write_backbone,
    write_uneven,
    write_world,
)

__all__ = [
    "BACKBONE",
    "DECODER",
    "HEADLESS",
    "NOTHING",
    "TASKS",
    "HeadlessBert",
    "Nothing",
    "TinyBert",
    "TinyLlama",
    "TinyParts",
    "TinyQuestions",
    "TinyRelations",
    "TinyTyping",
    "offered",
    "tiny",
]

TASKS = ("tiny-typing", "tiny-relations", "tiny-questions")
NOTHING = "tiny-nothing"
BACKBONE, HEADLESS, DECODER = "tiny-bert", "tiny-headless", "tiny-llama"
ENTITIES = 64
_KEPT = {Split.TRAIN: 36, Split.DEV: 12, Split.TEST: 12}
"""Examples of each split; all on entities of the small world."""


@dataclass(frozen=True)
class TinyParts:
    """Folders of tiny parts.

    Attributes:
        folder: that all of them lie in.
        backbone: a random BERT with a masked-LM head.
        headless: the same without.
        decoder: a random Llama.
        knowledge: a knowledge base that has everything.
        bare: one that has names alone.
        uneven: one in which what one entity has another lacks.
    """

    folder: Path
    backbone: Path
    headless: Path
    decoder: Path
    knowledge: Path
    bare: Path
    uneven: Path


@cache
def tiny() -> TinyParts:
    """Returns the tiny parts, written once a process and removed at its end."""
    place = tempfile.TemporaryDirectory(prefix="kbench-tiny-")
    atexit.register(place.cleanup)
    folder = Path(place.name)
    write_world(folder / "toy", entities=ENTITIES, full=True)
    card = {"name": "bare", "version": "1", "licence": "Apache-2.0", "source": "generated"}
    names = {m.entity for e in ToyTyping().load(Split.TRAIN) for m in e.mentions if m.entity}
    write_bundle(folder / "bare", card, [Entity(name, name[4:]) for name in sorted(names)])
    return TinyParts(
        folder,
        write_backbone(folder / "bert", layers=3),
        write_backbone(folder / "headless", layers=3, lm_head=False),
        write_backbone(folder / "llama", layers=3, left_to_right=True),
        folder / "toy",
        folder / "bare",
        write_uneven(folder / "uneven", entities=ENTITIES).folder,
    )


@contextmanager
def offered() -> Iterator[None]:
    """Offers the tiny tasks and backbones, and a method without effect, inside the block."""
    kinds = (TinyTyping, TinyRelations, TinyQuestions)
    tasks = {n: f"{__name__}:{k.__name__}" for n, k in zip(TASKS, kinds, strict=True)}
    methods = {NOTHING: f"{__name__}:Nothing"}
    kinds_of = {BACKBONE: TinyBert, HEADLESS: HeadlessBert, DECODER: TinyLlama}
    backbones = {name: f"{__name__}:{kind.__name__}" for name, kind in kinds_of.items()}
    with (
        registered(Kind.TASKS, **tasks),
        registered(Kind.METHODS, **methods),
        registered(Kind.BACKBONES, **backbones),
    ):
        yield


@cache
def _loaded(folder: Path) -> LanguageModel:
    return load_folder(folder)


class _Copied(Backbone):
    """A backbone that is read from disk once: a check needs dozens of fresh copies."""

    folder: ClassVar[str]

    @property
    def digest(self) -> str:
        return folder_digest(self._place)

    def load(self) -> LanguageModel:
        known = _loaded(self._place)
        # Not a copy of all: it holds functions of its network.
        network = copy.deepcopy(known.network)
        if self.left_to_right:
            return Decoder(network, known.tokenizer).eval()
        return Encoder(network, known.tokenizer, pooler=False).eval()

    @property
    def _place(self) -> Path:
        return Path(getattr(tiny(), self.folder))


@final
class TinyBert(_Copied):
    """A random BERT with a masked-LM head."""

    name = BACKBONE
    folder = "backbone"


@final
class HeadlessBert(_Copied):
    """A random BERT without a masked-LM head."""

    name = HEADLESS
    folder = "headless"


@final
class TinyLlama(_Copied):
    """A random Llama."""

    name = DECODER
    folder = "decoder"
    left_to_right = True


class _Tiny(Task):
    """A few examples of a toy task, half of them without a known entity."""

    card: ClassVar[TaskCard] = ToyTyping.card
    max_length = 48
    source: ClassVar[type[Task]]

    def load(self, split: Split) -> Sequence[Example]:
        examples = self.source().load(split)[: _KEPT[split]]
        others = [m.entity or "" for e in examples for m in e.mentions[:1]]
        return [_varied(at, e, others[at - 1]) for at, e in enumerate(examples)]


def _varied(at: int, example: Example, other: str) -> Example:
    """The example with more text before it and, every second time, its entities taken away."""
    before = "today " * (at % 4)
    added: tuple[Mention, ...] = ()
    if at % 6 == 4:
        start, before = len(before), f"{before}{other[4:]} , "
        added = (Mention(start, start + len(other) - 4, other, Role.CONTEXT),)
    strangers: Mapping[int, Any] = {1: None, 3: "toy:nobody"}
    mentions = [
        replace(
            mention,
            start=mention.start + len(before),
            end=mention.end + len(before),
            entity=strangers.get(at % 6, mention.entity),
        )
        for mention in example.mentions
    ]
    return replace(
        example,
        text=before + example.text,
        mentions=() if at % 6 == 5 else (*added, *mentions),
        blank=None if example.blank is None else example.blank + len(before),
    )


@final
class TinyTyping(_Tiny, TypingTask):
    """A few examples of toy typing."""

    source = ToyTyping


@final
class TinyRelations(_Tiny, RelationTask):
    """A few examples of toy relations."""

    source = ToyRelations


@final
class TinyQuestions(_Tiny, QuestionTask):
    """A few examples of toy questions."""

    source = ToyQuestions


@final
class Nothing(InjectionMethod):
    """Injects nothing: for runs in which no method matters."""

    card: ClassVar[MethodCard] = MethodCard(title="nothing", paper="", year=0, needs="nothing")
    revision = "1"
    settings: ClassVar[frozenset[Setting]] = frozenset()

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        return NoPlug()
