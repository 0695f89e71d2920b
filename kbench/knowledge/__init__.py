"""Entities by row and what is known of each; its folder, its controls, linking, import."""

from kbench.knowledge.base import (
    Entity,
    KnowledgeBase,
    KnowledgeSource,
    Rows,
    Sentence,
    Spelled,
    Vectors,
    Words,
)
from kbench.knowledge.bundle import Bundle
from kbench.knowledge.writing import write_bundle, write_vectors

__all__ = [
    "Bundle",
    "Entity",
    "KnowledgeBase",
    "KnowledgeSource",
    "Rows",
    "Sentence",
    "Spelled",
    "Vectors",
    "Words",
    "write_bundle",
    "write_vectors",
]
