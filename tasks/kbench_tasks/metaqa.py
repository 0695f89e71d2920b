"""MetaQA as questions answered at ``[MASK]``: of one fact, and of two in a row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from kbench.data import Example, Mention, Prompt, Role, Split, TaskCard
from kbench.data.sources import find_folder, is_hub, read_text
from kbench.errors import DataError, UsageError, nearest
from kbench.metrics import Accuracy, Metric, Within
from kbench.task import QuestionTask

__all__ = ["RELATIONS", "MetaQA", "MetaQA2Hop"]

_ROWS = "one `question about [an entity] TAB answer|answer …` a line"
_KINDS = "the kind of the question in the same line of the other file"
_CHOICES = ("all", "new")

RELATIONS: Mapping[str, str] = {
    "movie_to_director": "directed_by",
    "movie_to_writer": "written_by",
    "movie_to_actor": "starred_actors",
    "movie_to_year": "release_year",
    "movie_to_language": "in_language",
    "movie_to_tags": "has_tags",
    "movie_to_genre": "has_genre",
    "movie_to_imdbvotes": "has_imdb_votes",
    "movie_to_imdbrating": "has_imdb_rating",
}
"""The kinds of questions that ask for the tail of a fact, and its relation in the graph."""

# Those whose answers are words, not names: the others are hardly ever one token.
_MEASURED = ("release_year", "in_language", "has_genre", "has_tags")


@dataclass(frozen=True)
class _Question:
    """A question with the entity it asks about."""

    example: Example
    entity: str
    kind: str


class MetaQA(QuestionTask):
    """MetaQA, 1-hop: questions on one fact of a film, or for the films of a fact.

    Reads the release, ``1-hop/vanilla/qa_train.txt``, ``qa_dev.txt``, ``qa_test.txt`` with a
    ``question about [an entity] TAB answer|answer …`` a line and
    ``1-hop/qa_train_qtype.txt``, … with the kind of the question in the same line; or the same
    files as ``1-hop-train.txt``, ``1-hop-train-qtype.txt``, … in one folder. Where there is no
    train, four fifths of the entities that dev asks about are train with all their questions, and
    one fifth stays dev (option ``split_seed``); ``train_out_of_dev`` counts them. Where there are
    no kinds, ``…_without_kind`` does.

    The mention is what stands in brackets, which are taken away, and its id is the name itself:
    in MetaQA an entity is its name, and films of one title are one entity (the importer of the
    same name counts them). As in EntityQuestions the input is the question, a blank and
    ``[MASK]``; which answers are one token is up to the backbone: years, languages, genres, some
    tags. Any of a question's answers is right.

    The published splits are not disjoint by entity: ``…_about_known`` counts the questions about
    whom train (for test, train or dev) asks too, and ``…_asked_before`` those of the same kind
    about the same. ``--set task.metaqa.entities=new`` leaves both out. A cut dev is disjoint from
    its train.
    """

    hops: ClassVar[int] = 1
    facts = RELATIONS
    asks = Prompt("Q: {before} A:", nothing="A:")
    one_thing = False
    card = TaskCard(
        title="MetaQA 1-hop (where there is no train, 4/5 of dev is train; test shares entities "
        "with it)",
        revision="1",
        licence="CC BY 3.0",
        citation="Yuyu Zhang, Hanjun Dai, Zornitsa Kozareva, Alexander J. Smola and Le Song: "
        "Variational Reasoning for Question Answering with Knowledge Graph, AAAI 2018",
        source="https://github.com/yuyuz/MetaQA (made from WikiMovies)",
        obtain="the folder of https://github.com/yuyuz/MetaQA with 1-hop/vanilla/qa_train.txt, "
        "1-hop/qa_train_qtype.txt, … (or 1-hop-dev.txt, 1-hop-dev-qtype.txt, 1-hop-test.txt, …); "
        "`kbench fetch metaqa` brings it without the kinds of the questions",
    )
    metrics: tuple[Metric, ...] = (
        Accuracy(any_answer=True),
        *(Within(name, Accuracy(any_answer=True)) for name in _MEASURED),
    )
    defaults: ClassVar[Mapping[str, float | int | str]] = {
        **QuestionTask.defaults,
        "entities": "all",
        "split_seed": 0,
    }

    def __init__(
        self, data: str | None = None, options: Mapping[str, float | int | str] | None = None
    ) -> None:
        super().__init__(data, options)
        given = str(self.options["entities"])
        if given not in _CHOICES:
            hint = nearest(given, _CHOICES)
            raise UsageError(f"entities is {given!r}: expected all or new{hint}")

    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split.

        Raises:
            DataError: a file is missing or malformed, or dev is too small to be split.
            UsageError: an address of the hub is given, where MetaQA does not lie.
        """
        questions = self._parts[split]
        self.counts[f"{split}_total"] = len(questions)
        if without := sum(not question.kind for question in questions):
            self.counts[f"{split}_without_kind"] = without
        if split is Split.TRAIN:
            if not self._has_train:
                self.counts["train_out_of_dev"] = len(questions)
            return [question.example for question in questions]
        return [question.example for question in self._told_apart(split, questions)]

    def _told_apart(self, split: Split, questions: Sequence[_Question]) -> Sequence[_Question]:
        """Counts what is asked of entities that splits before ask about; leaves it out if asked."""
        earlier = list(Split)[: list(Split).index(split)]
        before = [question for one in earlier for question in self._parts[one]]
        entities = {question.entity for question in before}
        asked = {(question.entity, question.kind) for question in before if question.kind}
        known = [question for question in questions if question.entity in entities]
        self.counts[f"{split}_about_known"] = len(known)
        self.counts[f"{split}_asked_before"] = sum((q.entity, q.kind) in asked for q in known)
        if self.options["entities"] == "all":
            return questions
        return [question for question in questions if question.entity not in entities]

    @cached_property
    def _folder(self) -> Path:
        if is_hub(self.data):
            raise UsageError(f"MetaQA needs --data DIR, a folder of files: {self.card.obtain}")
        return find_folder(self.data, self.card, "metaqa")

    @cached_property
    def _has_train(self) -> bool:
        return self._file(Split.TRAIN) is not None

    @cached_property
    def _parts(self) -> Mapping[Split, Sequence[_Question]]:
        parts = {split: self._read(split) for split in (Split.DEV, Split.TEST)}
        if self._has_train:
            return {Split.TRAIN: self._read(Split.TRAIN), **parts}
        return {**parts, **self._cut(parts[Split.DEV])}

    def _cut(self, questions: Sequence[_Question]) -> Mapping[Split, Sequence[_Question]]:
        """Parts questions by whom they ask about: four fifths of the entities, and one."""
        seed = int(self.options["split_seed"])
        entities = sorted(
            {question.entity for question in questions},
            key=lambda entity: hashlib.sha256(f"{seed}/{entity}".encode()).digest(),
        )
        held = {*entities[: -(-len(entities) // 5)]}
        if len(held) == len(entities):
            problem = f"asks about {entities[0]} alone: there is no train, and nothing is left of "
            raise DataError(self._folder, f"{problem}dev for it", "questions about two entities")
        return {
            Split.TRAIN: [question for question in questions if question.entity not in held],
            Split.DEV: [question for question in questions if question.entity in held],
        }

    def _file(self, split: Split) -> tuple[Path, Path] | None:
        """Returns where the questions of a split lie, and their kinds; None if nowhere."""
        release, flat = self._folder / f"{self.hops}-hop", f"{self.hops}-hop-{split}"
        places = (
            (release / "vanilla" / f"qa_{split}.txt", release / f"qa_{split}_qtype.txt"),
            (self._folder / f"{flat}.txt", self._folder / f"{flat}-qtype.txt"),
        )
        return next((place for place in places if place[0].exists()), None)

    def _read(self, split: Split) -> list[_Question]:
        place = self._file(split)
        if place is None:
            name = f"{self.hops}-hop/vanilla/qa_{split}.txt or {self.hops}-hop-{split}.txt"
            raise DataError(self._folder, f"has no {name}", self.card.obtain)
        path, beside = place
        rows = list(_lines(path, _ROWS))
        kinds = [kind.strip() for _, kind in _lines(beside, _KINDS)] if beside.exists() else None
        if kinds is not None and len(kinds) != len(rows):
            problem = f"has {len(kinds)} lines, and {path.name} has {len(rows)}"
            raise DataError(beside, problem, _KINDS)
        name = f"{self.hops}-hop/{split}"
        return [
            _question(f"{name}/{at}", path, number, line, kinds[at] if kinds else "")
            for at, (number, line) in enumerate(rows)
        ]


class MetaQA2Hop(MetaQA):
    """MetaQA, 2-hop: questions on a fact of what a first fact leads to.

    Read as ``metaqa`` is, from ``2-hop/vanilla/qa_train.txt``, … or ``2-hop-train.txt``, …. No
    single fact of the graph holds the answer: that a triple joins the entity with it
    (``test_facts_in_knowledge``) is by chance.
    """

    hops: ClassVar[int] = 2
    card = replace(
        MetaQA.card,
        title=MetaQA.card.title.replace("1-hop", "2-hop"),
        obtain=MetaQA.card.obtain.replace("1-hop", "2-hop"),
    )
    metrics: tuple[Metric, ...] = (Accuracy(any_answer=True),)


def _lines(path: Path, expected: str) -> Iterator[tuple[int, str]]:
    """Yields the numbered lines of a file but for empty ones; names may hold other line ends."""
    for number, line in enumerate(read_text(path, expected).split("\n"), 1):
        if bare := line.removesuffix("\r"):
            yield number, bare


def _question(name: str, path: Path, number: int, line: str, kind: str) -> _Question:
    asked, tab, listed = line.partition("\t")
    answers = tuple(answer.strip() for answer in listed.split("|"))
    if not tab or not all(answers):
        raise DataError(path, "has an empty answer, or none", _ROWS, number)
    start, end = asked.find("["), asked.rfind("]")
    entity = asked[start + 1 : end]
    if not 0 <= start < end or not entity or entity != entity.strip():
        raise DataError(path, "has no entity in brackets", _ROWS, number)
    text = f"{asked[:start]}{entity}{asked[end + 1 :]} "
    target = Mention(start, start + len(entity), entity, Role.TARGET)
    stratum = RELATIONS.get(kind, kind)
    example = Example(
        name, text, (target,), answers, blank=len(text), stratum=stratum, relation=kind
    )
    return _Question(example, entity, kind)
