"""A data set of the user's own, without code: JSON Lines and a card in YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kbench.data import Example, Label, Mention, Role, Split, TaskCard
from kbench.data.files import read_yaml
from kbench.data.records import Record
from kbench.data.sources import find_file, find_folder, is_hub, read_records
from kbench.errors import DataError, UsageError, nearest
from kbench.knowledge import LINKERS
from kbench.metrics import Metric
from kbench.model import Head
from kbench.task import Family, QuestionTask, RelationTask, Task, TypingTask

__all__ = ["Custom", "CustomCard"]

_CARD = "card.yaml"
_EXAMPLE = "a mapping such as `title: My relations`, `family: relation classification`"
_MENTION = ("start", "end", "entity", "role")
_KEYS = {
    Family.TYPING: ("id", "text", "mentions", "label"),
    Family.RELATION: ("id", "text", "mentions", "label"),
    Family.QUESTION: ("id", "text", "mentions", "answers", "blank"),
}
_SHAPE = {"text": str, "mentions": [{"start": int, "end": int}]}
_SHAPES: Mapping[Family, Any] = {
    Family.TYPING: {**_SHAPE, "label": [str]},
    Family.RELATION: {**_SHAPE, "label": str},
    Family.QUESTION: {**_SHAPE, "answers": [str]},
}


class CustomCard(BaseModel):
    """What ``card.yaml`` says.

    Attributes:
        title: name in print.
        name: short name; the task is called ``custom:NAME`` wherever results are shown. Default:
            the name of the folder.
        family: ``entity typing``, ``relation classification`` or ``question answering``.
        licence: of the data.
        revision: raise it when the data change for good.
        citation: paper that introduced the data.
        source: where they come from.
        max_length: tokens of an input, specials included.
        linking: ``gold`` (ids in the data) or ``title`` (by the mention's text).
        markers: wordpiece set around mentions of each role; default: the family's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(min_length=1)
    name: str | None = Field(default=None, pattern=r"^[\w.+-]{1,40}$", coerce_numbers_to_str=True)
    family: Family
    licence: str = Field(min_length=1)
    revision: str = Field(default="1", coerce_numbers_to_str=True)
    citation: str = "not stated"
    source: str = "not stated"
    max_length: int = Field(default=128, ge=8)
    linking: str = "gold"
    markers: dict[Role, str] | None = None


class Custom(Task):
    """Your own data set: a folder with card.yaml, train.jsonl, dev.jsonl and test.jsonl.

    A line is ``{"text", "mentions": [{"start", "end", "entity", "role"}, …], "label"}``. Offsets
    are characters; ``entity`` is an id in the knowledge base, null or absent where unknown;
    ``role`` is ``target`` (typing, questions), ``head`` and ``tail`` (relations) or, if absent,
    ``context``; ``id`` may name the example. ``label`` is a list of types or the name of a
    relation. A question has ``answers`` instead, a list of acceptable ones, and ``blank``, the
    offset where the answer goes (default: at the end, after a blank).
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
    metrics: tuple[Metric, ...] = (*RelationTask.metrics, *TypingTask.metrics)
    markers = RelationTask.markers

    def __new__(cls, data: str | None = None, options: Mapping[str, Any] | None = None) -> Self:
        """Makes the task of the family that the card names.

        Raises:
            DataError: there is no card, or it is not understood.
        """
        if cls is not Custom or not data:
            return super().__new__(cls)
        # A subclass, chosen by what the card says.
        return super().__new__(_FAMILIES[_read_card(data).family])  # type: ignore[return-value]

    def __init__(self, data: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, options)
        if data:
            own = _read_card(data)
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
            self.markers = own.markers or self.markers  # type: ignore[misc]

    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split.

        Raises:
            DataError: the file is missing or malformed, or a label of dev or test does not occur
                in train.
        """
        records = read_records(find_file(self._folder, f"{split}.json"), _SHAPES[self.family])
        examples = [self._example(f"{split}/{n}", record) for n, record in enumerate(records)]
        self._check(split, records, examples)
        self.counts |= {
            f"{split}_total": len(examples),
            f"{split}_mentions": sum(len(example.mentions) for example in examples),
            f"{split}_mentions_with_entity": sum(
                mention.entity is not None for example in examples for mention in example.mentions
            ),
        }
        return examples

    def head(self, width: int) -> Head:
        """Never called: the family that the card names has a head of its own."""
        raise UsageError(f"{self.card.title} needs --data DIR: {self.card.obtain}")

    @cached_property
    def _folder(self) -> Path:
        return find_folder(self.data, self.card, "custom")

    def _check(self, split: Split, records: list[Record], examples: list[Example]) -> None:
        known: dict[str, int] = {}
        labels = None if split == Split.TRAIN else self._labels_of_train
        for number, (record, example) in enumerate(zip(records, examples, strict=True)):
            if known.setdefault(example.id, number) != number:
                raise record.error(f"has the id {example.id!r}, as record {known[example.id]} has")
            unknown = [] if labels is None else sorted({*_several(example.label)} - labels)
            if unknown and labels:
                hint = nearest(unknown[0], labels)
                raise record.error(f"label {unknown[0]!r} does not occur in train{hint}")

    @property
    def _labels_of_train(self) -> frozenset[str] | None:
        """The labels that dev and test may have; None where answers are free."""
        if self.family == Family.QUESTION:
            return None
        return frozenset(
            label for example in self.examples(Split.TRAIN) for label in _several(example.label)
        )

    def _example(self, name: str, record: Record) -> Example:
        _only(record, record.values, _KEYS[self.family])
        text, name = record["text"], record.values.get("id", name)
        if not isinstance(name, str) or not name:
            raise record.error(f"id is {name!r}, not text")
        mentions = tuple(
            _mention(record, number, values, text)
            for number, values in enumerate(record["mentions"])
        )
        if self.family == Family.QUESTION:
            return _question(name, record, mentions)
        label = record["label"]
        if self.family == Family.TYPING:
            if len(set(label)) < len(label):
                raise record.error("has a label twice")
            label = tuple(sorted(label))
        elif not label:
            raise record.error("has an empty label")
        return Example(name, text, mentions, label)


class _CustomTyping(Custom, TypingTask):
    """Entity typing by a card."""

    head_name = "kbench_tasks.custom:_CustomTyping"
    family, metrics = Family.TYPING, TypingTask.metrics
    markers, head = TypingTask.markers, TypingTask.head


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


_FAMILIES: Mapping[Family, type[Custom]] = {
    Family.TYPING: _CustomTyping,
    Family.RELATION: _CustomRelations,
    Family.QUESTION: _CustomQuestions,
}


def _read_card(data: str) -> CustomCard:
    if is_hub(data):
        raise UsageError(f"custom reads folders, not {data}: download it first")
    folder = find_folder(data, Custom.card, "custom")
    path = folder / _CARD
    values = read_yaml(path, _EXAMPLE)
    for key in values:
        if key not in CustomCard.model_fields:
            hint = nearest(key, CustomCard.model_fields)
            raise DataError(path, f"has an unknown key {key!r}{hint}", _EXAMPLE)
    try:
        card = CustomCard.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(path, f"{where}: {first['msg']}", _EXAMPLE) from None
    if card.linking not in LINKERS:
        hint = nearest(card.linking, LINKERS)
        raise DataError(path, f"linking is {card.linking!r}{hint}", _EXAMPLE)
    return card


def _only(record: Record, values: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuses keys that nobody reads: a misspelt one would be lost in silence."""
    for key in values:
        if key not in known:
            raise record.error(f"has an unknown key {key!r}{nearest(key, known)}")


def _mention(record: Record, number: int, values: Mapping[str, Any], text: str) -> Mention:
    _only(record, values, _MENTION)
    what = f"mentions[{number}]"
    start, end = values["start"], values["end"]
    record.span(what, start, end, text)
    entity, role = values.get("entity"), values.get("role", Role.CONTEXT)
    if entity is not None and (not isinstance(entity, str) or not entity):
        raise record.error(f"{what}.entity is {entity!r}, neither text nor null")
    if role not in list(Role):
        raise record.error(f"{what}.role is {role!r}{nearest(str(role), Role)}")
    return Mention(start, end, entity, Role(role))


def _question(name: str, record: Record, mentions: tuple[Mention, ...]) -> Example:
    text, answers = record["text"], record["answers"]
    if not answers or not all(answer.strip() for answer in answers):
        raise record.error("has an empty answer, or none")
    blank = record.values.get("blank")
    if blank is None:
        text = text if text.endswith(" ") else f"{text} "
        blank = len(text)
    if not isinstance(blank, int) or isinstance(blank, bool) or not 0 <= blank <= len(text):
        raise record.error(f"blank is {blank!r}, no offset in its text of {len(text)} characters")
    return Example(name, text, mentions, tuple(answers), blank=blank)


def _several(label: Label) -> tuple[str, ...]:
    return (label,) if isinstance(label, str) else label
