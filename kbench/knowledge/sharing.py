"""How often a control that swaps entities brings the right answer all the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kbench.data import Example
from kbench.knowledge.exchange import Exchanged
from kbench.knowledge.gold import Gold, asked_about, has, marks_of
from kbench.knowledge.linking import Covers

__all__ = ["sharing"]


def sharing(
    examples: Sequence[Example], seen: Exchanged, linker: str, covers: Covers, gold: Gold
) -> dict[str, int]:
    """Counts the examples of which another entity's knowledge may tell what is asked.

    Args:
        examples: of a test split.
        seen: the knowledge base through the control.
        linker: of the run.
        covers: whether the method covers each row.
        gold: labels of all splits.

    Returns:
        Under an empty name the examples that ask about an entity that got another's knowledge;
        ``_label``: the other one's knowledge tells a gold label of the example, see
        :attr:`~kbench.knowledge.gold.Gold.told`; ``_type``: it does not, but the two have a type
        in common.
    """
    asked = asked_about(examples, seen.base, linker, covers)
    own, partner = asked.row, seen.other[asked.row]
    labels = [gold.of(example) for example in examples]
    number = np.concatenate([np.zeros(0, dtype=np.int64), *(labels[at] for at in asked.example)])
    pair = np.repeat(np.arange(len(own)), [len(labels[at]) for at in asked.example])
    label = np.zeros(len(own), dtype=bool)
    label[pair[has(gold.told, partner[pair], number)]] = True
    at, kinds = marks_of(gold.types, own)
    kind = np.zeros(len(own), dtype=bool)
    kind[at[has(gold.types, partner[at], kinds)]] = True
    told, alike = ({*asked.example[which].tolist()} for which in (label, kind))
    return {
        "": len({*asked.example.tolist()}),
        "_label": len(told),
        "_type": len(alike - told),
    }
