"""A data set of the user's own, without code: JSON Lines and a card in YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from kbench.data import Example, Label, Mention, Role, Split, TaskCard
from kbench.data.files import read_yaml
from kbench.data.records import Record
from kbench.data.sources import find_file, find_folder, is_hub, read_records, read_text
from kbench.errors import DataError, UsageError, nearest
from kbench.knowledge import LINKERS
from kbench.metrics import (
    Accuracy,
    LooseMacroF1,
    LooseMicroF1,
    MacroF1,
    Metric,
    MicroF1WithoutNull,
    StrictAccuracy,
)
from kbench.model import Head
from kbench.task import Family, QuestionTask, RelationTask, Task, TypingTask

__all__ = ["Custom", "CustomCard"]

_CARD = "card.yaml"
_EXAMPLE = "a mapping such as `title: My relations`, `family: relation classification`"
_MENTION = ("start", "end", "entity", "role", "score")
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


_KEY_WORDS = {
    "title": "text: its name in print",
    "name": "text of letters, digits and . + - _, at most 40: what results call the data",
    "family": f"one of {', '.join(Family)}",
    "licence": "text, such as CC0-1.0",
    "revision": "text or a number: raise it when the data change for good",
    "citation": "text",
    "source": "text",
    "max_length": "a whole number, at least 8: tokens of an input",
    "linking": f"one of {', '.join(LINKERS)}",
    "markers": "a mapping such as {head: '#', tail: '$'}: what is set around mentions of a role",
    "metric": "one or a list of those of the family; the first selects and ranks",
    "null_label": "text: the relation that says that none holds; for relation classification",
    "fallback": "true or false: the best type where none is predicted; for entity typing",
    "link_threshold": "a number from 0 to 1: the score that a mention's link must have",
    "ids": "text: a file of the folder, a line for each id of the data: it, a tab, the knowledge's",
}
"""What a card may say."""
_MASKS = ("[MASK]", "<mask>")
_FALLBACK = "argmax-fallback"
_WITHOUT_NULL = "micro-f1-without-null"
_METRICS: Mapping[Family, Mapping[str, Callable[..., Metric]]] = {
    Family.TYPING: {
        "loose-micro-f1": LooseMicroF1,
        "loose-macro-f1": LooseMacroF1,
        "strict-set-accuracy": StrictAccuracy,
    },
    Family.RELATION: {
        "accuracy": Accuracy,
        "micro-f1-without-null": MicroF1WithoutNull,
        "macro-f1-over-classes": MacroF1,
    },
    Family.QUESTION: {"accuracy": partial(Accuracy, any_answer=True)},
}
"""What a card may ask for, by the names of the variants."""


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
        metric: variants of metrics, the first selects and ranks; default: the family's.
        null_label: the relation that says that none holds.
        fallback: whether the best type is predicted where no logit is above 0.
        link_threshold: the score that the link of a mention must have.
        ids: file of the folder that has the knowledge base's id for ids of the data.
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
    metric: str | list[str] | None = None
    null_label: str | None = Field(default=None, min_length=1)
    fallback: StrictBool = False
    link_threshold: float | None = Field(default=None, ge=0, le=1)
    ids: str | None = Field(default=None, min_length=1)


class Custom(Task):
    """Your own data set: a folder with card.yaml, train.jsonl, dev.jsonl and test.jsonl.

    A line is ``{"text", "mentions": [{"start", "end", "entity", "role"}, …], "label"}``. Offsets
    are characters; ``entity`` is an id in the knowledge base, null or absent where unknown;
    ``role`` is ``target`` (typing, questions), ``head`` and ``tail`` (relations) or, if absent,
    ``context``; ``score`` the confidence of the link; ``id`` may name the example. ``label`` is a
    list of types or the name of a relation. A question has ``answers`` instead, a list of
    acceptable ones, of which any is right, and ``blank``, the offset where the answer goes
    (default: at the end, after a blank). One mention of a typing example is its target, one of a
    relation its head and one its tail.
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
    card_keys: ClassVar[Mapping[str, str]] = {
        **_KEY_WORDS,
        **{f"metric in {family}": " or ".join(named) for family, named in _METRICS.items()},
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
            self.link_threshold = own.link_threshold
            self.metrics = _metrics(own)
            self._own = own

    @classmethod
    def metric_named(cls, variant: str) -> Metric | None:
        """Returns any metric that a card may ask for."""
        name, _, null = variant.partition(":")
        if name == _WITHOUT_NULL:
            return MicroF1WithoutNull(null)
        told = (*cls.metrics, MacroF1(), *(one(True) for one in _METRICS[Family.TYPING].values()))
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
        records = read_records(find_file(self._folder, f"{split}.json"), _SHAPES[self.family])
        examples = [self._example(f"{split}/{n}", record) for n, record in enumerate(records)]
        self._check(split, records, examples)
        examples = [self._linked(split, example) for example in examples]
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

    @cached_property
    def _ids(self) -> Mapping[str, str] | None:
        """The knowledge base's id for each of the data; None where they are the same."""
        if self._own is None or self._own.ids is None:
            return None
        path = self._folder / self._own.ids
        expected = "a line for each id of the data: the id, a tab, the knowledge base's id"
        ids: dict[str, str] = {}
        for number, line in enumerate(read_text(path, expected).splitlines(), start=1):
            cells = line.split("\t")
            if len(cells) != 2 or not all(cells):
                raise DataError(path, f"has {len(cells)} cells, or an empty one", expected, number)
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
            unknown = [] if labels is None else sorted({*_several(example.label)} - labels)
            if unknown and labels:
                hint = nearest(unknown[0], labels)
                raise record.error(f"label {unknown[0]!r} does not occur in train{hint}")

    def _check_classes(self, examples: list[Example]) -> None:
        """Refuses training examples that say nothing, or lack the null relation."""
        classes = sorted({label for example in examples for label in _several(example.label)})
        if not classes:
            path = find_file(self._folder, f"{Split.TRAIN}.json")
            raise DataError(path, "has no example with a label", "examples of every label")
        for metric in self.metrics:
            if isinstance(metric, MicroF1WithoutNull) and metric.null not in classes:
                hint = nearest(metric.null, classes)
                problem = f"calls {metric.null!r} the null relation, which train lacks{hint}"
                raise DataError(self._folder / _CARD, problem, "a relation of train")

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
            example = _question(name, record, mentions)
        else:
            example = Example(name, text, mentions, self._label(record))
        misfit = self.misfit(example)
        if misfit:
            raise record.error(misfit)
        return example

    def _label(self, record: Record) -> Label:
        given: Any = record["label"]
        if not all(label.strip() for label in _several(given)) or given == "":
            raise record.error("has an empty label")
        if self.family == Family.RELATION:
            return str(given)
        if len(set(given)) < len(given):
            raise record.error("has a label twice")
        return tuple(sorted(given))


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
        _check_card(card)
        _metrics(card)
    except ValidationError as error:
        raise _misread(path, values, error) from None
    except UsageError as error:
        raise DataError(path, str(error), _EXAMPLE) from None
    return card


def _misread(path: Path, values: Mapping[str, Any], error: ValidationError) -> DataError:
    """Returns what is wrong with a card in words of its own: what was given, what belongs there."""
    key = str(error.errors()[0]["loc"][0])
    expected = f"{key}: {_KEY_WORDS.get(key, 'as docs/custom-data.md shows')}"
    if key not in values:
        return DataError(path, f"has no {key}", expected)
    hint = nearest(str(values[key]), Family) if key == "family" else ""
    return DataError(path, f"{key} is {values[key]!r}{hint}", expected)


def _check_card(card: CustomCard) -> None:
    """Refuses what is well formed and means nothing.

    Raises:
        UsageError: it says what was given and what is expected.
    """
    if card.linking not in LINKERS:
        hint = nearest(card.linking, LINKERS)
        raise UsageError(f"linking is {card.linking!r}{hint}")
    for role, marker in (card.markers or {}).items():
        if not marker.strip():
            raise UsageError(f"markers has {marker!r} for {role}: expected a sign such as '#'")
    if card.fallback and card.family != Family.TYPING:
        raise UsageError(f"fallback is for {Family.TYPING}, not for {card.family}: leave it out")
    if card.null_label is not None and card.family != Family.RELATION:
        raise UsageError(
            f"null_label is for {Family.RELATION}, not for {card.family}: leave it out"
        )


def _metrics(card: CustomCard) -> tuple[Metric, ...]:
    """Returns the metrics of a card, those that it asks for first.

    Raises:
        UsageError: it asks for one that its family does not have.
    """
    asked = [card.metric] if isinstance(card.metric, str) else (card.metric or [])
    if not asked and card.null_label is not None:
        asked = [_WITHOUT_NULL]
    usual = {
        Family.TYPING: list(_METRICS[Family.TYPING]),
        Family.RELATION: ["accuracy", *([_WITHOUT_NULL] if card.null_label else [])],
        Family.QUESTION: ["accuracy"],
    }
    names = dict.fromkeys([*asked, *usual[card.family]])
    made: dict[str, Metric] = {}
    for name in names:
        metric = _metric(card, name)
        made.setdefault(metric.name, metric)
    return tuple(made.values())


def _metric(card: CustomCard, variant: str) -> Metric:
    known = _METRICS[card.family]
    name, _, told = variant.partition(":")
    if name not in known:
        listed = ", ".join(known)
        raise UsageError(
            f"metric is {variant!r}: expected {listed} in {card.family}{nearest(name, known)}"
        )
    if name == _WITHOUT_NULL:
        null = told or card.null_label
        if not null:
            raise UsageError(f"metric is {variant!r}: say which relation is none by null_label")
        if card.null_label not in (None, null):
            raise UsageError(f"metric is {variant!r}, and null_label {card.null_label!r}: say one")
        return MicroF1WithoutNull(null)
    if card.family == Family.TYPING:
        if told and not (told == _FALLBACK and card.fallback):
            raise UsageError(
                f"metric is {variant!r}: expected {name}, and fallback: true for the "
                "best type where none is predicted"
            )
        return known[name](card.fallback)
    if told and not (card.family == Family.QUESTION and told == "any-answer"):
        raise UsageError(f"metric is {variant!r}: expected {name}")
    return known[name]()


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
    if not text[start:end].strip():
        raise record.error(f"{what} is {text[start:end]!r}, which names nothing")
    score = values.get("score")
    if score is not None and not _is_share(score):
        raise record.error(f"{what}.score is {score!r}, no number from 0 to 1")
    entity, role = values.get("entity"), values.get("role", Role.CONTEXT)
    if entity is not None and (not isinstance(entity, str) or not entity):
        raise record.error(f"{what}.entity is {entity!r}, neither text nor null")
    if role not in list(Role):
        raise record.error(f"{what}.role is {role!r}{nearest(str(role), Role)}")
    return Mention(start, end, entity, Role(role), None if score is None else float(score))


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _question(name: str, record: Record, mentions: tuple[Mention, ...]) -> Example:
    text, answers = record["text"], record["answers"]
    if not answers or not all(answer.strip() for answer in answers):
        raise record.error("has an empty answer, or none")
    blank = record.values.get("blank")
    for mask in _MASKS:
        if blank is None and mask in text:
            raise record.error(
                f"spells {mask}, which is read as text: take it out, and give its place as blank"
            )
    if blank is None:
        text = text if text.endswith(" ") else f"{text} "
        blank = len(text)
    if not isinstance(blank, int) or isinstance(blank, bool) or not 0 <= blank <= len(text):
        raise record.error(f"blank is {blank!r}, no offset in its text of {len(text)} characters")
    return Example(name, text, mentions, tuple(answers), blank=blank)


def _several(label: Label) -> tuple[str, ...]:
    return (label,) if isinstance(label, str) else label
