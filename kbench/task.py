"""Tasks: a data set with labels, a head and metrics, of one of three families.

Free of torch until a head is asked for.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kbench.data import (
    NONE_OF_THE_ABOVE,
    Example,
    Lists,
    Options,
    Prompt,
    Role,
    Size,
    Split,
    TaskCard,
    Verdicts,
    digest_examples,
)
from kbench.data.files import canonical_digest
from kbench.errors import Unsupported, UsageError
from kbench.metrics import (
    Accuracy,
    Hits,
    LooseMacroF1,
    LooseMicroF1,
    Metric,
    MicroF1WithoutNull,
    ReciprocalRank,
    StrictAccuracy,
    Within,
)
from kbench.metrics.spoken import ranked_metrics, spoken_metrics
from kbench.spec import OptionType, check_values

if TYPE_CHECKING:
    from kbench.model import Head

__all__ = [
    "Family",
    "ProbeTask",
    "QuestionTask",
    "RelationTask",
    "Size",
    "Task",
    "TaskCard",
    "TypingTask",
    "subject_of",
]


class Family(StrEnum):
    """What a task asks of a model."""

    TYPING = "entity typing"
    RELATION = "relation classification"
    QUESTION = "question answering"


class Task(ABC):
    """A data set with labels, a head, and metrics.

    Subclass one of the families, give a ``card`` and implement :meth:`load`.

    Args:
        data: value of ``--data``: a folder in the published layout, ``hf:REPOSITORY[@REVISION]``,
            or None.
        options: parameters of the task, such as a link threshold.

    Attributes:
        metrics: the main metric first.
        markers: words set around a mention of each role, with and without knowledge. Where they
            are the family's own, another sign takes the place of one that the vocabulary lacks
            (:func:`kbench.encoding.known_markers`); those that a task states are refused then.
        prompt: how an example is put to a model that reads from left to right; None where it
            cannot be.
        ways: other prompts, by the value of the option ``ask`` that takes one in the place of
            ``prompt``, whose words for labels it keeps.
        max_length: tokens of an input, specials included.
        answer_room: tokens that an answer may take after a prompt; where there are any, the prompt
            may be as long as the window leaves it, and is never cut.
        linking: default linker: ``gold`` (ids of the data) or ``title`` (exact label).
        head_name: of the head, in the address of every downstream model. A class that defines
            :meth:`head` and gives no name has ``module:Class``, so that two heads never share one.
        tuning: that it is run with where none is asked for.
        decoder_tuning: the same for models that read from left to right.
        recipes: how it is tuned, where that was published of this task: by tuning, fields of the
            recipe that take the place of the tuning's own for the family, such as
            ``{"full": {"epochs": 10, "warmup": 0.1}}``.
        defaults: the options and their default values.
        option_types: what an option may be, where its default does not tell.
        counts: what loading kept and dropped, by name; filled by :meth:`load`.
        link_threshold: the confidence that links of the data must have; None if they have none.
        card_keys: what a card beside the data may say, in words, where the task reads one.
    """

    card: ClassVar[TaskCard]
    family: ClassVar[Family]
    metrics: tuple[Metric, ...]
    markers: ClassVar[Mapping[Role, str]]
    prompt: ClassVar[Prompt | None] = None
    ways: ClassVar[Mapping[str, Prompt]] = {}
    max_length: ClassVar[int] = 128
    answer_room: int = 0
    linking: ClassVar[str] = "gold"
    head_name: ClassVar[str]
    tuning: ClassVar[str] = "full"
    decoder_tuning: ClassVar[str] = "prompted"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    defaults: ClassVar[Mapping[str, float | int | str]] = {}
    option_types: ClassVar[Mapping[str, OptionType]] = {}
    link_threshold: float | None = None
    card_keys: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "head" in vars(cls) and "head_name" not in vars(cls):
            cls.head_name = f"{cls.__module__}:{cls.__qualname__}"

    def __init__(
        self, data: str | None = None, options: Mapping[str, float | int | str] | None = None
    ) -> None:
        self.data = data
        chosen = {**self.defaults, **(options or {})}
        self.options = check_values(chosen, self.defaults, self.option_types, self.card.title)
        way = self.ways.get(str(self.options.get("ask")))
        if way is not None and self.prompt is not None:
            self.prompt = replace(way, words=self.prompt.words)  # type: ignore[misc]
            self.answer_room = way.room
        self.counts: dict[str, int] = {}
        self._splits: dict[Split, Sequence[Example]] = {}

    @abstractmethod
    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split.

        Raises:
            DataError: a file is missing or malformed.
        """

    @abstractmethod
    def head(self, width: int) -> Head:
        """Returns an untrained head over hidden states of ``width``."""

    @cached_property
    def asked(self) -> Prompt | None:
        """:attr:`prompt` as it is asked of these data: with their labels, where it lists them."""
        return self.prompt

    def prompted_head(self, scorer: str) -> Head | None:
        """Returns the head of a model that is asked by the task's prompt; None if it has none.

        Args:
            scorer: how answers of different length are compared
                (:mod:`kbench.model.candidates`).
        """
        return None

    def shows(self, example: Example) -> Mapping[str, str]:
        """Returns the classes that an example shows where it is a demonstration.

        As it stands its labels, each answered as the task's prompt does: what is right of it, by
        what demonstrations are to differ in.
        """
        assert self.prompt is not None
        return {label: self.prompt.answer(example, label) for label in example.labels}

    def examples(self, split: Split) -> Sequence[Example]:
        """Returns a split, read once."""
        if split not in self._splits:
            self._splits[split] = tuple(self.load(split))
        return self._splits[split]

    def _some(self, holds: Callable[[Example], bool]) -> bool:
        """Whether something holds of an example of any split."""
        return any(holds(example) for split in Split for example in self.examples(split))

    def misfit(self, example: Example) -> str:
        """Returns what makes an example none of the task's as a whole; empty if nothing does.

        Each field may be right and all together wrong: roles that nothing is set around, a
        relation without its head, a question without a blank. A model would then learn from texts
        in which what is asked about is not shown, and score as by chance.
        """
        roles = {m.role for m in example.mentions} - {Role.CONTEXT, *self.markers}
        if roles:
            marked = ", ".join(self.markers) or "nothing"
            return f"has a mention of the role {min(roles)}, and {self.family} here marks {marked}"
        return ""

    @classmethod
    def metric_named(cls, variant: str) -> Metric | None:
        """Returns a metric that the class does not list and its data may ask for.

        So that a stored result can be scored again where its data are not.
        """
        return None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all splits: a task's data by content."""
        return digest_examples(e for split in Split for e in self.examples(split))

    @cached_property
    def training_digest(self) -> str:
        """SHA-256 of train and dev: all that a downstream model is made of."""
        return digest_examples(e for s in (Split.TRAIN, Split.DEV) for e in self.examples(s))

    @property
    def form(self) -> dict[str, object]:
        """What shapes a downstream model beside the examples: inputs and head.

        Tasks that share form, train and dev share their downstream models and plugs.
        """
        return {
            "family": str(self.family),
            "head": self.head_name,
            "markers": {str(role): marker for role, marker in sorted(self.markers.items())},
            "max_length": self.max_length,
        }

    @property
    def states_markers(self) -> bool:
        """Whether its markers are its own, and not those of its family."""
        return all(self.markers is not kind.markers for kind in _FAMILIES)

    @property
    def null_labels(self) -> frozenset[str]:
        """The labels that say that nothing holds: by themselves they tell nothing."""
        nulls = {m.null for m in self.metrics if isinstance(m, MicroF1WithoutNull)}
        return frozenset({NONE_OF_THE_ABOVE, *nulls})

    @property
    def main_metric(self) -> Metric:
        """The metric that selects on dev and ranks on test."""
        return self.metrics[0]


class _LabelledTask(Task):
    """A task over a closed set of classes, those of its training split unless given.

    In every example one mention has each of the roles that are marked.
    """

    def misfit(self, example: Example) -> str:
        found = Counter(mention.role for mention in example.mentions)
        for role in self.markers:
            if role != Role.CONTEXT and found[role] != 1:
                return f"has {found[role] or 'no'} mentions of the role {role}, not one"
        if example.blank is not None:
            return "has a blank, which only questions have"
        return super().misfit(example)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The class names, sorted."""
        labels: set[str] = set()
        for example in self.examples(Split.TRAIN):
            labels.update(example.labels)
        return tuple(sorted(labels))


class TypingTask(_LabelledTask):
    """Entity typing: which of many classes does the marked mention have? Labels are sets.

    Decoders are asked by the name of each type, or, with ``ask=yes-no``, whether it holds.

    Attributes:
        fallback: whether the best type is predicted where no logit is above 0.
    """

    family = Family.TYPING
    head_name = "kbench.task:TypingTask"
    fallback: bool = False
    metrics: tuple[Metric, ...] = (LooseMicroF1(), LooseMacroF1(), StrictAccuracy())
    markers: ClassVar[Mapping[Role, str]] = {Role.TARGET: "$"}
    prompt: ClassVar[Prompt | None] = Prompt("{text} {target} is a", nothing="it is a")
    ways: ClassVar[Mapping[str, Prompt]] = {
        "yes-no": Verdicts("{text} Is {target} a", nothing="Is it a"),
        "list": Lists(
            "{text} Which of these is {target}: {labels}? Answer:", nothing="Which is it? Answer:"
        ),
    }
    defaults: ClassVar[Mapping[str, float | int | str]] = {"ask": "name"}
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "ask": OptionType("text", words=("name", "yes-no", "list"))
    }

    def misfit(self, example: Example) -> str:
        if isinstance(example.label, str):
            return f"has the label {example.label!r}, no set of types"
        return super().misfit(example)

    def head(self, width: int) -> Head:
        """Returns a linear layer on the pooled output with one logit a type."""
        from kbench.model.heads import TypingHead

        return TypingHead(width, self.labels, self.fallback)

    def prompted_head(self, scorer: str) -> Head | None:
        """Returns the types as candidates, and a threshold that dev chooses.

        With ``ask=list`` one that writes the types.
        """
        from kbench.model.candidates import TypeCandidateHead
        from kbench.model.choices import VerdictHead
        from kbench.model.listing import ListHead

        prompt = self.asked
        if prompt is None:
            return None
        if isinstance(prompt, Lists):
            return ListHead(prompt, self.answer_room)
        if isinstance(prompt, Verdicts):
            return VerdictHead(self.labels, prompt, scorer, fallback=self.fallback)
        return TypeCandidateHead(self.labels, prompt, scorer, self.fallback)

    def shows(self, example: Example) -> Mapping[str, str]:
        """Returns its types; where each is asked about, one that it has and one that it lacks."""
        prompt = self.prompt
        if not isinstance(prompt, Verdicts):
            return super().shows(example)
        classes = {}
        for holds in (False, True):
            own = [label for label in self.labels if (label in example.labels) == holds]
            if own:
                # Not the first: it would be the same of nearly all.
                chosen = own[int(_digest(example.id)[:8], 16) % len(own)]
                classes[str(holds)] = prompt.verdict(chosen, holds)
        return classes

    @cached_property
    def asked(self) -> Prompt | None:
        prompt = self.prompt  # the data are not there yet where one is looked at that names none
        return prompt.of(self.labels) if isinstance(prompt, Lists) else prompt

    @property
    def form(self) -> dict[str, object]:
        return {**super().form, "fallback": self.fallback}


class RelationTask(_LabelledTask):
    """Relation classification: which relation holds between head and tail? One label.

    Decoders are asked by the name of each relation (by its statement, where the prompt has any),
    or, with ``ask=letters``, for the letter of one in a list of all.
    """

    family = Family.RELATION
    head_name = "kbench.task:RelationTask"
    metrics: tuple[Metric, ...] = (Accuracy(),)
    markers: ClassVar[Mapping[Role, str]] = {Role.HEAD: "#", Role.TAIL: "$"}
    prompt: ClassVar[Prompt | None] = Prompt(
        "{text} The relation between {head} and {tail} is", nothing="The relation between them is"
    )
    ways: ClassVar[Mapping[str, Prompt]] = {
        "letters": Options(
            "{text} What is the relation between {head} and {tail}?",
            nothing="What is the relation between them?",
        )
    }
    defaults: ClassVar[Mapping[str, float | int | str]] = {"ask": "name"}
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "ask": OptionType("text", words=("name", "letters"))
    }

    @property
    def form(self) -> dict[str, object]:
        return {**super().form, **({"joined": True} if self._joined else {})}

    @cached_property
    def _joined(self) -> bool:
        """Whether the statements of some example follow its text without a blank."""
        asked = self.prompt
        if asked is None or not asked.statements or asked.closed:
            return False
        return self._some(asked.joins)

    def misfit(self, example: Example) -> str:
        if not isinstance(example.label, str):
            return f"has the labels {', '.join(example.label)}, not the name of one relation"
        return super().misfit(example)

    def head(self, width: int) -> Head:
        """Returns a linear layer on the pooled output with one logit a relation."""
        from kbench.model.heads import RelationHead

        return RelationHead(width, self.labels)

    def prompted_head(self, scorer: str) -> Head | None:
        """Returns the relations as candidates, or statements of them where the prompt has any."""
        from kbench.model.candidates import CandidateHead
        from kbench.model.choices import LetterHead
        from kbench.model.statements import StatementHead

        if self.prompt is None:
            return None
        if isinstance(self.prompt, Options):
            return LetterHead(self.labels, self.prompt, scorer)
        kind = StatementHead if self.prompt.statements else CandidateHead
        return kind(self.labels, self.prompt, scorer)

    def shows(self, example: Example) -> Mapping[str, str]:
        """Returns its relation; where a letter is asked for, behind one of the two lists."""
        prompt, label = self.prompt, str(example.label)
        if not isinstance(prompt, Options) or label not in self.labels:
            return super().shows(example)
        # Of half of the examples each: else a relation would be shown by one letter alone.
        turned = bool(int(_digest(example.id)[:1], 16) % 2)
        return {label: prompt.lettered(self.labels, label, turned=turned)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_NAME = 32
"""Tokens of the name of a candidate at most."""


class QuestionTask(Task):
    """Question answering; the label is the tuple of acceptable answers. Three ways to answer.

    ``answers=token``, at ``[MASK]`` or where the text ends: an example is kept where some answer is
    one token of the backbone, as its tokenizer spells the answer at the blank; a model is tuned on
    the first such answer, and right by any (the map-tuning release lower-cases all answers, and
    takes the first for the only one). How many were kept of how many stands beside every score.

    ``answers=open``, by models that read from left to right: the answer is said in the model's own
    words, of up to ``tokens`` tokens. ``answers=ranked``, by the same: the answers of train to
    questions of the same relation are ranked, the ``candidates`` most frequent of them; or, where
    ``objects`` is the folder of a knowledge base, its objects of that relation, those of the most
    facts first. No question is left out because its answer has several tokens.

    Attributes:
        asks: the prompt where it is another than the text before the blank.
        one_thing: whether all answers of a question are names of one thing, and so one candidate;
            else each is a thing of its own.
        facts: what knowledge bases call the relation of a question, by its id or its text, where
            they call it otherwise.
        way: how it is answered; always at one token where a task has no option ``answers``.
    """

    family = Family.QUESTION
    head_name = "kbench.task:QuestionTask"
    metrics: tuple[Metric, ...] = (Accuracy(any_answer=True),)
    markers: ClassVar[Mapping[Role, str]] = {Role.TARGET: "$"}
    prompt: ClassVar[Prompt | None] = Prompt("{before}")
    asks: ClassVar[Prompt | None] = None
    one_thing: ClassVar[bool] = True
    facts: ClassVar[Mapping[str, str]] = {}
    max_length = 64
    defaults: ClassVar[Mapping[str, float | int | str]] = {
        "answers": "token",
        "tokens": 15,
        "candidates": 128,
        "objects": "",
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "answers": OptionType("text", words=("token", "open", "ranked")),
        "tokens": OptionType("whole number", least=1),
        "candidates": OptionType("whole number", least=2),
    }
    way: str = "token"
    _whose: ClassVar[str] = "train"

    def __init__(
        self, data: str | None = None, options: Mapping[str, float | int | str] | None = None
    ) -> None:
        super().__init__(data, options)
        self._answered(str(self.options.get("answers", self.way)))

    def _answered(self, way: str) -> None:
        """Takes up the way in which questions are answered.

        Raises:
            UsageError: it ranks nothing, and a knowledge base is given whose objects to rank.
        """
        self.way = way
        if self.options.get("objects") and way != "ranked":
            raise UsageError(
                f"objects is {self.options['objects']!r}, a knowledge base whose objects are to be "
                f"ranked, and answers is {way}; expected answers=ranked, or no objects"
            )
        self.prompt = self.asks or self.prompt  # type: ignore[misc]
        if way == "token":
            return
        self.answer_room = int(self.options["tokens"]) if way == "open" else _NAME
        own = spoken_metrics() if way == "open" else ranked_metrics(self._among)
        parts = [metric.stratum for metric in self.metrics if isinstance(metric, Within)]
        self.metrics = (*own, *(Within(stratum, own[0]) for stratum in parts))

    @property
    def _among(self) -> str:
        whose = "objects" if self.options["objects"] else self._whose
        return f"{self.options['candidates']}-of-{whose}"

    @classmethod
    def metric_named(cls, variant: str) -> Metric | None:
        """Returns a metric of an open or ranked question, or of a stratum of them."""
        variant, _, stratum = variant.partition("@")
        spoken = {metric.variant: metric for metric in spoken_metrics()}
        ranked = {kind.title: kind for kind in (Hits, ReciprocalRank)}
        title, _, among = variant.partition(":")
        found = spoken.get(variant) or (ranked[title](among) if title in ranked else None)
        return Within(stratum, found) if found and stratum else found

    def misfit(self, example: Example) -> str:
        if example.blank is None:
            return "has no blank, the place of the answer"
        if isinstance(example.label, str) or not any(map(str.strip, example.label)):
            return f"has the label {example.label!r}, not the acceptable answers"
        return super().misfit(example)

    @property
    def form(self) -> dict[str, object]:
        if self.way == "token":
            # Answers were once spelled by the data's blank, wherever the prompt had them stand.
            return {**super().form, **({"spelled": "as asked"} if self._led_astray else {})}
        told = self.answer_room if self.way == "open" else canonical_digest(self.ranking)
        joined = {"joined": True} if self._joined else {}
        return {**super().form, "answers": [self.way, told], **joined}

    @cached_property
    def _joined(self) -> bool:
        """Whether the answer of some question follows without a blank."""
        asked = self.prompt
        if asked is None or not asked.ask.endswith("{before}"):
            return asked is not None and bool(asked.closed)
        return self._some(asked.joins)

    @cached_property
    def _led_astray(self) -> bool:
        """Whether some answer stands elsewhere in the prompt than in its text."""
        asked = self.prompt
        if asked is None or asked.closed or asked.ask == "{before}":
            return False
        return self._some(lambda example: asked.lead(example) != example.before_blank)

    @cached_property
    def ranking(self) -> dict[str, list[list[str]]]:
        """The candidates of each relation, the most frequent first; of each its names.

        Raises:
            DataError: the folder of ``objects`` is no knowledge base.
            InputError: it has no object of any relation that is asked for.
        """
        return self._objects() if self.options["objects"] else self._answers()

    def _objects(self) -> dict[str, list[list[str]]]:
        """Objects in a knowledge base; of a relation that it lacks, the answers."""
        from kbench.knowledge import Bundle
        from kbench.knowledge.objects import objects_of

        spelled: dict[str, set[str]] = {}
        for example in self._known():
            answers = (name for name in example.labels if name.strip())
            spelled.setdefault(example.relation, set()).update(answers)
        called = {relation: self.facts.get(relation, relation) for relation in spelled}
        base = Bundle(Path(str(self.options["objects"])).expanduser())
        found = objects_of(base, called, spelled, int(self.options["candidates"]))
        self.counts["relations_without_objects"] = len(called) - len(found)
        return dict(sorted({**self._answers(), **found}.items()))

    def _answers(self) -> dict[str, list[list[str]]]:
        """Answers to the questions that are known."""
        counted: dict[str, Counter[tuple[str, ...]]] = {}
        for example in self._known():
            names = tuple(dict.fromkeys(name for name in example.labels if name.strip()))
            things = [names] if self.one_thing else [(name,) for name in names]
            counted.setdefault(example.relation, Counter()).update(filter(None, things))
        most = int(self.options["candidates"])
        return {
            relation: [
                list(names)
                for names, _ in sorted(own.items(), key=lambda each: (-each[1], each[0]))[:most]
            ]
            for relation, own in sorted(counted.items())
        }

    def _known(self) -> Sequence[Example]:
        """The questions whose answers are candidates."""
        return self.examples(Split.TRAIN)

    def head(self, width: int) -> Head:
        """Returns the backbone's masked-LM head, read at the blank.

        Raises:
            Unsupported: questions are to be answered otherwise.
        """
        from kbench.model.heads import BlankHead

        if self.way != "token":
            raise Unsupported(
                f"{self.card.title} with answers={self.way} is for models that read from left to "
                "right and are asked by a prompt (tuning prompted, full, lora or bitfit); take "
                "answers=token for others"
            )
        return BlankHead()

    def shows(self, example: Example) -> Mapping[str, str]:
        """Returns the first answer, by the relation of the question, or by itself without one."""
        first = example.labels[0]
        return {example.relation or first: first}

    def prompted_head(self, scorer: str) -> Head | None:
        """Returns the backbone's own head, which says what comes next where the blank is."""
        from kbench.model.answering import RankedHead, SpokenHead
        from kbench.model.heads import BlankHead

        if self.prompt is None:
            return None
        if self.way == "open":
            return SpokenHead(self.prompt, self.answer_room)
        if self.way == "ranked":
            ranking, joined = self.ranking, self._joined
            return RankedHead(self.prompt, self.answer_room, ranking, scorer, joined=joined)
        return BlankHead(self.prompt)


_FAMILIES: tuple[type[Task], ...] = (TypingTask, RelationTask, QuestionTask)


class ProbeTask(QuestionTask):
    """Questions to the backbone as it was pre-trained: what does it know without being tuned?

    There is no training split. What must be chosen (PELT's norm) is chosen on dev, a share of the
    subjects that is held out by their digest: no subject of dev is asked about in test, and
    whether one is held out depends on no other. The mention is not marked, since a marker that
    nothing was tuned to read is noise.

    Give a ``card`` and implement :meth:`questions`. The option ``dev_share`` is the share held
    out; at 0 all questions are tested, and methods with something to choose are skipped.
    """

    tuning = "frozen"
    _whose = "all"
    markers: ClassVar[Mapping[Role, str]] = {}
    defaults: ClassVar[Mapping[str, float | int | str]] = {
        **QuestionTask.defaults,
        "dev_share": 0.1,
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        **QuestionTask.option_types,
        "dev_share": OptionType("number", least=0, below=1),
    }

    def __init__(
        self, data: str | None = None, options: Mapping[str, float | int | str] | None = None
    ) -> None:
        super().__init__(data, options)
        self._dev_share = float(self.options["dev_share"])

    def misfit(self, example: Example) -> str:
        if not example.mentions:
            return "has no mention, of which the first is its subject"
        # Nothing is marked, whatever the role.
        bare = replace(example, mentions=())
        return super().misfit(bare)

    @abstractmethod
    def questions(self) -> Sequence[Example]:
        """Reads all questions. The subject of each is its first mention.

        Raises:
            DataError: a file is missing or malformed.
        """

    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split; that of training is empty.

        Raises:
            DataError: a file is missing or malformed.
        """
        held = Split.DEV if split == Split.DEV else Split.TEST
        questions = [e for e in self._questions if self._split(e) == held]
        return questions if split != Split.TRAIN else ()

    def _known(self) -> Sequence[Example]:
        """All questions: there is no train."""
        return self._questions

    @cached_property
    def training_digest(self) -> str:
        """That of nothing: whatever the questions, the model is the same."""
        return digest_examples(())

    @cached_property
    def _questions(self) -> tuple[Example, ...]:
        return tuple(self.questions())

    def _split(self, example: Example) -> Split:
        return self.split_of(subject_of(example))

    def split_of(self, subject: str) -> Split:
        """Returns the split, dev or test, in which a subject is asked about."""
        content = subject.encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.sha256(content).digest()[:8])
        return Split.DEV if number < self._dev_share * 2**64 else Split.TEST


def subject_of(example: Example) -> str:
    """Returns whom a question is about: the entity of its first mention, else its text."""
    mention = example.mentions[0]
    return mention.entity or example.text[mention.start : mention.end]
