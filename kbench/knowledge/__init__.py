"""Entities by row and what is known of each; its folder, its controls, linking, import."""

from kbench.knowledge.aliases import Dictionary
from kbench.knowledge.arrow import in_blocks
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
from kbench.knowledge.folding import folded
from kbench.knowledge.linking import LINKERS, Links, link, revised
from kbench.knowledge.names import DENSE, begins_with, first_place
from kbench.knowledge.writing import distinct_facts, write_bundle, write_vectors

__all__ = [
    "DENSE",
    "LINKERS",
    "Bundle",
    "Dictionary",
    "Entity",
    "KnowledgeBase",
    "KnowledgeSource",
    "Links",
    "Rows",
    "Sentence",
    "Spelled",
    "Vectors",
    "Words",
    "begins_with",
    "distinct_facts",
    "first_place",
    "folded",
    "in_blocks",
    "link",
    "revised",
    "write_bundle",
    "write_vectors",
]
