"""Tasks, tunings, backbones, knowledge bases and importers that each break a contract."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from kbench.data import Example, Label, Role, Split, TaskCard
from kbench.knowledge import Bundle, KnowledgeSource
from kbench.knowledge.importing import Importer, ImporterCard, Option, Options, Report
from kbench.metrics import Accuracy, Metric
from kbench.model import Backbone, DownstreamModel, LanguageModel
from kbench.model import Head as TaskHead
from kbench.model.heads import BlankHead
from kbench.model.huggingface import load_folder
from kbench.task import Family, ProbeTask, QuestionTask, TypingTask
from kbench.testing.tiny import TinyTyping, tiny
from kbench.testing.toys import ToyQuestions, write_world
from kbench.training import Recipe, Tuning


class Typing(TypingTask):
    """A sound task."""

    card: ClassVar[TaskCard] = TinyTyping.card

    def load(self, split: Split) -> Sequence[Example]:
        marked = (e for e in TinyTyping().load(split) if e.mentions)
        return [replace(e, id=f"{split}/{e.id}") for e in marked]

    def changed(self, split: Split, **fields: Any) -> Sequence[Example]:
        """The split with fields of its first example replaced."""
        first, *rest = Typing.load(self, split)
        return [replace(first, **fields), *rest]


class Unlicensed(Typing):
    """Breaks card."""

    card = replace(TinyTyping.card, licence="")


class Misspelt(Typing):
    """Breaks card: its recipe has a field that nobody reads."""

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"full": {"learning": 1}}


class Empty(Typing):
    """Breaks data: a split is empty."""

    def load(self, split: Split) -> Sequence[Example]:
        return super().load(split) if split != Split.DEV else []


class Silent(Typing):
    """Breaks data: it does not say what to give."""

    card = replace(TinyTyping.card, obtain="from the moon")

    def load(self, split: Split) -> Sequence[Example]:
        raise ValueError("no")


class Twice(Typing):
    """Breaks splits: an example of train is in test."""

    def load(self, split: Split) -> Sequence[Example]:
        return self.changed(split, id="the same")


class Unheard(Typing):
    """Breaks labels: test has a class of its own."""

    def load(self, split: Split) -> Sequence[Example]:
        return self.changed(split, label=(f"only {split}",))


class Blank(Typing):
    """Breaks mentions: one is of blanks."""

    def load(self, split: Split) -> Sequence[Example]:
        first = super().load(split)[0]
        mention = replace(first.mentions[0], start=0, end=2)
        return self.changed(split, text=f"  {first.text}", mentions=(mention,))


class Fickle(Typing):
    """Breaks same data."""

    def load(self, split: Split) -> Sequence[Example]:
        return self.changed(split, text=str(random.random()), mentions=())


class Unfair(Typing):
    """Breaks perfect: the empty set cannot score 1."""

    def load(self, split: Split) -> Sequence[Example]:
        return (
            [replace(e, label=()) for e in super().load(split)]
            if split == Split.TEST
            else (super().load(split))
        )


class Targetless(Typing):
    """Breaks whole: an example does not say what is to be typed."""

    def load(self, split: Split) -> Sequence[Example]:
        return self.changed(split, mentions=())


class TwoTargets(Typing):
    """Breaks whole: an example has two mentions to be typed."""

    def load(self, split: Split) -> Sequence[Example]:
        first = super().load(split)[0]
        return self.changed(split, mentions=(*first.mentions, *first.mentions))


class Questions(QuestionTask):
    """Sound questions, with answers in every case and several of them."""

    card: ClassVar[TaskCard] = TinyTyping.card

    def load(self, split: Split) -> Sequence[Example]:
        given = ToyQuestions().load(split)
        return [replace(e, label=(str(e.label[0]).title(), *e.label, "Hue")) for e in given]


class FirstAnswer(Metric):
    """Takes the first acceptable answer for the only one."""

    name, variant = "first", "first"

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Any:
        first = [label[0] for label in labels]
        return Accuracy().statistics(first, predictions)

    def value(self, sums: Any) -> Any:
        return Accuracy().value(sums)


class OneAnswer(Questions):
    """Breaks several answers."""

    metrics = (FirstAnswer(),)


class LowerHead(BlankHead):  # type: ignore[misc]
    """Asks for every answer in lower case."""

    def tokens(self, answers: Sequence[str], *about: Any) -> list[int | None]:
        return super().tokens([answer.lower() for answer in answers], *about)


class LowerCased(Questions):
    """Breaks spelled."""

    def head(self, width: int) -> TaskHead:
        return LowerHead()


class Blankless(Questions):
    """Breaks whole: nobody knows where the answer goes."""

    def load(self, split: Split) -> Sequence[Example]:
        return [replace(e, blank=None) for e in super().load(split)]


class Headless(Typing):
    """Breaks head."""

    def head(self, width: int) -> Any:
        return nn.Linear(width, 2)


class Probe(ProbeTask):
    """A sound probe."""

    card: ClassVar[TaskCard] = TinyTyping.card

    def questions(self) -> Sequence[Example]:
        return ToyQuestions().load(Split.TEST)


class Trained(Probe):
    """Breaks data: a probe with a training split."""

    def load(self, split: Split) -> Sequence[Example]:
        return super().load(split) or ToyQuestions().load(Split.TRAIN)


class Overlaps(Probe):
    """Breaks splits: dev asks about a subject of test."""

    def load(self, split: Split) -> Sequence[Example]:
        found = super().load(split)
        first = super().load(Split.TEST)[0]
        return [*found, replace(first, id="again")] if split == Split.DEV else found


class Marked(Probe):
    """Breaks mentions: a probe that marks them."""

    markers: ClassVar[Mapping[Role, str]] = {Role.TARGET: "$"}


class Head(Tuning):
    """A sound tuning: trains the head alone."""

    revision = "1"

    def recipe(self, family: Family) -> Recipe:
        return Recipe(1e-2, 16, 1)

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        model.requires_grad_(False)
        part = model.head if list(model.head.parameters()) else model.lm.layers[-1]
        part.requires_grad_(True)


class Recipeless(Head):
    """Breaks card."""

    def recipe(self, family: Family) -> Any:
        return None if family == Family.QUESTION else Recipe(1e-2, 16, 1)


class Jumps(Head):
    """Breaks starts as base."""

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        super().prepare(model, options)
        with torch.no_grad():
            next(model.lm.layers[0].parameters()).mul_(1.1)


class ForgetsHead(Head):
    """Breaks trains: the head stays."""

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        model.requires_grad_(False)
        model.lm.layers[-1].requires_grad_(True)


class MarksForNothing(Tuning):
    """Breaks trains: marks what it has no recipe for."""

    revision = "1"

    def recipe(self, family: Family) -> None:
        return None

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        model.requires_grad_(True)


class TrainsWords(Head):
    """Breaks frozen words."""

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        model.requires_grad_(True)


class Unseeded(Head):
    """Breaks same seed."""

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        super().prepare(model, options)
        model.luck = nn.Parameter(torch.tensor(random.random()), requires_grad=False)


class Unstored(Head):
    """Breaks round trip: what it adds depends on how often it was prepared."""

    times = 0

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        super().prepare(model, options)
        Unstored.times += 1
        added = Unstored.times * torch.arange(model.lm.width)
        model.lm.layers[-1].register_forward_hook(lambda _, __, hidden: hidden + added)


class Bert(Backbone):
    """A sound backbone."""

    name = "broken"

    @property
    def digest(self) -> str:
        return "the same"

    def load(self) -> LanguageModel:
        return load_folder(tiny().backbone)


class UnknownField(Bert):
    """Breaks card."""

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"full": {"learning": 1}}


class Training(Bert):
    """Breaks loads."""

    def load(self) -> LanguageModel:
        return super().load().train()


class Shifting(Bert):
    """Breaks same weights."""

    def load(self) -> LanguageModel:
        lm = super().load()
        with torch.no_grad():
            next(lm.parameters()).add_(random.random())
        return lm


class _Deaf(LanguageModel):
    def embed(self, batch: Any) -> Tensor:
        words: Tensor = self.word_embeddings(batch.ids)
        return words


class NoSlots(Bert):
    """Breaks slots."""

    def load(self) -> LanguageModel:
        lm = super().load()
        lm.__class__ = _Deaf
        return lm


class _Doubling(LanguageModel):
    def embed(self, batch: Any) -> Tensor:
        return super().embed(batch) * (2.0 if len(batch.slot_index) else 1.0)


class Doubles(Bert):
    """Breaks own words."""

    def load(self) -> LanguageModel:
        lm = super().load()
        lm.__class__ = _Doubling
        return lm


class _Averaging(LanguageModel):
    def forward(self, batch: Any) -> Tensor:
        hidden = super().forward(batch)
        return hidden + hidden.mean(1, keepdim=True)


class Padded(Bert):
    """Breaks padding."""

    def load(self) -> LanguageModel:
        lm = super().load()
        lm.__class__ = _Averaging
        return lm


class _Loud(LanguageModel):
    def forward(self, batch: Any) -> Tensor:
        hidden = super().forward(batch)
        return hidden + 1e-5 * self.embed(batch).roll(-1, 1)  # of the token after, padding too


class ReadsPadding(Bert):
    """Breaks padding, by less than the order of sums could."""

    def load(self) -> LanguageModel:
        lm = super().load()
        lm.__class__ = _Loud
        return lm


class _Forwards(LanguageModel):
    def forward(self, batch: Any) -> Tensor:
        return self.embed(batch).cumsum(1)


class LeftToRight(Bert):
    """Breaks both ways."""

    def load(self) -> LanguageModel:
        lm = super().load()
        lm.__class__ = _Forwards
        return lm


class Misdirected(Bert):
    """Breaks both ways: it says of an encoder that it is a decoder."""

    left_to_right = True


class MoreTokens(Bert):
    """Breaks fitting: its tokenizer has more tokens than it has vectors."""

    def load(self) -> LanguageModel:
        lm = super().load()
        lm.tokenizer.add_tokens(["unheard-of"])
        return lm


class TooLong(Bert):
    """Breaks fitting: it has fewer positions than it says."""

    def load(self) -> LanguageModel:
        lm = super().load()
        lm.max_length += 1
        return lm


class _Scaled(LanguageModel):
    def forward(self, batch: Any) -> Tensor:
        return super().forward(batch) * 1.1


class OtherStates(Bert):
    """Breaks own outputs."""

    def load(self) -> LanguageModel:
        lm = super().load()
        lm.__class__ = _Scaled
        return lm


class NotFinite(Bert):
    """Breaks weights."""

    def load(self) -> LanguageModel:
        lm = super().load()
        with torch.no_grad():
            next(lm.parameters()).flatten()[5] = float("nan")
        return lm


class _Rewriting(PreTrainedTokenizerFast):
    """Writes a text otherwise than its own core: it sets what is in brackets apart."""

    def __call__(self, text: Any, *others: Any, **options: Any) -> Any:
        return super().__call__(text.replace("(", " a "), *others, **options)


class Rewrites(Bert):
    """Breaks whole texts."""

    def load(self) -> LanguageModel:
        lm = super().load()
        lm.tokenizer.__class__ = _Rewriting
        return lm


class World(KnowledgeSource):
    """A sound knowledge base."""

    def folder(self) -> Path:
        return tiny().knowledge


class Edited(KnowledgeSource):
    """Breaks files: one was changed by hand."""

    def folder(self) -> Path:
        folder = tiny().folder / "edited"
        if not folder.is_dir():
            write_world(folder, entities=8)
            (folder / "relations.json").write_text('{"color": "has another color"}')
        return folder


class Format(Importer):
    """A sound importer."""

    card: ClassVar[ImporterCard] = ImporterCard("t", "one file", "somewhere", "none")

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        raise NotImplementedError


class Sourceless(Format):
    """Breaks card."""

    card = ImporterCard("t", "one file", "", "none")


class Disallowed(Format):
    """Breaks options: the default is not allowed."""

    options: ClassVar[Mapping[str, Option]] = {"size": Option("of it", "x", choices=("s", "m"))}
