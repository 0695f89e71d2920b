"""Wiki80, in the layout of OpenNRE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from kbench.data import Example, Role, Size, Split, TaskCard
from kbench.data.records import Record
from kbench.data.sources import find_folder, hub_records, hub_splits, is_hub, read_records
from kbench.errors import DataError
from kbench.metrics import Accuracy, MacroF1
from kbench.task import RelationTask
from kbench_tasks.tokenized import deal, mark

__all__ = ["Wiki80"]

_ENTITY = {"name": str, "id": str, "pos": (int, int)}
_ROW = {"token": [str], "h": _ENTITY, "t": _ENTITY, "relation": str}
_SUFFIXES = (".txt", ".jsonl", ".json")


class Wiki80(RelationTask):
    """Wiki80: the relation, of 80, between two marked mentions of a Wikipedia sentence.

    Files of JSON Lines ``{token, h: {name, id, pos: [first, end)}, t: …, relation}``. OpenNRE
    publishes ``wiki80_train.txt`` and ``wiki80_val.txt`` and no test set: then what is published
    as val is the test split, and dev is a tenth of train, held out by relation (option
    ``split_seed``) and counted. Where there is a test set too, ``train``, ``dev`` (or ``val``)
    and ``test`` with the ending ``.txt``, ``.jsonl`` or ``.json`` are taken as they are; this is
    how the Knowledge-Plugin release has it. On the hub, splits of these names.

    The text is the tokens joined by single blanks. The "micro-F1" of the Knowledge-Plugin release
    is the accuracy.
    """

    card = TaskCard(
        title="Wiki80 (the published val is test; without a test file, dev is 10% of train)",
        revision="1",
        licence="MIT",
        citation="Xu Han, Tianyu Gao, Yuan Yao, Deming Ye, Zhiyuan Liu and Maosong Sun: OpenNRE: "
        "An Open and Extensible Toolkit for Neural Relation Extraction, EMNLP 2019 "
        "(demonstrations)",
        source="https://github.com/thunlp/OpenNRE (made from FewRel)",
        obtain="the benchmark/wiki80 folder of https://github.com/thunlp/OpenNRE with "
        "wiki80_train.txt and wiki80_val.txt (`kbench fetch wiki80` brings it), or a folder with "
        "train.txt, dev.txt and test.txt",
        # OpenNRE's files; the sentences are FewRel's, and as long.
        sizes={
            Split.TRAIN: Size(45_360, 35),
            Split.DEV: Size(5_040, 35),
            Split.TEST: Size(5_600, 35),
        },
    )
    metrics = (Accuracy(), MacroF1())
    max_length = 128
    defaults: ClassVar[Mapping[str, float | int | str]] = {"split_seed": 0}

    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split.

        Raises:
            DataError: a file is missing or malformed, a relation of dev or test does not occur
                in train, or train is too small to be split.
            UsageError: ``split_seed`` is not an integer.
        """
        examples = self._examples(split)
        self.counts[f"{split}_total"] = len(examples)
        return examples

    def _examples(self, split: Split) -> Sequence[Example]:
        if self._published:
            return self._read(split)
        if split is Split.TEST:
            return self._read("val")
        self.counts["dev_held_out_of_train"] = len(self._cut[Split.DEV])
        return self._cut[split]

    @cached_property
    def _published(self) -> bool:
        """Whether there is a test set."""
        if is_hub(self.data):
            return "test" in hub_splits(self.data)
        return self._file("test") is not None

    @cached_property
    def _cut(self) -> Mapping[Split, Sequence[Example]]:
        seed = int(self.options["split_seed"])
        examples = self._read(Split.TRAIN)
        groups: dict[str, list[Example]] = {}
        for example in examples:
            groups.setdefault(str(example.label), []).append(example)
        held_out = {example.id for one in groups.values() for example in deal(one, seed, (9, 1))[1]}
        if not held_out:
            problem = "has too few sentences a relation: nothing is left for dev"
            raise DataError(str(self.data), problem, "at least 10 sentences a relation")
        return {
            Split.TRAIN: [example for example in examples if example.id not in held_out],
            Split.DEV: [example for example in examples if example.id in held_out],
        }

    def _read(self, part: str) -> list[Example]:
        records = self._records(part)
        if part != Split.TRAIN:
            for record in records:
                record.known("relation", record["relation"], self.labels)
        return [_example(f"wiki80/{part}/{n}", record) for n, record in enumerate(records)]

    def _records(self, part: str) -> list[Record]:
        if is_hub(self.data):
            return hub_records(self.data, "dev" if part == "val" else part, _ROW)
        path = self._file(part)
        if path is None:
            problem = f"has no file wiki80_{part}.txt or {part}.txt"
            raise DataError(str(self.data), problem, self.card.obtain)
        return read_records(path, _ROW)

    def _file(self, part: str) -> Path | None:
        folder = find_folder(self.data, self.card, "wiki80")
        parts = ("dev", "val") if part in ("dev", "val") else (part,)
        stems = [f"{prefix}{name}" for prefix in ("wiki80_", "") for name in parts]
        paths = [folder / f"{stem}{suffix}" for stem in stems for suffix in _SUFFIXES]
        return next((path for path in paths if path.exists()), None)


def _example(name: str, record: Record) -> Example:
    sides = ((Role.HEAD, record["h"]), (Role.TAIL, record["t"]))
    marked = [(role, side["id"], side["pos"][0], side["pos"][1] - 1) for role, side in sides]
    text, mentions = mark(record, record["token"], marked)
    return Example(name, text, mentions, record["relation"])
