"""OpenKE-style vectors: a matrix and the ids of its rows (the Knowledge-Plugin release)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from kbench.errors import DataError
from kbench.knowledge import Bundle
from kbench.knowledge.importing import Importer, ImporterCard, Option, Options, Report
from kbench_tasks.knowledge.cards import LICENCE, card_of
from kbench_tasks.knowledge.linked import SENTENCES, Corpus
from kbench_tasks.knowledge.matrices import (
    ENTITIES,
    TITLES,
    Matrix,
    count_vectors,
    load_matrix,
    packed_or_not,
    read_ids,
    titles_path,
    write_matrix,
)

__all__ = ["OpenKEImporter"]


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
        "entities": ENTITIES,
        "titles": TITLES,
        "name": Option("of the bundle; default: the name of the matrix"),
        "licence": LICENCE,
        "sentences": SENTENCES,
    }

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Reads ids, titles and sentences, writes them, then adds the vectors."""
        path = _matrix_path(source, options.text("vectors"))
        values = load_matrix(path)
        numbers = read_ids(
            packed_or_not(source / (options.text("entities") or "")), len(values), report
        )
        report.facts["rows of the matrix without an id"] = len(values) - len(numbers)
        origin = {"format": "openke", "file": path.name, "type": str(values.dtype)}
        corpus = Corpus(options.paths("sentences"), report)

        def card() -> dict[str, Any]:
            about = {"name": options.text("name") or path.stem, "title": f"vectors of {path.name}"}
            return card_of(self, options, report, {**about, "files": [path.name]})

        titles = titles_path(source, options)
        bundle = write_matrix(target, card, Matrix(values, numbers, origin), titles, corpus)
        count_vectors(bundle, report)
        return bundle


def _matrix_path(source: Path, name: str | None) -> Path:
    if name:
        return source / name
    paths = sorted(source.glob("*.npy"))
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths) or "none"
        raise DataError(source, f"holds {len(paths)} .npy files ({names})",
                        "exactly one, or its name: -o vectors=FILE.npy")  # fmt: skip
    return paths[0]
