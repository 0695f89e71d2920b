"""EntityQuestions as questions answered at ``[MASK]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from kbench.data import Example, Mention, Prompt, Role, Size, Split, TaskCard
from kbench.data.records import Record
from kbench.data.sources import (
    find_file,
    find_folder,
    group,
    hub_records,
    is_hub,
    read_json,
    read_records,
    take_turns,
)
from kbench.errors import DataError, UsageError, nearest
from kbench.task import QuestionTask

__all__ = ["EntityQuestions"]

_ROW = {"question": str, "answers": [str]}
_HUB_ROW = {**_ROW, "relation": str}
_TEMPLATES_FILE = "relation_query_templates.json"
_GAP = "[X]"
_ALL = "all"

# The published templates: they lie in the repository, but in neither its data folder nor the hub.
_TEMPLATES: Mapping[str, str] = {
    "P17": "Which country is [X] located in?",
    "P19": "Where was [X] born?",
    "P20": "Where did [X] die?",
    "P26": "Who is [X] married to?",
    "P36": "What is the capital of [X]?",
    "P40": "Who is [X]'s child?",
    "P50": "Who is the author of [X]?",
    "P69": "Where was [X] educated?",
    "P106": "What kind of work does [X] do?",
    "P112": "Who founded [X]?",
    "P127": "Who owns [X]?",
    "P131": "Where is [X] located?",
    "P136": "What type of music does [X] play?",
    "P159": "Where is the headquarter of [X]?",
    "P170": "Who was [X] created by?",
    "P175": "Who performed [X]?",
    "P176": "Which company is [X] produced by?",
    "P264": "What music label is [X] represented by?",
    "P276": "Where is [X] located?",
    "P407": "Which language was [X] written in?",
    "P413": "What position does [X] play?",
    "P495": "Which country was [X] created in?",
    "P740": "Where was [X] founded?",
    "P800": "What is [X] famous for?",
}


class EntityQuestions(QuestionTask):
    """EntityQuestions: simple questions on one fact of a named entity, in 24 relations.

    Reads ``train/P17.train.json``, …, lists of ``{question, answers}``, and
    ``relation_query_templates.json``, ``{relation: "Which country is [X] located in?"}`` (the
    published templates if it is absent); on the hub, rows ``{question, answers, relation}``.
    The option ``relations`` is a comma list or ``all``. Relations take turns in the order of the
    examples.

    The mention is what a question has in place of ``[X]``; it carries no id, so it is linked by
    its title. A question that does not fit its template is dropped and counted. As in the
    map-tuning release the input is the question, a blank and ``[MASK]``; which answers are one
    token is up to the backbone. Any of a question's answers is right; that release lower-cases
    them and takes the first of one token alone, so its figures are a little lower by definition.
    Not comparable with retrieval or generation on the same data; for the latter take
    ``answers=open``, which asks ``Q: … A:``.
    """

    card = TaskCard(
        title="EntityQuestions",
        revision="1",
        licence="MIT",
        citation="Christopher Sciavolino, Zexuan Zhong, Jinhyuk Lee and Danqi Chen: Simple "
        "Entity-Centric Questions Challenge Dense Retrievers, EMNLP 2021",
        source="https://github.com/princeton-nlp/EntityQuestions (facts of T-REx)",
        obtain="the dataset folder of https://github.com/princeton-nlp/EntityQuestions with "
        "train/P17.train.json, dev/P17.dev.json, test/P17.test.json, … "
        "(`kbench fetch entity-questions` brings it)",
        # Those with an answer of one wordpiece of bert-base-uncased, of 176,560, 22,068, 22,075.
        sizes={
            Split.TRAIN: Size(53_131, 14),
            Split.DEV: Size(6_619, 14),
            Split.TEST: Size(6_585, 14),
        },
    )
    linking = "title"
    asks = Prompt("Q: {before} A:", nothing="A:")
    defaults: ClassVar[Mapping[str, float | int | str]] = {
        **QuestionTask.defaults,
        "relations": "all",
    }

    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split.

        Raises:
            DataError: a file is missing or malformed, or a relation has no template.
            UsageError: the option ``relations`` names an unknown one.
        """
        groups = self._groups(split)
        kept = []
        for relation in sorted(groups):
            frame = self._frame(relation)
            name = f"{relation}/{split}"
            made = [_example(f"{name}/{n}", r, *frame) for n, r in enumerate(groups[relation])]
            kept.append([replace(e, relation=relation) for e in made if e is not None])
        total, fits = sum(map(len, groups.values())), sum(map(len, kept))
        self.counts[f"{split}_total"] = total
        self.counts[f"{split}_template_mismatch"] = total - fits
        return take_turns(kept)

    @cached_property
    def _folder(self) -> Path:
        return find_folder(self.data, self.card, "entityquestions")

    @cached_property
    def _templates(self) -> Mapping[str, str]:
        if is_hub(self.data) or not (self._folder / _TEMPLATES_FILE).exists():
            return _TEMPLATES
        path = self._folder / _TEMPLATES_FILE
        expected = f'a JSON object {{relation: "question with one {_GAP}"}}'
        templates = read_json(path, expected)
        if not isinstance(templates, dict):
            raise DataError(path, "is not a JSON object", expected)
        for relation, template in templates.items():
            if not isinstance(template, str) or template.count(_GAP) != 1:
                raise DataError(path, f"{relation} is {template!r}", expected)
        return templates

    @cached_property
    def _chosen(self) -> tuple[str, ...] | None:
        """The relations asked for; None for all there are."""
        given = str(self.options["relations"])
        if given == _ALL:
            return None
        chosen = tuple(filter(None, (piece.strip() for piece in given.split(","))))
        unknown = [relation for relation in chosen if relation not in self._templates]
        if unknown or not chosen:
            name = unknown[0] if unknown else given
            hint = nearest(name, self._templates)
            raise UsageError(f"relations: EntityQuestions has no relation {name!r}{hint}")
        return chosen

    def _groups(self, split: Split) -> dict[str, list[Record]]:
        if is_hub(self.data):
            groups = group(hub_records(self.data, split, _HUB_ROW), "relation")
            absent = sorted(set(self._chosen or ()) - groups.keys())
            if absent:
                problem = f"has no {split} question of {', '.join(absent)}"
                raise DataError(self.data, problem, "rows of every relation asked for")
            return {relation: groups[relation] for relation in self._chosen or groups}
        return {
            relation: read_records(
                find_file(self._folder / split, f"{relation}.{split}.json"), _ROW
            )
            for relation in self._chosen or self._relations
        }

    @cached_property
    def _relations(self) -> tuple[str, ...]:
        """Every relation with a file in some split; it must then have one in each."""
        relations = {
            path.name.removesuffix(f".{split}{path.suffix}")
            for split in Split
            for path in (self._folder / split).glob(f"[!.]*.{split}.json*")
            if path.suffix in {".json", ".jsonl"}
        }
        if not relations:
            raise DataError(self._folder, "has no question file", self.card.obtain)
        return tuple(sorted(relations))

    def _frame(self, relation: str) -> tuple[str, str]:
        """The fixed beginning and end of a relation's questions."""
        if relation not in self._templates:
            known = ", ".join(self._templates)
            problem = f"has questions of relation {relation}, which has no template"
            raise DataError(str(self.data), problem, f"one of {known}, or {_TEMPLATES_FILE}")
        prefix, _, suffix = self._templates[relation].partition(_GAP)
        return prefix, suffix


def _example(name: str, record: Record, prefix: str, suffix: str) -> Example | None:
    """Returns the example of a question, or None if it does not fit its template."""
    question, answers = record["question"], record["answers"]
    if not answers or not all(answer.strip() for answer in answers):
        raise record.error("has an empty answer, or none")
    start, end = len(prefix), len(question) - len(suffix)
    if not (question.startswith(prefix) and question.endswith(suffix) and start < end):
        return None
    mention = question[start:end]
    if mention != mention.strip():
        return None
    text = f"{question} "
    target = Mention(start, end, role=Role.TARGET)
    return Example(name, text, (target,), tuple(answers), blank=len(text))
