"""Entities by the rows of a matrix: ids, titles and sentences beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kbench.errors import DataError, first_line
from kbench.knowledge import Bundle, Entity, Vectors, Words, in_blocks, write_bundle, write_vectors
from kbench.knowledge.importing import PACKED, Option, Options, Report, by_id, fields, read_rows
from kbench_tasks.knowledge.dialects import read_titles
from kbench_tasks.knowledge.linked import Corpus, joined
from kbench_tasks.knowledge.text_vectors import read_header

__all__ = [
    "ENTITIES",
    "TITLES",
    "Matrix",
    "add_vectors",
    "count_vectors",
    "load_matrix",
    "numbered_ids",
    "packed_or_not",
    "read_ids",
    "stated",
    "titles_path",
    "write_matrix",
]

ENTITIES = Option("name of the file of ids in SRC", default="entity2id.txt")
TITLES = Option("name of the file of titles in SRC; default: entity_map.txt if there")

_IDS = "first line the number of entities, then one `id TAB row` or `id row` a line"
_TITLES = "one `title TAB id` a line"


@dataclass(frozen=True)
class Matrix:
    """Vectors by row, and the row of each entity.

    Attributes:
        values: ``[rows, dimension]``; may be a memory map.
        numbers: the row of each id.
        origin: how the vectors came about, for the card.
    """

    values: Vectors
    numbers: Mapping[str, int]
    origin: Mapping[str, Any] = field(default_factory=dict)


def load_matrix(path: Path, kinds: str = "f") -> Any:
    """Maps a matrix of floating-point numbers. ``[entities, dimension]``.

    Args:
        path: a .npy file.
        kinds: of NumPy types that are allowed.

    Raises:
        DataError: the file is missing or holds something else.
    """
    expected = "a .npy matrix [entities, dimension] of floating-point numbers"
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(path, "is missing", expected) from None
    except (OSError, ValueError, EOFError) as cause:
        raise DataError(path, f"cannot be read ({first_line(cause)})", expected) from None
    if not isinstance(matrix, np.ndarray):
        raise DataError(path, "is an archive of arrays", expected)
    if matrix.ndim != 2 or not matrix.size:
        raise DataError(path, f"has the shape {list(matrix.shape)}", expected)
    if matrix.dtype.kind not in kinds:
        raise DataError(path, f"holds {matrix.dtype}", expected)
    return matrix


def stated(path: Path) -> int:
    """Returns the number of entities that a file of ids states in its first line."""
    return read_header(path, 1, _IDS)[0]


def numbered_ids(path: Path, report: Report, kind: str = "entities") -> Iterator[tuple[str, int]]:
    """Yields the ids of an entity2id.txt, each with its row in the matrix.

    Args:
        path: the file; a relation2id.txt has the same form.
        report: counts the rows.
        kind: what they are, for the report.

    Raises:
        DataError: the file cannot be read, or holds more or fewer rows than it states.
    """
    expected = stated(path)
    before = report.read[kind]
    yield from by_id(read_rows(path, kind, _numbered, report, _IDS, header=1), kind, report)
    read = report.read[kind] - before
    if read != expected:
        raise DataError(path, f"holds {read} rows and states {expected}", _IDS, line=1)


def read_ids(path: Path, rows: int, report: Report) -> dict[str, int]:
    """Returns the row of a matrix of ``rows`` rows for each id.

    Raises:
        DataError: the file is missing, does not hold as many ids as it states, or most of its
            rows are not of the matrix.
    """
    before = report.read["entities"]
    row_of: dict[str, int] = {}
    taken = np.zeros(rows, dtype=bool)
    for entity, row in numbered_ids(path, report):
        if row >= rows:
            report.drop("entities", "row outside the matrix")
        elif entity in row_of:
            report.drop("entities", "id seen before")
        elif taken[row]:
            report.drop("entities", "row of another id")
        else:
            row_of[entity] = row
            taken[row] = True
            report.kept["entities"] += 1
    read = report.read["entities"] - before
    if 2 * len(row_of) < read:
        raise DataError(path, f"fits {len(row_of)} of {read} ids to a matrix of {rows} rows", _IDS)
    return row_of


def _numbered(line: str) -> tuple[str, int]:
    """Splits at the tab or, where there is none, at the last blank: ids may hold blanks."""
    parts = line.rstrip().split("\t") if "\t" in line else line.rsplit(None, 1)
    _, row = fields("\t".join(parts), ["id", "row"])
    entity = parts[0]
    if not (row.isascii() and row.isdigit()):
        raise ValueError(f"has the row {row!r}, which is no number")
    return entity, int(row)


def packed_or_not(path: Path) -> Path:
    """Returns the path, or that of its .gz, .bz2 or .xz if only that is there."""
    names = (path.name, *(path.name + ending for ending in PACKED))
    return next((there for name in names if (there := path.with_name(name)).exists()), path)


def titles_path(source: Path, options: Options) -> Path | None:
    """Returns the file of titles: the one asked for, else entity_map.txt if it is there."""
    name, usual = options.text("titles"), packed_or_not(source / "entity_map.txt")
    return packed_or_not(source / name) if name else usual if usual.exists() else None


def write_matrix(
    target: Path,
    card: Callable[[], Mapping[str, Any]],
    matrix: Matrix,
    titles: Path | None,
    corpus: Corpus,
    triples: Iterable[tuple[str, str, str]] = (),
) -> Bundle:
    """Writes a bundle of the entities of a matrix, their titles, a corpus, and the vectors.

    Args:
        target: where to.
        card: makes the card when all files have been read.
        matrix: the vectors and ids.
        titles: lines ``title TAB id``, if there are any; the first title of an id is its label.
        corpus: the sentences, which may give names to entities without a title.
        triples: facts of the entities, by id.
    """

    def parts() -> Iterator[Entity]:
        yield from map(Entity, matrix.numbers)
        if titles:
            yield from _titles(titles, matrix.numbers, corpus.report)
        yield from corpus.named(matrix.numbers)

    bundle = write_bundle(target, card, parts(), triples, None, corpus.sentences(), join=joined)
    return add_vectors(bundle, matrix)


def add_vectors(bundle: Bundle, matrix: Matrix, words: Words | None = None) -> Bundle:
    """Adds the vectors of a matrix to the bundle of its entities."""
    order = np.full(len(bundle), -1, dtype=np.int64)
    for block in in_blocks(matrix.numbers.items()):
        ids, rows = zip(*block, strict=True)
        order[bundle.rows(ids)] = rows
    return write_vectors(bundle.folder, matrix.values, matrix.origin, order, words)


def count_vectors(bundle: Bundle, report: Report) -> None:
    """Counts the rows of a matrix that became vectors, and those that could not."""
    total, covered = len(bundle), int(bundle.card["vectors"]["entities"])
    report.read["vectors"] = total
    report.kept["vectors"] = covered
    if covered < total:
        report.drop("vectors", "NaN or infinite", total - covered)


def _titles(path: Path, known: Mapping[str, int], report: Report) -> Iterator[Entity]:
    for entity, title in by_id(
        read_titles(path, "titles", _titled, report, _TITLES), "titles", report
    ):
        if entity not in known:
            report.drop("titles", "entity without a vector")
            continue
        report.kept["titles"] += 1
        yield Entity(entity, title)


def _titled(line: str) -> tuple[str, str]:
    title, _ = fields(line, ["title", "id"])
    return line.partition("\t")[2], title
