"""OpenKE-style vectors: a matrix and the ids of its rows (the Knowledge-Plugin release)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kbench.bundle import Bundle
from kbench.errors import DataError
from kbench.importing import Importer, ImporterCard, Option, Options, Report, fields, read_rows
from kbench.knowledge import Entity, Rows
from kbench.writing import write_bundle, write_vectors
from kbench_tasks.knowledge.linked import SENTENCES, names_of, read_sentences

__all__ = ["OpenKEImporter", "read_ids"]

_IDS = "first line the number of entities, then one `id row` a line"
_TITLES = "one `title TAB id` a line"


class OpenKEImporter(Importer):
    """A .npy matrix of entity vectors, entity2id.txt, and titles in entity_map.txt if there.

    The matrix is read through a memory map and written row by row in the order of the bundle,
    so its size is not bounded by memory. An entity whose row holds NaN or infinity stays in the
    bundle without a vector.
    """

    card = ImporterCard(
        title="OpenKE vectors (Knowledge-Plugin)",
        layout="one .npy matrix [entities, dimension], entity2id.txt and, if there, entity_map.txt",
        source="https://github.com/thunlp/Knowledge-Plugin",
        licence="as stated by whoever gave you the vectors",
    )
    options: ClassVar[Mapping[str, Option]] = {
        "vectors": Option("name of the .npy file in SRC; default: the only one"),
        "entities": Option("name of the file of ids in SRC", default="entity2id.txt"),
        "titles": Option("name of the file of titles in SRC; default: entity_map.txt if there"),
        "name": Option("of the bundle; default: the name of the matrix"),
        "licence": Option("of the vectors"),
        "sentences": SENTENCES,
    }

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Reads ids, titles and sentences, writes them, then adds the vectors."""
        path = _matrix_path(source, options.text("vectors"))
        matrix = _matrix(path)
        numbers = _numbers(source / (options.text("entities") or ""), len(matrix), report)
        report.facts["rows of the matrix without an id"] = len(matrix) - len(numbers)
        titles = _titles(source, options.text("titles"), numbers, report)
        sentences, surfaces = read_sentences(options.paths("sentences"), numbers, report)
        card = {
            "name": options.text("name") or path.stem,
            "version": "1",
            "title": f"vectors of {path.name}",
            "licence": options.text("licence") or self.card.licence,
            "source": self.card.source,
            "import": {
                "format": "openke",
                "revision": self.revision,
                "vectors": path.name,
                "sentences": [file.name for file in options.paths("sentences")],
                **report.as_json(),
            },
        }
        entities = (
            Entity(entity, *names_of([*titles.get(entity, ()), *surfaces.get(entity, ())]))
            for entity in numbers
        )
        write_bundle(target, card, entities, sentences=sentences)
        origin = {"format": "openke", "file": path.name, "type": str(matrix.dtype)}
        bundle = write_vectors(target, matrix, origin, _order(numbers))
        _count_vectors(bundle, report)
        return bundle


def read_ids(path: Path, report: Report) -> Iterator[tuple[str, int]]:
    """Yields the ids of an ``entity2id.txt``, each with its row in the matrix.

    Raises:
        DataError: the file cannot be read, or holds more or fewer rows than it states.
    """
    stated = _stated(path)
    for _, pair in read_rows(path, "entities", _numbered, report, _IDS, header=1):
        yield pair
    if report.read["entities"] != stated:
        problem = f"holds {report.read['entities']} rows and states {stated}"
        raise DataError(path, problem, _IDS, line=1)


def _matrix_path(source: Path, name: str | None) -> Path:
    if name:
        return source / name
    found = sorted(source.glob("*.npy"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(source, f"holds {len(found)} .npy files ({names})",
                        "exactly one, or its name: -o vectors=FILE.npy")  # fmt: skip
    return found[0]


def _matrix(path: Path) -> Any:
    expected = "a .npy matrix [entities, dimension] of floating-point numbers"
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(path, "is missing", expected) from None
    except (OSError, ValueError, EOFError) as cause:
        raise DataError(path, f"cannot be read ({cause})", expected) from None
    if not isinstance(matrix, np.ndarray):
        raise DataError(path, "is an archive of arrays", expected)
    if matrix.ndim != 2 or not matrix.size:
        raise DataError(path, f"has the shape {list(matrix.shape)}", expected)
    if matrix.dtype.kind != "f":
        raise DataError(path, f"holds {matrix.dtype}", expected)
    return matrix


def _numbers(path: Path, rows: int, report: Report) -> dict[str, int]:
    """Returns the row of the matrix of each id."""
    found: dict[str, int] = {}
    taken = np.zeros(rows, dtype=bool)
    for entity, row in read_ids(path, report):
        if row >= rows:
            report.drop("entities", "row outside the matrix")
        elif entity in found:
            report.drop("entities", "id seen before")
        elif taken[row]:
            report.drop("entities", "row of another id")
        else:
            found[entity] = row
            taken[row] = True
            report.kept["entities"] += 1
    read = report.read["entities"]
    if 2 * len(found) < read:
        raise DataError(path, f"fits {len(found)} of {read} ids to a matrix of {rows} rows", _IDS)
    return found


def _stated(path: Path) -> int:
    try:
        with path.open("rb") as file:
            first = file.readline(1000).strip().removeprefix(b"\xef\xbb\xbf")
    except OSError as cause:
        raise DataError(path, f"cannot be read ({cause.strerror})", _IDS) from None
    if not first.isdigit():
        raise DataError(path, f"begins with {first[:40]!r}", _IDS, line=1)
    return int(first)


def _numbered(line: str) -> tuple[str, int]:
    entity, row = fields(line, ["id", "row"], separator=None)
    if not (row.isascii() and row.isdigit()):
        raise ValueError(f"has the row {row!r}, which is no number")
    return entity, int(row)


def _titles(
    source: Path, name: str | None, known: Mapping[str, int], report: Report
) -> dict[str, list[str]]:
    """Returns the titles of each id, in the order of the file."""
    path = source / (name or "entity_map.txt")
    found: dict[str, list[str]] = {}
    if name is None and not path.exists():
        return found
    for _, (title, entity) in read_rows(path, "titles", _titled, report, _TITLES):
        if entity not in known:
            report.drop("titles", "entity without a vector")
            continue
        found.setdefault(entity, []).append(title)
        report.kept["titles"] += 1
    return found


def _titled(line: str) -> tuple[str, str]:
    title, entity = fields(line, ["title", "id"])
    return title, entity


def _order(numbers: Mapping[str, int]) -> Rows:
    """Returns the row of the matrix of each row of the bundle: bundles are in the order of ids."""
    ids = sorted(numbers, key=str.encode)
    return np.fromiter((numbers[entity] for entity in ids), dtype=np.int64, count=len(ids))


def _count_vectors(bundle: Bundle, report: Report) -> None:
    total, covered = len(bundle), int(bundle.card["vectors"]["entities"])
    report.read["vectors"] = total
    report.kept["vectors"] = covered
    if covered < total:
        report.drop("vectors", "NaN or infinite", total - covered)
