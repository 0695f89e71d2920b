"""What the sources of tasks and methods say of them, read and not run; and links to papers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from kbench.errors import KbenchError
from kbench.parts.registry import Kind, find
from kbench.parts.source_text import declared, summary

__all__ = ["Card", "card", "paper"]

_ARXIV = re.compile(r"(?:arXiv:\s*)?(\d{4}\.\d{4,5})(?:v\d+)?", re.IGNORECASE)
_DOI = re.compile(r"(?:doi:\s*)?(10\.\d{4,9}/[\w.()/:-]+)", re.IGNORECASE)
_ANTHOLOGY = re.compile(r"(?:ACL\s+)?([A-Z]\d{2}-\d{4}|\d{4}\.[a-z0-9-]+\.\d+)")


@dataclass(frozen=True)
class Card:
    """A part as its source declares it; empty for one that is not installed here."""

    title: str
    summary: str
    target: str
    distribution: str
    fields: dict[str, Any]


@cache
def card(kind: Kind, name: str) -> Card:
    """Returns the card of a part."""
    try:
        entry = find(kind, name)
    except KbenchError:
        return Card(name, "", "", "", {})
    fields = declared(entry)
    title = str(fields.pop("title", name))
    return Card(title, summary(entry), entry.target, entry.distribution, fields)


def paper(citation: str) -> str | None:
    """Returns the page of an arXiv, DOI or ACL Anthology id; None for anything else."""
    text = citation.strip()
    if match := _ARXIV.fullmatch(text):
        return f"https://arxiv.org/abs/{match[1]}"
    if match := _DOI.fullmatch(text):
        return f"https://doi.org/{match[1]}"
    if match := _ANTHOLOGY.fullmatch(text):
        return f"https://aclanthology.org/{match[1]}/"
    return None
