"""Plain triples in a TSV file, and what is known of their entities in files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from kbench.knowledge import Bundle
from kbench.knowledge.importing import Importer, ImporterCard, Option, Options, Report
from kbench_tasks.knowledge.cards import LICENCE, card_of, note_unread
from kbench_tasks.knowledge.dialects import HEADER, ORDER, QUOTES, Dialect
from kbench_tasks.knowledge.graphs import GraphFiles, existing, write_graph
from kbench_tasks.knowledge.linked import SENTENCES, Corpus

__all__ = ["TsvImporter"]


class TsvImporter(Importer):
    """Triples of your own: `head TAB relation TAB tail` a line, and files beside them if there.

    Those are labels.tsv (`id TAB label TAB alias…`), descriptions.tsv (`id TAB text`), types.tsv
    (`id TAB type TAB type…`) and relations.tsv (`id TAB label`). The bundle holds every entity
    that one of the files speaks of. A header that names the columns, and quotation marks as csv
    writes them, are recognised where they are certain; the options settle what is not.
    """

    revision = "2"
    card = ImporterCard(
        title="triples in a TSV file",
        layout="triples.tsv and, if there, labels.tsv, descriptions.tsv, types.tsv, relations.tsv, "
        "each plain or .gz, .bz2, .xz",
        source="a folder of your own",
        licence="as stated by whoever gave you the triples",
    )
    options: ClassVar[Mapping[str, Option]] = {
        "triples": Option("name of a file of triples in SRC", default="triples.tsv",
                          repeatable=True),
        "order": ORDER,
        "header": HEADER,
        "quotes": QUOTES,
        "name": Option("of the bundle; default: the name of SRC"),
        "licence": LICENCE,
        "sentences": SENTENCES,
    }  # fmt: skip

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Reads the files and writes a bundle without vectors."""
        given = [source / name for name in options.values["triples"]]
        files = GraphFiles(
            triples=[existing(path) or path for path in given],
            names=existing(source / "labels.tsv"),
            texts=existing(source / "descriptions.tsv"),
            types=existing(source / "types.tsv"),
            relations=existing(source / "relations.tsv"),
            dialect=_dialect(options),
        )

        note_unread(report, source, files.read, options)

        def card() -> dict[str, Any]:
            about = {"name": options.text("name") or source.resolve().name, "files": files.read}
            return card_of(self, options, report, about)

        return write_graph(target, card, files, Corpus(options.paths("sentences"), report))


def _dialect(options: Options) -> Dialect:
    return Dialect(
        header=options.text("header") or "auto",
        quotes=options.text("quotes") or "auto",
        order=options.text("order"),
        hints=True,
    )
