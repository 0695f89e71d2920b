"""Knowledge bases: entities by row, and what is known of each.

Free of torch: vectors come as NumPy arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kbench.data import Mention

__all__ = ["Entity", "KnowledgeBase", "KnowledgeSource", "Rows", "Sentence", "Vectors"]

Rows: TypeAlias = NDArray[np.int64]
Vectors: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Entity:
    """What a knowledge base knows of a thing by name.

    Attributes:
        id: unique in the bundle (a Wikidata id, a title, …).
        label: its usual name.
        aliases: other names.
        types: names of its classes.
        description: a sentence or paragraph about it.
    """

    id: str
    label: str = ""
    aliases: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the bundle's corpus with its linked mentions."""

    text: str
    mentions: tuple[Mention, ...]


class KnowledgeBase(ABC):
    """Entities by row, and what is known of each. Rows run from 0; -1 is an unknown entity."""

    name: str
    digest: str
    dimension: int

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of entities."""

    @abstractmethod
    def rows(self, ids: Sequence[str | None]) -> Rows:
        """Returns the row of each id, -1 where the id is None or unknown. ``[ids]``."""

    @abstractmethod
    def has_vector(self, rows: Rows) -> NDArray[np.bool_]:
        """Returns whether each row has a vector; False for row -1. ``[rows]``."""

    @abstractmethod
    def vectors(self, rows: Rows) -> Vectors:
        """Gathers the vectors of rows that have one. ``[rows, dimension]``."""

    @abstractmethod
    def entity(self, row: int) -> Entity:
        """Returns the entity of a row."""

    @property
    @abstractmethod
    def triples(self) -> NDArray[np.int32]:
        """Facts as ``[triples, 3]``: head row, relation number, tail row."""

    @property
    @abstractmethod
    def relations(self) -> Mapping[str, str]:
        """Relation ids, in the order of their numbers, with their labels."""

    @property
    @abstractmethod
    def sentences(self) -> Sequence[Sentence]:
        """The corpus of linked sentences; empty where the bundle has none."""

    @property
    @abstractmethod
    def labels(self) -> Sequence[str]:
        """The label of every row."""


class KnowledgeSource(ABC):
    """A knowledge base that a distribution offers by name."""

    @abstractmethod
    def folder(self) -> Path:
        """Returns the folder of its bundle."""
