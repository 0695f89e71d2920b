"""Wikidata5M: facts, names and texts of five million entities (Wang et al., TACL 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from kbench.knowledge import Bundle
from kbench.knowledge.importing import Importer, ImporterCard, Option, Options, Report
from kbench_tasks.knowledge.cards import LICENCE, card_of, note_unread
from kbench_tasks.knowledge.graphs import GraphFiles, existing, write_graph
from kbench_tasks.knowledge.linked import SENTENCES, Corpus

__all__ = ["Wikidata5MImporter"]

_SPLITS = tuple(f"wikidata5m_transductive_{split}.txt" for split in ("train", "valid", "test"))
_ALL = "wikidata5m_all_triplet.txt"


class Wikidata5MImporter(Importer):
    """Triples, aliases (the first is the label), relation aliases and texts, unpacked in a folder.

    The triples are those of the three transductive splits or, where none of them is there, of
    the one file of all triples. `-o triples=FILE` names the files to read instead: so a split
    can be held out.
    """

    card = ImporterCard(
        title="Wikidata5M",
        layout="wikidata5m_transductive_{train,valid,test}.txt or wikidata5m_all_triplet.txt and, "
        "if there, wikidata5m_{entity,relation,text}.txt, each plain or .gz, .bz2, .xz",
        source="https://deepgraphlearning.github.io/project/wikidata5m",
        licence="CC0-1.0 (Wikidata); texts from Wikipedia, CC-BY-SA",
    )
    options: ClassVar[Mapping[str, Option]] = {
        "triples": Option("name of a file of triples in SRC; default: all", repeatable=True),
        "name": Option("of the bundle", default="wikidata5m"),
        "licence": LICENCE,
        "sentences": SENTENCES,
    }

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Reads the release and writes a bundle without vectors."""
        files = GraphFiles(
            triples=_triples(source, options.values["triples"]),
            names=existing(source / "wikidata5m_entity.txt"),
            texts=existing(source / "wikidata5m_text.txt"),
            relations=existing(source / "wikidata5m_relation.txt"),
        )

        note_unread(report, source, files.read, options)

        def card() -> dict[str, Any]:
            about = {"name": options.text("name"), "citation": "Wang et al., TACL 2021"}
            return card_of(self, options, report, {**about, "files": files.read})

        return write_graph(target, card, files, Corpus(options.paths("sentences"), report))


def _triples(source: Path, given: tuple[str, ...]) -> list[Path]:
    """Returns the files to read; one that is not there is found missing when it is read."""
    names = given or _SPLITS
    split = any(existing(source / name) for name in _SPLITS)
    if not given and not split and existing(source / _ALL):
        names = (_ALL,)
    return [existing(source / name) or source / name for name in names]
