"""FewRel as plain supervised relation classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from kbench.data import Example, Prompt, Role, Size, Split, TaskCard
from kbench.data.records import Record
from kbench.data.sources import (
    find_file,
    find_folder,
    group,
    hub_records,
    is_hub,
    read_groups,
    take_turns,
)
from kbench.errors import DataError
from kbench.spec import OptionType
from kbench.task import RelationTask
from kbench_tasks.fewrel_relations import NAMED, STATED
from kbench_tasks.tokenized import Marked, deal, mark

__all__ = ["FEW_REL_ROW", "ROW", "FewRelSupervised", "marked_pair"]

# An entity is [name, Wikidata id, one list of token indices for each of its mentions].
_ENTITY = (str, str, [[int]])
ROW = {"tokens": [str], "h": _ENTITY, "t": _ENTITY}
_HUB_ROW = {"relation": str, **ROW}
# The columns of thunlp/few_rel, the hub's copy.
_FEW_REL_ENTITY = {"text": str, "type": str, "indices": [[int]]}
FEW_REL_ROW = {"relation": str, "tokens": [str], "head": _FEW_REL_ENTITY, "tail": _FEW_REL_ENTITY}

Parts = Mapping[Split, Sequence[Example]]


class FewRelSupervised(RelationTask):
    """FewRel, supervised: the relation between two marked mentions of a Wikipedia sentence.

    Made of one file ``{relation: [{tokens, h: [name, QID, [[index, …], …]], t: …}, …]}`` (option
    ``file``; ``val_wiki.json`` has 16 relations of 700 sentences), or, on the hub, of the split
    of that name, with the columns of ``thunlp/few_rel`` or with ``relation`` beside the keys
    above. Every relation is split 70/10/20 by itself (option ``split_seed``): the classes are
    the same in all parts, the sentences are not. Entities may recur, and so may a sentence with
    another pair marked in it. This is neither the few-shot task of the paper nor the 80-way
    split of ERNIE.

    The text is the tokens joined by single blanks; of an entity's mentions the first is marked,
    from its first to its last token.
    """

    card = TaskCard(
        title="FewRel (supervised split)",
        revision="1",
        licence="MIT",
        citation="Xu Han, Hao Zhu, Pengfei Yu, Ziyun Wang, Yuan Yao, Zhiyuan Liu and Maosong "
        "Sun: FewRel: A Large-Scale Supervised Few-Shot Relation Classification "
        "Dataset, EMNLP 2018",
        source="https://github.com/thunlp/FewRel",
        obtain="the data folder of https://github.com/thunlp/FewRel with val_wiki.json "
        "(or another of its files by the option file; `kbench fetch fewrel` brings it)",
        sizes={
            Split.TRAIN: Size(7840, 35),
            Split.DEV: Size(1120, 35),
            Split.TEST: Size(2240, 35),
        },
    )
    prompt = STATED
    ways: ClassVar[Mapping[str, Prompt]] = {"name": NAMED}
    max_length = 128
    defaults: ClassVar[Mapping[str, float | int | str]] = {
        "file": "val_wiki.json",
        "split_seed": 0,
        "ask": "statement",
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "ask": OptionType("text", words=("statement", "name"))
    }

    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split.

        Raises:
            DataError: the file is missing or malformed, or too small to be split.
            UsageError: ``split_seed`` is not an integer.
        """
        examples = self._parts[split]
        self.counts[f"{split}_total"] = len(examples)
        return examples

    @cached_property
    def _parts(self) -> Parts:
        seed = int(self.options["split_seed"])
        groups = self._groups()
        cut = [_cut(relation, groups[relation], seed, self._stem) for relation in sorted(groups)]
        parts = {split: take_turns(one[split] for one in cut) for split in Split}
        empty = [str(split) for split, examples in parts.items() if not examples]
        if empty:
            problem = f"has too few sentences a relation: nothing is left for {', '.join(empty)}"
            origin = next(iter(groups.values()))[0].origin
            raise DataError(origin, problem, "at least 10 sentences a relation")
        return parts

    @property
    def _stem(self) -> str:
        return Path(str(self.options["file"])).stem

    def _groups(self) -> dict[str, list[Record]]:
        if is_hub(self.data):
            rows = hub_records(self.data, self._stem, FEW_REL_ROW, _HUB_ROW)
            return group(rows, "relation")
        folder = find_folder(self.data, self.card, "fewrel")
        return read_groups(find_file(folder, str(self.options["file"])), ROW)


def _cut(relation: str, records: Sequence[Record], seed: int, stem: str) -> Parts:
    """Shuffles the sentences of a relation and deals 70, 10 and 20 % to train, dev and test."""
    examples = [
        marked_pair(f"{stem}/{relation}/{number}", record, relation)
        for number, record in enumerate(records)
    ]
    return dict(zip(Split, deal(examples, seed, (7, 1, 2)), strict=True))


def marked_pair(name: str, record: Record, relation: str) -> Example:
    """Makes an example of a FewRel sentence: of each entity the first mention is marked.

    Raises:
        DataError: an entity names no token of the sentence.
    """
    marked: list[Marked] = []
    for role, (identifier, indices) in zip((Role.HEAD, Role.TAIL), _entities(record), strict=True):
        if not indices or not indices[0]:
            raise record.error(f"the {role} names no token")
        marked.append((role, identifier, min(indices[0]), max(indices[0])))
    text, mentions = mark(record, record["tokens"], marked)
    return Example(name, text, mentions, relation)


def _entities(record: Record) -> list[tuple[str, Any]]:
    if "head" in record.shape:
        return [(record[side]["type"], record[side]["indices"]) for side in ("head", "tail")]
    return [(record[side][1], record[side][2]) for side in ("h", "t")]
