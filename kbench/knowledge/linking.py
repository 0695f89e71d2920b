"""Mentions to entities of a knowledge base, and how many of them it covers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kbench.data import Example
from kbench.errors import UsageError, nearest
from kbench.knowledge.base import KnowledgeBase, Rows
from kbench.knowledge.folding import folded

__all__ = ["LINKERS", "Links", "joined", "link", "revised"]

LINKERS = ("gold", "title", "alias")
"""The ways to find the entity of a mention: by the data's id, a title, any name in the text."""

_REVISIONS = {"alias": 2}
"""Of linkers that find other links than they first did."""

Covers: TypeAlias = Callable[[Rows], NDArray[np.bool_]]


def revised(linker: str) -> str:
    """Returns a linker as it stands in addresses: with its revision, where it has one."""
    return f"{linker}:{_REVISIONS[linker]}" if linker in _REVISIONS else linker


@dataclass(frozen=True)
class Links:
    """The row of every mention.

    Attributes:
        rows: row of each mention of each example, -1 where there is no entity, or none of which
            the method has something to say.
        linker: one of :data:`LINKERS`.
        examples: share of examples with at least one such row.
        mentions: share of mentions with such a row.
        ambiguous: mentions whose name belongs to several entities: left unlinked by ``title``,
            linked to the most popular by ``alias``.
    """

    rows: tuple[tuple[int, ...], ...]
    linker: str
    examples: float
    mentions: float
    ambiguous: int

    def __len__(self) -> int:
        return len(self.rows)


def link(
    examples: Sequence[Example],
    knowledge: KnowledgeBase | None,
    linker: str = "gold",
    covers: Covers | None = None,
) -> Links:
    """Links the mentions of examples; entities of which nothing can be said count as unknown.

    Args:
        examples: the examples.
        knowledge: where to look; None links nothing.
        linker: ``gold``: by the ids in the data. ``title``: for mentions without an id by the
            label; else by the label folded (:func:`kbench.knowledge.folding.folded`); else, where
            nobody is called so, by the other names, exact and then folded. Each of these counts
            where it is one entity's. ``alias``: by the ids too, which
            :meth:`kbench.knowledge.aliases.Aliases.linked` has put there.
        covers: whether something can be said of each row; default: whether it has a vector.

    Raises:
        UsageError: no such linker.
    """
    if linker not in LINKERS:
        raise UsageError(f"no linker is called {linker!r}{nearest(linker, LINKERS)}")
    mentions = [(e, m) for e in examples for m in e.mentions]
    rows = np.full(len(mentions), -1, dtype=np.int64)
    ambiguous = 0
    if knowledge is not None and mentions:
        ids = [mention.entity for _, mention in mentions]
        rows = knowledge.rows(ids)
        if linker == "title":
            # A span may have a blank at its ends, which is no part of the name.
            asked = {
                at: example.text[mention.start : mention.end].strip()
                for at, (example, mention) in enumerate(mentions)
                if mention.entity is None
            }
            titles = _Titles(knowledge, asked.values())
            for at, title in asked.items():
                matches = titles.find(title)
                ambiguous += len(matches) > 1
                rows[at] = matches[0] if len(matches) == 1 else -1
        rows = np.where((covers or knowledge.has_vector)(rows), rows, -1)
    return _links(examples, rows.tolist(), linker, ambiguous)


def joined(links: Links, groups: Sequence[Sequence[int]]) -> Links:
    """Returns the links of examples that are made of several texts.

    The share of mentions stays that of the texts, each counted once.

    Args:
        links: of the texts.
        groups: numbers of the texts of each example.
    """
    rows = [tuple(row for text in group for row in links.rows[text]) for group in groups]
    covered = sum(max(several, default=-1) >= 0 for several in rows)
    return replace(links, rows=tuple(rows), examples=covered / len(rows) if rows else 0.0)


def _links(examples: Sequence[Example], rows: list[int], linker: str, ambiguous: int) -> Links:
    grouped = []
    start = 0
    for example in examples:
        grouped.append(tuple(rows[start : start + len(example.mentions)]))
        start += len(example.mentions)
    covered = sum(any(row >= 0 for row in group) for group in grouped)
    linked = sum(row >= 0 for row in rows)
    return Links(
        rows=tuple(grouped),
        linker=linker,
        examples=covered / len(examples) if examples else 0.0,
        mentions=linked / len(rows) if rows else 0.0,
        ambiguous=ambiguous,
    )


class _Titles:
    """Entities of some titles: by how they are called, else by their other names.

    Each is tried as it is written and then folded.
    """

    def __init__(self, knowledge: KnowledgeBase, titles: Iterable[str]) -> None:
        self._named: dict[str, list[tuple[int, str, bool]]] = {
            folded(title): [] for title in titles
        }
        for row, name, called in knowledge.named(self._named.keys()) if self._named else ():
            self._named[folded(name)].append((row, name, called))

    def find(self, title: str) -> list[int]:
        named = self._named[folded(title)]
        for first in (True, False):
            for exact in (True, False):
                rows = {
                    row: None
                    for row, name, called in named
                    if called == first and (name == title or not exact)
                }
                if rows:
                    return list(rows)
        return []
