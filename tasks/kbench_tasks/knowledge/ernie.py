"""ERNIE: Wikidata vectors as text, a row of numbers a line (Zhang et al., ACL 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from kbench.errors import DataError
from kbench.knowledge import Bundle
from kbench.knowledge.importing import Importer, ImporterCard, Option, Options, Report
from kbench_tasks.knowledge.cards import LICENCE, card_of, note_unread
from kbench_tasks.knowledge.linked import SENTENCES, Corpus
from kbench_tasks.knowledge.matrices import (
    ENTITIES,
    TITLES,
    Matrix,
    packed_or_not,
    read_ids,
    stated,
    titles_path,
    write_matrix,
)
from kbench_tasks.knowledge.text_vectors import KIND, RowFile, TextLayout, read_vectors

__all__ = ["ErnieImporter"]

_VECTORS = "one row of numbers a line, by tabs or blanks, for each of the ids, in their order"


class ErnieImporter(Importer):
    """The kg_embed folder of ERNIE: text vectors by the rows of entity2id.txt, titles if there.

    The text is parsed a block at a time. A malformed row keeps its place, and an entity whose
    row is malformed or holds NaN or infinity stays in the bundle without a vector.
    """

    card = ImporterCard(
        title="ERNIE (TransE vectors of Wikidata as text)",
        layout="kg_embed: entity2vec.vec, entity2id.txt and, if there, entity_map.txt",
        source="https://github.com/thunlp/ERNIE",
        licence="as stated by whoever gave you the vectors",
        citation="Zhengyan Zhang, Xu Han, Zhiyuan Liu, Xin Jiang, Maosong Sun and Qun Liu: "
        "ERNIE: Enhanced Language Representation with Informative Entities, ACL 2019",
    )
    options: ClassVar[Mapping[str, Option]] = {
        "vectors": Option("name of the file of vectors in SRC", default="entity2vec.vec"),
        "entities": ENTITIES,
        "titles": TITLES,
        "name": Option("of the bundle", default="ernie"),
        "licence": LICENCE,
        "sentences": SENTENCES,
    }

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Parses the vectors, reads ids, titles and sentences, and writes all of it."""
        path = packed_or_not(source / (options.text("vectors") or ""))
        ids = packed_or_not(source / (options.text("entities") or ""))
        expected = stated(ids)
        titles = titles_path(source, options)
        files = [path.name, ids.name, *([titles.name] if titles else [])]
        note_unread(report, source, files, options)
        corpus = Corpus(options.paths("sentences"), report)
        with TemporaryDirectory(dir=target.parent) as work:
            rows = RowFile(Path(work) / "rows")
            for _, vectors in read_vectors(path, TextLayout(_VECTORS), report):
                rows.append(vectors)
            if len(rows) != expected:
                problem = f"holds {len(rows)} rows for the {expected} ids that {ids.name} states"
                raise DataError(path, problem, _VECTORS)
            numbers = read_ids(ids, len(rows), report)
            _count_vectors(rows, numbers, report)
            origin = {"format": "ernie", "file": path.name}

            def card() -> dict[str, Any]:
                about = {"name": options.text("name"), "citation": "Zhang et al., ACL 2019"}
                return card_of(self, options, report, {**about, "files": [path.name]})

            matrix = Matrix(rows.matrix(), numbers, origin)
            return write_matrix(target, card, matrix, titles, corpus)


def _count_vectors(rows: RowFile, numbers: Mapping[str, int], report: Report) -> None:
    known = rows.known
    used = np.fromiter(numbers.values(), dtype=np.int64, count=len(numbers))
    report.kept[KIND] = int(known[used].sum())
    if spare := int(known.sum()) - report.kept[KIND]:
        report.drop(KIND, "no id", spare)
