"""A split as a model reads it: limited, with gold targets, linked and encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kbench.data import Example, Split
from kbench.encoding import Inputs, Layout, encode
from kbench.errors import KbenchError
from kbench.heads import Gold
from kbench.knowledge import KnowledgeBase
from kbench.linking import Links, link
from kbench.model import DownstreamModel
from kbench.parts import Parts

__all__ = ["Prepared", "limited", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A split as a model reads it.

    Attributes:
        examples: those the head can express.
        gold: their labels and targets.
        inputs: their tokens and slots.
        links: their mentions' entities.
        total: examples before any was left out.
    """

    examples: Sequence[Example]
    gold: Gold
    inputs: Inputs
    links: Links
    total: int

    @property
    def counts(self) -> dict[str, int]:
        """What was kept, and what had no room."""
        return {
            "test_total": self.total,
            "test_kept": len(self.examples),
            "test_shortened": self.inputs.shortened,
            "test_mentions_without_room": self.inputs.unslotted,
        }


def prepare(
    parts: Parts,
    split: Split,
    model: DownstreamModel,
    knowledge: KnowledgeBase | None,
    slot: str | None,
) -> Prepared:
    """Reads, limits, links and encodes a split.

    Raises:
        KbenchError: no example is left.
    """
    task, encoder = parts.task, model.encoder
    examples = limited(task.examples(split), parts.spec.limit)
    gold = model.head.gold(examples, encoder.tokenizer)
    kept = [examples[index] for index in gold.kept]
    if not kept:
        raise KbenchError(
            f"task {parts.spec.task}: none of {len(examples)} {split} examples is usable"
        )
    links = link(kept, knowledge, parts.linker)
    layout = Layout(
        markers=task.markers, slot=slot, max_length=min(task.max_length, encoder.max_length)
    )
    inputs = encode(encoder.tokenizer, kept, links.rows, layout)
    return Prepared(kept, gold, inputs, links, len(examples))


def limited(examples: Sequence[Example], limit: int | None) -> Sequence[Example]:
    """Returns at most ``limit`` examples, drawn by a fixed seed, in their order."""
    if limit is None or limit >= len(examples):
        return examples
    chosen = np.random.default_rng(0).choice(len(examples), size=limit, replace=False)
    return [examples[index] for index in sorted(chosen.tolist())]
