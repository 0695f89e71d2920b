"""FewRel as classification into 80 relations, in the split and layout of the ERNIE release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from kbench.data import Example, Mention, Prompt, Role, Size, Split, TaskCard
from kbench.data.records import Record
from kbench.data.sources import find_file, find_folder, is_hub, read_records, stream_hub_records
from kbench.metrics import Accuracy, MacroF1
from kbench.spec import OptionType
from kbench.task import RelationTask
from kbench_tasks.fewrel_relations import NAMED, STATED

__all__ = ["FewRel80Way"]

_LINK = (str, int, int, float)
_ROW = {"text": str, "label": str, "ents": (_LINK, _LINK)}


class FewRel80Way(RelationTask):
    """FewRel, supervised in 80 ways: the relation of two marked mentions (ERNIE's split).

    ``train.json`` (8,000 sentences), ``dev.json`` and ``test.json`` (16,000 each) are lists of
    ``{text, label, ents: [[QID, start, end, confidence], [QID, start, end, confidence]]}``: the
    head, then the tail, with offsets in characters and gold links. Not the few-shot task: all
    relations occur in all splits.

    A mention at the beginning of the text has the start 1 in the files; as in ERNIE's reader it
    is 0. The macro-F1 over relations is what ERNIE and E-BERT call F1 here; their micro-F1 is
    the accuracy.
    """

    card = TaskCard(
        title="FewRel (80-way, ERNIE's split)",
        revision="1",
        licence="MIT (FewRel); the split states none",
        citation="Xu Han, Hao Zhu, Pengfei Yu, Ziyun Wang, Yuan Yao, Zhiyuan Liu and Maosong "
        "Sun: FewRel: A Large-Scale Supervised Few-Shot Relation Classification "
        "Dataset, EMNLP 2018; split of Zhengyan Zhang, Xu Han, Zhiyuan Liu, Xin Jiang, "
        "Maosong Sun and Qun Liu: ERNIE: Enhanced Language Representation with "
        "Informative Entities, ACL 2019",
        source="https://github.com/thunlp/ERNIE",
        obtain="the fewrel folder of the ERNIE release (https://github.com/thunlp/ERNIE) with "
        "train.json, dev.json and test.json",
        # Sentences of FewRel, and as long.
        sizes={
            Split.TRAIN: Size(8_000, 35),
            Split.DEV: Size(16_000, 35),
            Split.TEST: Size(16_000, 35),
        },
    )
    metrics = (MacroF1(), Accuracy())
    prompt = STATED
    ways: ClassVar[Mapping[str, Prompt]] = {"name": NAMED}
    defaults: ClassVar[Mapping[str, float | int | str]] = {"ask": "statement"}
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "ask": OptionType("text", words=("statement", "name"))
    }
    max_length = 256
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # ERNIE's setting.
        "full": {"learning_rate": 2e-5, "batch_size": 32, "epochs": 10, "warmup": 0.1},
    }

    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split.

        Raises:
            DataError: the file is missing or malformed, or a relation of dev or test does not
                occur in train.
        """
        records = self._records(split)
        if split is not Split.TRAIN:
            for record in records:
                record.known("label", record["label"], self.labels)
        self.counts[f"{split}_total"] = len(records)
        return [_example(f"fewrel-80way/{split}/{n}", record) for n, record in enumerate(records)]

    def _records(self, split: Split) -> list[Record]:
        if is_hub(self.data):
            return list(stream_hub_records(self.data, split, _ROW))
        folder = find_folder(self.data, self.card, "fewrel80way")
        return read_records(find_file(folder, f"{split}.json"), _ROW)


def _example(name: str, record: Record) -> Example:
    mentions = []
    for role, (entity, start, end, _) in zip((Role.HEAD, Role.TAIL), record["ents"], strict=True):
        first = 0 if start == 1 else start
        record.span(f"the {role}", first, end, record["text"])
        mentions.append(Mention(first, end, entity, role))
    return Example(name, record["text"], tuple(mentions), record["label"])
