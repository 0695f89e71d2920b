"""Objects of relations in a knowledge base: what may be the answer to a question of a relation."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from kbench.errors import InputError
from kbench.knowledge.base import KnowledgeBase, Rows
from kbench.knowledge.folding import folded
from kbench.knowledge.gold import Relations

__all__ = ["objects_of"]


def objects_of(
    base: KnowledgeBase,
    relations: Mapping[str, str],
    spelled: Mapping[str, Collection[str]],
    most: int,
) -> dict[str, list[list[str]]]:
    """Returns the objects of relations by all their names, those of the most facts first.

    Each is called by that of its names which questions have for an answer, else as the base calls
    it. Two that are called alike are one: no answer tells them apart. One without a name is none.

    Args:
        base: the knowledge base.
        relations: how the base calls each relation, by its id or its text.
        spelled: the answers to questions of each.
        most: objects of a relation at most.

    Returns:
        Those of each relation that the base has.

    Raises:
        InputError: it has none of them.
    """
    known = Relations(base)
    found = {}
    for relation, name in sorted(relations.items()):
        numbers = known.of(name)
        if not numbers:
            continue
        facts = base.triples
        tails, counts = np.unique(facts[np.isin(facts[:, 1], numbers), 2], return_counts=True)
        answers = {folded(answer): answer for answer in sorted(spelled.get(relation, ()))}
        found[relation] = _named(base, tails[np.argsort(-counts, kind="stable")], answers, most)
    if not any(found.values()):
        raise InputError(
            f"knowledge base {base.name} has no objects of the relations asked for, such as "
            f"{max(relations.values(), default='')!r}; expected facts of them: give "
            "another one, or rank the answers of train (objects='')"
        )
    return {relation: own for relation, own in found.items() if own}


def _named(
    base: KnowledgeBase, rows: Rows, answers: Mapping[str, str], most: int
) -> list[list[str]]:
    """The names of entities, each once by the name that it is called by."""
    things: dict[str, dict[str, None]] = {}
    for row in rows.tolist():
        names = base.entity(row).names
        if not names:
            continue
        own = next((answers[f] for f in map(folded, names) if f in answers), names[0])
        if own not in things and len(things) == most:
            break
        things.setdefault(own, {own: None}).update(dict.fromkeys(names))
    return [[*names] for names in things.values()]
