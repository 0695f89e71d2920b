"""JSON objects of releases: read whole, packed or not, and what may be missing in them."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from pathlib import Path
from typing import Any

from kbench.data.sources import parse_json
from kbench.errors import DataError, first_line
from kbench.knowledge import Entity
from kbench.knowledge.importing import Report, read_whole
from kbench_tasks.knowledge.graphs import count_used
from kbench_tasks.knowledge.matrices import packed_or_not

__all__ = ["count_entities", "count_known", "read_objects", "text_of"]


def read_objects(path: Path, expected: str, required: bool = True) -> dict[str, Any]:
    """Reads a JSON object of objects or lists, packed or not; one that may be missing is empty.

    Args:
        path: the file.
        expected: the format in words.
        required: whether it is an error if it is not there.

    Raises:
        DataError: the file is missing or is no JSON object.
    """
    there = packed_or_not(path)
    if not required and not there.exists():
        return {}
    try:
        value = parse_json(read_whole(there, expected).decode("utf-8"))
    except (ValueError, RecursionError) as cause:
        raise DataError(there, f"cannot be read ({first_line(cause)})", expected) from None
    if not isinstance(value, dict):
        raise DataError(path, f"is a JSON {type(value).__name__}", expected)
    return value


def text_of(value: Any, key: str | None = None) -> str:
    """Returns a string, or that of an object which may lack it; blanks in it are single ones."""
    text = value.get(key) if isinstance(value, dict) and key else value
    if not isinstance(text, str):
        return ""
    # JSON can spell half a surrogate pair, which no UTF-8 file can hold.
    return " ".join(text.encode("utf-8", "ignore").decode("utf-8").split())


def count_known(kind: str, rows: Collection[str], used: Container[str], report: Report) -> None:
    """Counts rows that were read, of entities or relations of the graph and of others.

    Args:
        kind: of row.
        rows: the ids of which they tell.
        used: those in a triple.
        report: counts them.
    """
    report.see(kind, len(rows))
    count_used(kind, rows, used, report)


def count_entities(entities: Sequence[Entity], report: Report) -> None:
    """Counts the entities of which something is known.

    Args:
        entities: of the bundle.
        report: counts them.
    """
    report.facts["entities"] = len(entities)
    report.facts["entities with a label"] = sum(bool(e.label) for e in entities)
    report.facts["entities with a type"] = sum(bool(e.types) for e in entities)
    report.facts["entities with a description"] = sum(bool(e.description) for e in entities)
