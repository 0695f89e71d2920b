"""LAMA as a probe of the frozen backbone: cloze queries on single facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kbench.data import Example, Mention, Role, TaskCard
from kbench.data.files import canonical_digest
from kbench.data.records import Record
from kbench.data.sources import (
    find_folder,
    is_hub,
    read_records,
    read_text,
    stream_records,
    take_turns,
)
from kbench.errors import AbsentError, DataError, KbenchError
from kbench.metrics import Accuracy, LamaPrecision, Metric
from kbench.spec import OptionType
from kbench.task import ProbeTask, subject_of

if TYPE_CHECKING:
    from kbench.model import Head

__all__ = ["Lama"]

_SUBJECT, _OBJECT = "[X]", "[Y]"
_RELATION = {"relation": str, "template": str}
_SHARED = "common_vocab_cased.txt"
_OF_OBJECTS = "objects"

# Google-RE's templates lie in LAMA's code, not in its data.
_GOOGLE_RE = {
    "place_of_birth": "[X] was born in [Y] .",
    "date_of_birth": "[X] (born [Y]).",
    "place_of_death": "[X] died in [Y] .",
}


@dataclass(frozen=True)
class _Corpus:
    """A part of LAMA.

    Attributes:
        folder: with a file for each relation.
        ending: of the files' names.
        entity: key of the subject's Wikidata id.
        linked: whether every subject has one.
    """

    folder: str
    ending: str
    entity: str
    linked: bool

    @property
    def shape(self) -> dict[str, type]:
        """What a query must have."""
        shape: dict[str, type] = {"sub_label": str, "obj_label": str}
        return {**shape, self.entity: str} if self.linked else shape


_CORPORA = {
    "trex": _Corpus("TREx", ".jsonl", "sub_uri", linked=True),
    "google-re": _Corpus("Google_RE", "_test.jsonl", "sub_w", linked=False),
    # What scripts/create_lama_uhn.py of LAMA makes of them.
    "trex-uhn": _Corpus("TREx_UHN", ".jsonl", "sub_uri", linked=True),
    "google-re-uhn": _Corpus("Google_RE_UHN", "_test.jsonl", "sub_w", linked=False),
}


def _metrics(of_objects: bool) -> tuple[Metric, ...]:
    return LamaPrecision(of_objects), Accuracy(any_answer=True)


class Lama(ProbeTask):
    """LAMA: facts as sentences with a gap for the object, filled by the untuned backbone.

    Reads ``relations.jsonl``, ``{relation: "P19", template: "[X] was born in [Y] .", …}``, and
    ``TREx/P19.jsonl``, … with ``{sub_uri, sub_label, obj_label, …}``; a relation without a file
    is left out and counted. The option ``corpus`` is ``trex``, ``google-re``
    (``Google_RE/place_of_birth_test.jsonl``, … with ``{sub_w, sub_label, obj_label, judgments,
    …}``), or one of them without names that give the answer away, ``trex-uhn`` or
    ``google-re-uhn``. As in LAMA a fact is asked once, whatever the number of its evidences, and
    what Google-RE's judges refuse is left out; both are counted.

    A query is kept where its object is one token of the vocabulary, and P@1 is that of the release:
    right is the query's own object alone. Where the file knows several objects of a subject, they
    are queries of their own; ``accuracy`` takes any of them.

    The object is one token, and the answer the best of a vocabulary: the words of
    ``common_vocab_cased.txt``, if it is in the folder (option ``vocabulary``, the name of a
    file), else those of the objects themselves (``objects``). Its size is in ``counts``, and its
    kind in the variant of P@1, the mean over relations. ``accuracy`` is over queries.
    """

    card = TaskCard(
        title="LAMA",
        revision="2",
        licence="CC BY-NC 4.0",
        citation="Fabio Petroni, Tim Rocktäschel, Patrick Lewis, Anton Bakhtin, Yuxiang Wu, "
        "Alexander H. Miller and Sebastian Riedel: Language Models as Knowledge Bases?, "
        "EMNLP 2019",
        source="https://github.com/facebookresearch/LAMA (facts of T-REx and Google-RE)",
        obtain="the data folder of LAMA (https://dl.fbaipublicfiles.com/LAMA/data.zip) with "
        "relations.jsonl, TREx/P19.jsonl, … and Google_RE, and common_vocab_cased.txt beside "
        "them (https://dl.fbaipublicfiles.com/LAMA/common_vocab_cased.txt); "
        "`kbench fetch lama` brings it",
    )
    metrics: tuple[Metric, ...] = _metrics(of_objects=False)
    head_name = "kbench_tasks.lama:Lama"
    defaults: ClassVar[Mapping[str, float | int | str]] = {
        "corpus": "trex",
        "vocabulary": "common_vocab_cased.txt",
        "dev_share": 0.1,
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "corpus": OptionType("text", words=("trex", "google-re", "trex-uhn", "google-re-uhn")),
        "vocabulary": OptionType("text"),
        "dev_share": OptionType("number", least=0, below=1),
    }

    def __init__(
        self, data: str | None = None, options: Mapping[str, float | int | str] | None = None
    ) -> None:
        super().__init__(data, options)
        self._corpus = _CORPORA[str(self.options["corpus"])]
        with suppress(KbenchError):  # told when the data are read
            self.metrics = _metrics(self._vocabulary_file is None)

    def head(self, width: int) -> Head:
        """Returns the backbone's masked-LM head over the vocabulary."""
        from kbench.model.heads import VocabularyHead

        return VocabularyHead(self.vocabulary, before=self._before, first=True)

    def prompted_head(self, scorer: str) -> Head:
        """Returns the same for a model that reads from left to right."""
        from kbench.model.heads import VocabularyHead

        return VocabularyHead(self.vocabulary, before=self._before, first=True, prompt=self.prompt)

    def questions(self) -> Sequence[Example]:
        """Reads all queries; relations take turns.

        Raises:
            DataError: a file is missing or malformed, or a template has not one [X] and one [Y].
        """
        self.counts["facts_asked_before"] = self.counts["facts_judged_wrong"] = 0
        groups = [self._queries(path, template) for path, template in self._files.items()]
        self.counts["relations"] = len(groups)
        return take_turns(groups)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The words that may be answered, sorted.

        Raises:
            DataError: their file, or that of a query, is missing or malformed.
        """
        path = self._vocabulary_file
        if path is None:
            words = {answer for example in self._questions for answer in example.label}
        else:
            words = set(read_text(path, "one word a line").splitlines())
        vocabulary = tuple(sorted({word.strip() for word in words} - {""}))
        self.counts[f"{'object' if path is None else 'shared'}_vocabulary_words"] = len(vocabulary)
        return vocabulary

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all queries and of the vocabulary."""
        return canonical_digest([super().digest, self.vocabulary])

    @property
    def form(self) -> dict[str, object]:
        words = canonical_digest([self.vocabulary, self._before])
        return {**super().form, "vocabulary": words}

    @cached_property
    def _before(self) -> tuple[str, ...]:
        """What stands before the objects."""
        return tuple(sorted({question.before_blank for question in self._questions}))

    @cached_property
    def _folder(self) -> Path:
        if not self.data or is_hub(self.data):
            raise AbsentError(
                f"LAMA needs --data DIR, a folder in its own layout: {self.card.obtain}"
            )
        return find_folder(self.data, self.card, "lama")

    @cached_property
    def _vocabulary_file(self) -> Path | None:
        name = str(self.options["vocabulary"])
        path = self._folder / name
        absent = name == _OF_OBJECTS or (name == _SHARED and not path.exists())
        return None if absent else path

    @cached_property
    def _files(self) -> dict[Path, str]:
        """The template of each file."""
        folder = self._folder / self._corpus.folder
        files = {
            folder / f"{relation}{self._corpus.ending}": template
            for relation, template in self._templates().items()
        }
        present = {path: template for path, template in files.items() if path.exists()}
        if not present:
            names = ", ".join(path.name for path in [*files][:3])
            raise DataError(folder, "has no file of queries", f"{names}, …")
        self.counts["relations_without_file"] = len(files) - len(present)
        return present

    def _templates(self) -> dict[str, str]:
        if not self._corpus.linked:
            return _GOOGLE_RE
        templates: dict[str, str] = {}
        for record in read_records(self._folder / "relations.jsonl", _RELATION):
            template, relation = record["template"].strip(), record["relation"]
            if template.count(_SUBJECT) != 1 or template.count(_OBJECT) != 1:
                raise record.error(
                    f"the template {template!r} has not one {_SUBJECT} and one {_OBJECT}"
                )
            if relation in templates:
                raise record.error(f"has the relation {relation}, which another record has")
            templates[relation] = template
        return templates

    def _queries(self, path: Path, template: str) -> list[Example]:
        relation = path.name.removesuffix(self._corpus.ending)
        asked: set[tuple[str, str]] = set()
        objects: dict[str, list[str]] = {}
        examples = []
        for number, record in enumerate(stream_records(path, self._corpus.shape)):
            fact = (record["sub_label"].strip(), record["obj_label"].strip())
            if not all(fact):
                raise record.error("has an empty subject or object")
            wrong = _judged_wrong(record)
            if wrong or fact in asked:
                self.counts["facts_judged_wrong" if wrong else "facts_asked_before"] += 1
                continue
            asked.add(fact)
            entity = _entity(record, self._corpus.entity)
            text, mention, blank = _filled(template, fact[0], entity)
            name = f"{relation}/{number}"
            examples.append(Example(name, text, (mention,), fact[1:], blank, stratum=relation))
            objects.setdefault(subject_of(examples[-1]), []).append(fact[1])
        return [_with_others(example, objects[subject_of(example)]) for example in examples]


def _with_others(example: Example, objects: Sequence[str]) -> Example:
    """Returns a query with all objects of its subject for answers, its own first."""
    return replace(example, label=tuple(dict.fromkeys((*example.label, *objects))))


def _filled(template: str, subject: str, entity: str | None) -> tuple[str, Mention, int]:
    """Puts the subject into a template and takes the object out.

    Returns:
        The text, the subject's mention, and the place of the object.
    """
    start, blank = template.index(_SUBJECT), template.index(_OBJECT)
    if start < blank:
        blank += len(subject) - len(_SUBJECT)
    else:
        start -= len(_OBJECT)
    text = template.replace(_OBJECT, "").replace(_SUBJECT, subject)
    return text, Mention(start, start + len(subject), entity, Role.TARGET), blank


def _entity(record: Record, key: str) -> str | None:
    """The subject's id; Google-RE has none for some."""
    entity = record.values.get(key)
    if entity is not None and not isinstance(entity, str):
        raise record.error(f"{key} is {entity!r}, neither text nor null")
    return entity or None


def _judged_wrong(record: Record) -> bool:
    """Whether more of Google-RE's judges refuse a fact than accept it."""
    judgments = record.values.get("judgments", [])
    if not isinstance(judgments, list) or not all(
        isinstance(one, dict) and isinstance(one.get("judgment"), str) for one in judgments
    ):
        raise record.error("judgments is no list of {judgment: text}")
    accepted = [one["judgment"] == "yes" for one in judgments]
    return accepted.count(False) > accepted.count(True)
