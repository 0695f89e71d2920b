"""PopQA as a probe of the frozen backbone, by the popularity of the subject."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

from kbench.data import Example, Mention, Prompt, Role, Split, TaskCard
from kbench.data.records import Record
from kbench.data.sources import find_folder, hub_records, is_hub, read_table
from kbench.metrics import Accuracy, Metric, Within
from kbench.task import ProbeTask

__all__ = ["STRATA", "PopQA", "stratum"]

_ROW = {"question": str, "subj": str, "s_uri": str, "s_pop": int, "possible_answers": str}
_FILES = ("popQA.tsv", "test.tsv")
_GAP = "[X]"
_ENTITY = re.compile(r"Q[1-9][0-9]*")

STRATA = ("pop_under_1e2", "pop_1e2", "pop_1e3", "pop_1e4", "pop_from_1e5")
"""Popularities of the subject, in page views a month: ``pop_1e3`` is 1,000 to below 10,000."""

# Of the data set's 16 relations, as its paper has them, and what Wikidata calls these.
_TEMPLATES = {
    "What is [X]'s occupation?": "P106",
    "In what city was [X] born?": "P19",
    "What genre is [X]?": "P136",
    "Who is the father of [X]?": "P22",
    "In what country is [X]?": "P17",
    "Who was the producer of [X]?": "P162",
    "Who was the director of [X]?": "P57",
    "What is [X] the capital of?": "P1376",
    "Who was the screenwriter for [X]?": "P58",
    "Who was the composer of [X]?": "P86",
    "What color is [X]?": "P462",
    "What is the religion of [X]?": "P140",
    "What sport does [X] play?": "P641",
    "Who is the author of [X]?": "P50",
    "Who is the mother of [X]?": "P25",
    "What is the capital of [X]?": "P36",
}


class PopQA(ProbeTask):
    """PopQA: questions on long-tail entities, answered at [MASK] by the untuned backbone.

    Reads ``popQA.tsv`` (or the hub's ``test.tsv``), a table of which the columns ``question``,
    ``subj``, ``s_uri``, ``s_pop`` and ``possible_answers`` (a JSON list) count. The subject is
    found by the templates of the 16 relations, else where its name occurs once; a question
    without is dropped and counted (``questions_without_subject``). Its gold entity is that of
    ``s_uri``.

    The input is the question, a blank and ``[MASK]``, as in EntityQuestions: a question is kept
    where some answer is one token of the backbone, and every possible answer is right. Accuracy
    is given for all and for each power of ten of the subject's popularity
    (``accuracy_pop_1e3``: from 1,000 to below 10,000 page views a month). Not comparable with the
    figures of generative models, which answer all questions, in as many words as they like: those
    take ``answers=open``, which asks ``Q: … A:`` as the paper does.
    """

    card = TaskCard(
        title="PopQA",
        revision="1",
        licence="not stated by its publishers (MIT for the code)",
        citation="Alex Mallen, Akari Asai, Victor Zhong, Rajarshi Das, Daniel Khashabi and "
        "Hannaneh Hajishirzi: When Not to Trust Language Models: Investigating "
        "Effectiveness of Parametric and Non-Parametric Memories, ACL 2023",
        source="https://github.com/AlexTMallen/adaptive-retrieval (facts of Wikidata)",
        obtain="a folder with popQA.tsv of the data folder of "
        "https://github.com/AlexTMallen/adaptive-retrieval, or test.tsv of hf:akariasai/PopQA "
        "(`kbench fetch popqa` brings it)",
    )
    asks = Prompt("Q: {before} A:", nothing="A:")
    facts = _TEMPLATES
    metrics: tuple[Metric, ...] = (
        Accuracy(any_answer=True),
        *(Within(name, Accuracy(any_answer=True)) for name in STRATA),
    )

    def questions(self) -> Sequence[Example]:
        """Reads all questions.

        Raises:
            DataError: the file is missing or malformed.
        """
        records = self._records()
        made = [_example(f"popqa/{number}", record) for number, record in enumerate(records)]
        examples = [example for example in made if example is not None]
        self.counts["questions"] = len(records)
        self.counts["questions_without_subject"] = len(records) - len(examples)
        asked = Counter(self.split_of(_entity(record)) for record in records)
        self.counts |= {f"{split}_total": asked[split] for split in (Split.DEV, Split.TEST)}
        return examples

    def _records(self) -> list[Record]:
        if is_hub(self.data):
            return hub_records(self.data, "test", _ROW)
        folder = find_folder(self.data, self.card, "popqa")
        paths = [folder / name for name in _FILES]
        return read_table(next((path for path in paths if path.exists()), paths[0]), _ROW)


def stratum(popularity: int) -> str:
    """Returns the stratum of a popularity, in page views a month."""
    digits = len(str(popularity))
    return STRATA[min(max(digits - 2, 0), len(STRATA) - 1)]


def _example(name: str, record: Record) -> Example | None:
    """Returns the example of a question, or None if its subject is not found in it."""
    answers, entity = _answers(record), _entity(record)
    if not _ENTITY.fullmatch(entity):
        raise record.error(f"s_uri is {record['s_uri']!r}, which ends in no Wikidata id")
    if record["s_pop"] < 0:
        raise record.error(f"s_pop is {record['s_pop']}, below 0")
    start = _start(record["question"], record["subj"])
    if start < 0:
        return None
    target = Mention(start, start + len(record["subj"]), entity, Role.TARGET)
    text = f"{record['question']} "
    views, relation = stratum(record["s_pop"]), _relation(record["question"], record["subj"])
    return Example(
        name, text, (target,), answers, blank=len(text), stratum=views, relation=relation
    )


def _entity(record: Record) -> str:
    return str(record["s_uri"]).rpartition("/")[2]


def _answers(record: Record) -> tuple[str, ...]:
    try:
        answers = json.loads(record["possible_answers"])
    except (ValueError, RecursionError) as cause:
        raise record.error(f"possible_answers is no JSON list ({cause})") from None
    if not isinstance(answers, list) or not answers:
        raise record.error("possible_answers is no JSON list with content")
    if not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise record.error("possible_answers has an item that is no text, or empty text")
    return tuple(answers)


def _relation(question: str, subject: str) -> str:
    """The template of a question, which tells its relation; empty if it has another form."""
    made = (template for template in _TEMPLATES if question == template.replace(_GAP, subject))
    return next(made, "")


def _start(question: str, subject: str) -> int:
    """The first character of the subject in a question; -1 if it is not there, or unclear."""
    if subject.strip():
        for template in _TEMPLATES:
            if question == template.replace(_GAP, subject):
                return template.index(_GAP)
        if question.count(subject) == 1:
            return question.index(subject)
    return -1
