"""TACRED, and what has its layout: TACREV and Re-TACRED."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from kbench.data import Example, Role, Size, Split, TaskCard
from kbench.data.records import Record
from kbench.data.sources import find_file, find_folder, is_hub, read_records
from kbench.errors import AbsentError, DataError
from kbench.metrics import MicroF1WithoutNull
from kbench.task import RelationTask
from kbench_tasks.tokenized import mark

__all__ = ["Tacred"]

_ROW = {
    "id": str,
    "token": [str],
    "relation": str,
    "subj_start": int,
    "subj_end": int,
    "obj_start": int,
    "obj_end": int,
}
_NULL = "no_relation"
_FOLDERS = ("", "json", "data/json")
# How the Penn Treebank writes brackets.
_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}


class Tacred(RelationTask):
    """TACRED: which of 41 relations, or none, holds between two marked mentions of news text.

    ``train.json``, ``dev.json`` and ``test.json`` are lists of
    ``{id, token, subj_start, subj_end, obj_start, obj_end, relation, …}``, whose ends are the
    last tokens of the mentions; other keys, such as the types, are not read. TACREV and Re-TACRED
    have the same layout. The data set is licensed by the LDC: kbench reads what is on disk and
    never downloads it.

    The text is the tokens joined by single blanks, with brackets for ``-LRB-`` and its kin. The
    subject is the head. Mentions carry no id and are linked by their title. The metric leaves out
    ``no_relation``, which about four of five examples have; data that call it otherwise, as
    ERNIE's ``NA``, are refused, since they would be scored wrongly.
    """

    card = TaskCard(
        title="TACRED",
        revision="1",
        licence="LDC User Agreement (LDC2018T24); no redistribution",
        citation="Yuhao Zhang, Victor Zhong, Danqi Chen, Gabor Angeli and Christopher D. "
        "Manning: Position-aware Attention and Supervised Data Improve Slot Filling, "
        "EMNLP 2017",
        source="https://catalog.ldc.upenn.edu/LDC2018T24",
        obtain="the data/json folder of LDC2018T24 with train.json, dev.json and test.json, "
        "or the same files as corrected by TACREV (https://github.com/DFKI-NLP/tacrev) or "
        "Re-TACRED (https://github.com/gstoica27/Re-TACRED)",
        # 36.4 words a sentence, says its site; 1.17 wordpieces a word, as in FewRel.
        sizes={
            Split.TRAIN: Size(68_124, 49),
            Split.DEV: Size(22_631, 49),
            Split.TEST: Size(15_509, 49),
        },
    )
    metrics = (MicroF1WithoutNull(_NULL),)
    max_length = 256
    linking = "title"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # ERNIE's setting.
        "full": {"learning_rate": 2e-5, "batch_size": 32, "epochs": 4, "warmup": 0.1},
    }

    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split.

        Raises:
            DataError: the file is missing or malformed, train has no ``no_relation``, or a
                relation of dev or test does not occur in train.
            UsageError: no folder is given.
        """
        records = self._records(split)
        relations = [record["relation"] for record in records]
        if split is not Split.TRAIN:
            for record in records:
                record.known("relation", record["relation"], self.labels)
        elif _NULL not in relations:
            raise DataError(
                records[0].origin, f"has no example of {_NULL}", f"{_NULL} where none holds"
            )
        seen: set[str] = set()
        examples = [_example(split, record, seen) for record in records]
        self.counts |= {
            f"{split}_total": len(examples),
            f"{split}_{_NULL}": relations.count(_NULL),
        }
        return examples

    def _records(self, split: Split) -> list[Record]:
        if not self.data or is_hub(self.data):
            raise AbsentError(
                "TACRED needs --data DIR and is never downloaded: LDC2018T24 is licensed by the "
                f"LDC and may not be passed on; give {self.card.obtain}"
            )
        folder = find_folder(self.data, self.card, "tacred")
        paths = [find_file(folder / inside, f"{split}.json") for inside in _FOLDERS]
        return read_records(next((path for path in paths if path.exists()), paths[0]), _ROW)


def _example(split: Split, record: Record, seen: set[str]) -> Example:
    if record["id"] in seen:
        raise record.error(f"has the id {record['id']!r}, which another record has")
    seen.add(record["id"])
    tokens = [_BRACKETS.get(token, token) for token in record["token"]]
    marked = [
        (role, None, record[f"{side}_start"], record[f"{side}_end"])
        for role, side in ((Role.HEAD, "subj"), (Role.TAIL, "obj"))
    ]
    text, mentions = mark(record, tokens, marked)
    return Example(f"tacred/{split}/{record['id']}", text, mentions, record["relation"])
