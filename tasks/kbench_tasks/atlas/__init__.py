"""The embedded tasks over the knowledge base ``atlas``: typing, relations, questions.

Entities of dev and test occur nowhere else: not in train, not in the general corpus, not in the
text the embedded backbone was trained on. Contexts are written so that they do not give the
label away. How the files were built, with figures, is in this folder's README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from json import loads
from pathlib import Path
from typing import Any, final

from kbench.data import Example, Mention, Role, Split, TaskCard
from kbench.task import QuestionTask, RelationTask, Task, TypingTask

__all__ = ["AtlasQuestions", "AtlasRelations", "AtlasTyping"]

_FOLDER = Path(__file__).parent
_LICENCE = "CC BY 4.0 (GeoNames) and others, see tasks/kbench_tasks/atlas/NOTICE.md"
_SOURCE = "WordNet 3.0, GeoNames, airportsdata and others; built by scripts/build_atlas"


class _AtlasTask(Task):
    """Reads a file of this folder, one example a line."""

    file: str

    def load(self, split: Split) -> Sequence[Example]:
        return self._all[split]

    @cached_property
    def _all(self) -> dict[Split, list[Example]]:
        examples: dict[Split, list[Example]] = {split: [] for split in Split}
        for line in (_FOLDER / self.file).read_text(encoding="utf-8").splitlines():
            value = loads(line)
            examples[Split(value["split"])].append(_example(value))
        return examples


def _example(value: dict[str, Any]) -> Example:
    label = value["label"]
    mentions = (
        Mention(m["start"], m["end"], m["entity"], Role(m["role"])) for m in value["mentions"]
    )
    return Example(
        id=value["id"],
        text=value["text"],
        mentions=tuple(mentions),
        label=label if isinstance(label, str) else tuple(label),
        blank=value.get("blank"),
    )


@final
class AtlasTyping(_AtlasTask, TypingTask):
    """Entity typing of rare entities of the atlas (multi-label)."""

    file = "typing.jsonl"
    max_length = 64
    card = TaskCard(
        title="atlas typing",
        revision="1",
        licence=_LICENCE,
        citation="kbench",
        source=_SOURCE,
    )


@final
class AtlasRelations(_AtlasTask, RelationTask):
    """Relation between a rare entity of the atlas and a known one (single label)."""

    file = "relations.jsonl"
    max_length = 64
    card = TaskCard(
        title="atlas relations",
        revision="1",
        licence=_LICENCE,
        citation="kbench",
        source=_SOURCE,
    )


@final
class AtlasQuestions(_AtlasTask, QuestionTask):
    """Questions about rare entities of the atlas, answered by one token at [MASK]."""

    file = "qa.jsonl"
    max_length = 64
    card = TaskCard(
        title="atlas questions",
        revision="1",
        licence=_LICENCE,
        citation="kbench",
        source=_SOURCE,
    )
