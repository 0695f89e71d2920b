"""Wiki-ET, in the layout of the Knowledge-Plugin release."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from kbench.data import Example, Mention, Split, TaskCard
from kbench.data.records import Record, Shape
from kbench.data.sources import find_folder, is_hub
from kbench.knowledge.importing import Report
from kbench.metrics import LooseMacroF1, LooseMicroF1, StrictAccuracy
from kbench_tasks.knowledge.matrices import numbered_ids
from kbench_tasks.typing_records import TypingRecords

__all__ = ["WikiET"]

_IDS = "entity2id.txt"


class WikiET(TypingRecords):
    """Wiki-ET: the types, of 68, of a marked mention that is linked to Wikidata.

    ``train.json``, ``dev.json`` and ``test.json`` are JSON Lines of
    ``{sent, start, end, id, labels}``. ``id`` is no Wikidata id but a number in text: the row of
    the entity in the vectors of the release. Its ``entity2id.txt`` turns rows into the ids that
    ``kbench knowledge import openke`` gives the entities; it is looked for in the data folder,
    or where the option ``entities`` says (a name in the data folder, or a path). A row that has
    no id there, and every row where there is no such file, becomes the entity ``row:N``, which
    no knowledge base links; both are counted.

    Types are predicted where their logit is above 0, and the best where none is.
    """

    card = TaskCard(
        title="Wiki-ET",
        revision="1",
        licence="not stated by its publishers",
        citation="Ji Xin, Yankai Lin, Zhiyuan Liu and Maosong Sun: Improving Neural Fine-Grained "
        "Entity Typing with Knowledge Attention, AAAI 2018; as used by Zhengyan Zhang, "
        "Zhiyuan Zeng, Yankai Lin, Huadong Wang, Deming Ye, Chaojun Xiao, Xu Han, "
        "Zhiyuan Liu, Peng Li, Maosong Sun and Jie Zhou: Plug-and-Play Knowledge "
        "Injection for Pre-trained Language Models, ACL 2023",
        source="https://github.com/thunlp/Knowledge-Plugin",
        obtain="the WikiET folder of the Knowledge-Plugin release "
        "(https://github.com/thunlp/Knowledge-Plugin) with train.json, dev.json and test.json, "
        "and the entity2id.txt of its vectors put beside them",
    )
    name = "wiki-et"
    link: ClassVar[Mapping[str, Shape]] = {"id": str}
    max_length = 64
    fallback = True
    metrics = (LooseMicroF1(True), LooseMacroF1(True), StrictAccuracy(True))
    defaults: ClassVar[Mapping[str, float | int | str]] = {
        **TypingRecords.defaults,
        "entities": "entity2id.txt",
    }

    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split and gives the entities their ids.

        Raises:
            DataError: a file is missing or malformed, or a label of dev or test does not occur
                in train.
        """
        examples = super().load(split)
        ids = self._ids({_entity(example) for example in examples})
        unknown = sum(_entity(example) not in ids for example in examples)
        self.counts[f"{split}_rows_without_id"] = unknown
        self.counts[f"{split}_target_linked"] -= unknown
        return [_linked(example, ids) for example in examples]

    def mentions(
        self, record: Record, target: Mention, counts: Counter[str]
    ) -> tuple[Mention, ...]:
        """Gives the target the row of its entity as ``row:N``."""
        row = record["id"]
        if not (row.isascii() and row.isdigit()):
            raise record.error(f"has the id {row!r}, which is no row")
        return (replace(target, entity=f"row:{row.lstrip('0') or 0}"),)

    def _ids(self, wanted: set[str]) -> dict[str, str]:
        """Returns the ids of the rows asked for; the table has millions of others."""
        path = self._table
        if path is None:
            return {}
        ids: dict[str, str] = {}
        for entity, row in numbered_ids(path, Report()):
            if (name := f"row:{row}") in wanted:
                ids.setdefault(name, entity)  # as the importer: a row belongs to its first id
        return ids

    @property
    def _table(self) -> Path | None:
        """The table of ids; None if there is none and none was asked for."""
        given = Path(str(self.options["entities"])).expanduser()
        asked = str(given) != _IDS
        if is_hub(self.data):
            return given if asked else None
        path = find_folder(self.data, self.card, "wikiet") / given
        return path if asked or path.exists() else None


def _entity(example: Example) -> str:
    return str(example.mentions[0].entity)


def _linked(example: Example, ids: Mapping[str, str]) -> Example:
    row = _entity(example)
    return replace(example, mentions=(replace(example.mentions[0], entity=ids.get(row, row)),))
