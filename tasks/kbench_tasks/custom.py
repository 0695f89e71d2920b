"""A data set of the user's own, without code: JSON Lines and a card in YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from kbench.data import Example, Mention, Split, TaskCard
from kbench.data.records import Record
from kbench.data.sources import find_file, find_folder, read_records, read_text
from kbench.errors import DataError, UsageError, nearest
from kbench.metrics import MacroF1, Metric, MicroF1WithoutNull
from kbench.model import Head
from kbench.spec import OptionType
from kbench.task import Family, QuestionTask, RelationTask, Task, TypingTask
from kbench_tasks.custom_card import (
    CARD,
    KEY_WORDS,
    METRICS,
    WITHOUT_NULL,
    CustomCard,
    metrics_of,
    prompt_of,
    read_card,
)
from kbench_tasks.custom_records import SHAPES, example_of, several

__all__ = ["Custom"]

_IDS_EXPECTED = "a line for each id of the data: the id, a tab, the knowledge base's id"


class Custom(Task):
    """Your own data set: a folder with card.yaml, train.jsonl, dev.jsonl and test.jsonl.

    A line is ``{"text", "mentions": [{"start", "end", "entity", "role"}, …], "label"}``. Offsets
    are characters; ``entity`` is an id in the knowledge base, null or absent where unknown;
    ``role`` is ``target`` (typing, questions), ``head`` and ``tail`` (relations) or, if absent,
    ``context``; ``score`` the confidence of the link; ``id`` may name the example. ``label`` is a
    list of types or the name of a relation. A question has ``answers`` instead, a list of
    acceptable ones, of which any is right, and ``blank``, the offset where the answer goes
    (default: at the end, after a blank where the script has blanks between words). One mention
    of a typing example is its target, one of a relation its head and one its tail.
    """

    card = TaskCard(
        title="custom",
        revision="1",
        licence="as its card says",
        citation="as its card says",
        source="a folder of yours",
        obtain="a folder of your own with card.yaml, train.jsonl, dev.jsonl and test.jsonl; "
        "docs/custom-data.md shows how they look",
    )
    family = Family.RELATION
    metrics: tuple[Metric, ...] = (
        *RelationTask.metrics,
        *TypingTask.metrics,
        *QuestionTask.metrics,
    )
    markers = RelationTask.markers
    defaults: ClassVar[Mapping[str, float | int | str]] = {
        **QuestionTask.defaults,
        "ask": "name",
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        **QuestionTask.option_types,
        "ask": OptionType("text", words=("name", "yes-no", "list", "letters")),
    }
    card_keys: ClassVar[Mapping[str, str]] = {
        **KEY_WORDS,
        **{f"metric in {family}": " or ".join(named) for family, named in METRICS.items()},
    }
    _own: CustomCard | None = None

    def __new__(cls, data: str | None = None, options: Mapping[str, Any] | None = None) -> Self:
        """Makes the task of the family that the card names.

        Raises:
            DataError: there is no card, or it is not understood.
        """
        if cls is not Custom or not data:
            return super().__new__(cls)
        # A subclass, chosen by what the card says.
        return super().__new__(_FAMILIES[read_card(data, cls.card).family])  # type: ignore[return-value]

    def __init__(self, data: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, options)
        if data:
            own = read_card(data, Custom.card)
            self.card = TaskCard(  # type: ignore[misc]
                own.title,
                own.revision,
                own.licence,
                own.citation,
                own.source,
                Custom.card.obtain,
                name=own.name or Path(data).expanduser().absolute().name,
            )
            self.max_length, self.linking = own.max_length, own.linking  # type: ignore[misc]
            if own.markers:  # else those of the family, the same object, as states_markers asks
                self.markers = own.markers  # type: ignore[misc]
            self.link_threshold = own.link_threshold
            self.metrics = metrics_of(own)
            self.prompt = prompt_of(own, self.prompt)  # type: ignore[misc]
            self._own = own
            self._check_options()

    def _check_options(self) -> None:
        """Refuses options of other families."""
        if self.options["answers"] != self.defaults["answers"]:
            raise UsageError(
                f"answers={self.options['answers']} is of questions, and the card of "
                f"{self.card.title} says {self.family}"
            )
        self._check_ask()

    def _check_ask(self) -> None:
        asked = str(self.options["ask"])
        of = next((kind for kind in (TypingTask, RelationTask) if asked in kind.ways), None)
        if of is not None and of.family != self.family:
            raise UsageError(
                f"ask={asked} is of {of.family}, and the card of {self.card.title} says "
                f"{self.family}"
            )

    @classmethod
    def metric_named(cls, variant: str) -> Metric | None:
        """Returns any metric that a card may ask for."""
        name, _, null = variant.partition(":")
        if name == WITHOUT_NULL:
            return MicroF1WithoutNull(null)
        if found := QuestionTask.metric_named(variant):
            return found
        told = (*cls.metrics, MacroF1(), *(one(True) for one in METRICS[Family.TYPING].values()))
        return next((metric for metric in told if metric.variant == variant), None)

    @property
    def form(self) -> dict[str, object]:
        """With the metric that selects on dev, where the card asks for one."""
        own = self._own
        asked = own is not None and (own.metric is not None or own.null_label is not None)
        return {**super().form, **({"metric": self.main_metric.variant} if asked else {})}

    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split.

        Raises:
            DataError: the file is missing or malformed, or a label of dev or test does not occur
                in train.
        """
        records = read_records(find_file(self._folder, f"{split}.json"), SHAPES[self.family])
        examples = [self._example(f"{split}/{n}", record) for n, record in enumerate(records)]
        self._check(split, records, examples)
        examples = [self._linked(split, example) for example in examples]
        linked = sum(m.entity is not None for example in examples for m in example.mentions)
        strangers = self.counts.get(f"{split}_ids_without_counterpart", 0)
        if self._own and self._own.ids and strangers and not linked and split == Split.TRAIN:
            problem = f"has none of the ids that {strangers} links of train name"
            raise DataError(self._folder / self._own.ids, problem, _IDS_EXPECTED)
        self.counts |= {
            f"{split}_total": len(examples),
            f"{split}_mentions": sum(len(example.mentions) for example in examples),
            f"{split}_mentions_with_entity": linked,
        }
        return examples

    def head(self, width: int) -> Head:
        """Never called: the family that the card names has a head of its own."""
        raise UsageError(f"{self.card.title} needs --data DIR: {self.card.obtain}")

    @cached_property
    def _folder(self) -> Path:
        return find_folder(self.data, self.card, "custom")

    @cached_property
    def _ids(self) -> Mapping[str, str] | None:
        """The knowledge base's id for each of the data; None where they are the same."""
        if self._own is None or self._own.ids is None:
            return None
        path = self._folder / self._own.ids
        ids: dict[str, str] = {}
        for number, line in enumerate(read_text(path, _IDS_EXPECTED).splitlines(), start=1):
            cells = line.split("\t")
            if len(cells) != 2 or not all(cells):
                problem = f"has {len(cells)} cells, or an empty one"
                raise DataError(path, problem, _IDS_EXPECTED, number)
            if ids.setdefault(cells[0], cells[1]) != cells[1]:
                problem = f"gives {cells[0]!r} the id {cells[1]!r} after {ids[cells[0]]!r}"
                raise DataError(path, problem, "one id for each", number)
        return ids

    def _linked(self, split: Split, example: Example) -> Example:
        """Returns an example with the ids of the knowledge base, and without unsure links."""
        if self._ids is None and self.link_threshold is None:
            return example
        mentions = [self._linked_mention(split, mention) for mention in example.mentions]
        return replace(example, mentions=tuple(mentions))

    def _linked_mention(self, split: Split, mention: Mention) -> Mention:
        if mention.entity is None:
            return mention
        if self.link_threshold is not None and (mention.score or 0.0) < self.link_threshold:
            self._count(f"{split}_links_below_threshold")
            return replace(mention, entity=None)
        if self._ids is None:
            return mention
        entity = self._ids.get(mention.entity)
        if entity is None:
            self._count(f"{split}_ids_without_counterpart")
        return replace(mention, entity=entity)

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def _check(self, split: Split, records: list[Record], examples: list[Example]) -> None:
        if split == Split.TRAIN:
            self._check_classes(examples)
        known: dict[str, int] = {}
        labels = None if split == Split.TRAIN else self._labels_of_train
        for number, (record, example) in enumerate(zip(records, examples, strict=True)):
            if known.setdefault(example.id, number) != number:
                raise record.error(f"has the id {example.id!r}, as record {known[example.id]} has")
            unknown = [] if labels is None else sorted({*several(example.label)} - labels)
            if unknown and labels:
                hint = nearest(unknown[0], labels)
                raise record.error(f"label {unknown[0]!r} does not occur in train{hint}")

    def _check_classes(self, examples: list[Example]) -> None:
        """Refuses training examples that say nothing, or lack the null relation."""
        classes = sorted({label for example in examples for label in several(example.label)})
        if not classes:
            path = find_file(self._folder, f"{Split.TRAIN}.json")
            raise DataError(path, "has no example with a label", "examples of every label")
        self._check_words(classes)
        for metric in self.metrics:
            if isinstance(metric, MicroF1WithoutNull) and metric.null not in classes:
                hint = nearest(metric.null, classes)
                problem = f"calls {metric.null!r} the null relation, which train lacks{hint}"
                raise DataError(self._folder / CARD, problem, "a relation of train")

    def _check_words(self, classes: list[str]) -> None:
        """Refuses words of what is no label, and statements that do not tell of all."""
        own = self._own
        for key, said in (("words", own and own.words), ("statements", own and own.statements)):
            stranger = next((label for label in said or {} if label not in classes), None)
            if stranger is not None:
                hint = nearest(stranger, classes)
                problem = f"{key} has {stranger!r}, which is no label of train{hint}"
                raise DataError(self._folder / CARD, problem, "labels of train")
        told = own.statements if own is not None else None
        lacking = [] if told is None else [label for label in classes if label not in told]
        if lacking:
            problem = f"statements has none of {lacking[0]!r}, a label of train"
            raise DataError(self._folder / CARD, problem, "a sentence of each relation")

    @property
    def _labels_of_train(self) -> frozenset[str] | None:
        """The labels that dev and test may have; None where answers are free."""
        if self.family == Family.QUESTION:
            return None
        return frozenset(
            label for example in self.examples(Split.TRAIN) for label in several(example.label)
        )

    def _example(self, name: str, record: Record) -> Example:
        example = example_of(self.family, name, record)
        if misfit := self.misfit(example):
            raise record.error(misfit)
        if self.link_threshold is not None:
            for number, mention in enumerate(example.mentions):
                if mention.entity is not None and mention.score is None:
                    asked = f"link_threshold {self.link_threshold:g} of {CARD} asks for one"
                    raise record.error(f"mentions[{number}] has a link without a score: {asked}")
        return example


class _CustomTyping(Custom, TypingTask):
    """Entity typing by a card."""

    head_name = "kbench_tasks.custom:_CustomTyping"
    family, metrics = Family.TYPING, TypingTask.metrics
    markers, head = TypingTask.markers, TypingTask.head

    def __init__(self, data: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, options)
        self.fallback = self._own is not None and self._own.fallback


class _CustomRelations(Custom, RelationTask):
    """Relation classification by a card."""

    head_name = "kbench_tasks.custom:_CustomRelations"
    family, metrics = Family.RELATION, RelationTask.metrics
    markers, head = RelationTask.markers, RelationTask.head


class _CustomQuestions(Custom, QuestionTask):
    """Questions by a card."""

    head_name = "kbench_tasks.custom:_CustomQuestions"
    family, metrics = Family.QUESTION, QuestionTask.metrics
    markers, head = QuestionTask.markers, QuestionTask.head

    def _check_options(self) -> None:
        self._check_ask()
        self._answered(self.way)  # once more: the card has its own metric


_FAMILIES: Mapping[Family, type[Custom]] = {
    Family.TYPING: _CustomTyping,
    Family.RELATION: _CustomRelations,
    Family.QUESTION: _CustomQuestions,
}
