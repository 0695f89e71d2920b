"""Wikidata5M: facts, names and texts of five million entities (Wang et al., TACL 2021)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

from kbench.knowledge import Bundle, Entity
from kbench.knowledge.importing import Importer, ImporterCard, Option, Options, Report
from kbench_tasks.knowledge.cards import LICENCE, card_of, note_unread
from kbench_tasks.knowledge.graphs import GraphFiles, existing, write_graph
from kbench_tasks.knowledge.linked import SENTENCES, Corpus, joined, names_of

__all__ = ["Wikidata5MImporter"]

_SPLITS = tuple(f"wikidata5m_transductive_{split}.txt" for split in ("train", "valid", "test"))
_LOOKED = 400
"""Characters of a text that a name is looked for at the start of."""
_ARTICLES = ("the", "a", "an")
_SHARED = "labels whose first words begin the text"
_TEXT = "labels that the text begins with"
_CAPITAL = "labels that are the longest capitalised name"
_FIRST = "labels that are the first name"
_ALL = "wikidata5m_all_triplet.txt"


class Wikidata5MImporter(Importer):
    """Triples, aliases, relation aliases and texts, plain or packed in a folder.

    The release has the names of an entity in no order, a nickname often first. The label is the
    longest of them that the text of the entity begins with; else, the one of which most first words
    begin it; else, the longest that begins with a capital; else, the first. All others are aliases.
    The label of a relation is its first name.

    The triples are those of the three transductive splits or, where none of them is there, of
    the one file of all triples. `-o triples=FILE` names the files to read instead: so a split
    can be held out.
    """

    revision = "2"
    card = ImporterCard(
        title="Wikidata5M",
        layout="wikidata5m_transductive_{train,valid,test}.txt or wikidata5m_all_triplet.txt and, "
        "if there, wikidata5m_{entity,relation,text}.txt, each plain or .gz, .bz2, .xz",
        source="https://deepgraphlearning.github.io/project/wikidata5m",
        licence="CC0-1.0 (Wikidata); texts from Wikipedia, CC-BY-SA",
        citation="Xiaozhi Wang, Tianyu Gao, Zhaocheng Zhu, Zhengyan Zhang, Zhiyuan Liu, Juanzi "
        "Li and Jian Tang: KEPLER: A Unified Model for Knowledge Embedding and Pre- "
        "trained Language Representation, TACL 2021",
    )
    options: ClassVar[Mapping[str, Option]] = {
        "triples": Option("name of a file of triples in SRC; default: all", repeatable=True),
        "name": Option("of the bundle", default="wikidata5m"),
        "licence": LICENCE,
        "sentences": SENTENCES,
    }

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Reads the release and writes a bundle without vectors."""
        labels = _Labels(report)
        files = GraphFiles(
            triples=_triples(source, options.values["triples"]),
            names=existing(source / "wikidata5m_entity.txt"),
            texts=existing(source / "wikidata5m_text.txt"),
            relations=existing(source / "wikidata5m_relation.txt"),
            name=labels.of_names,
        )

        note_unread(report, source, files.read, options)

        def card() -> dict[str, Any]:
            about = {"name": options.text("name"), "citation": "Wang et al., TACL 2021"}
            return card_of(self, options, report, {**about, "files": files.read})

        corpus = Corpus(options.paths("sentences"), report)
        return write_graph(target, card, files, corpus, labels.joined)


class _Labels:
    """Chooses the labels of entities among their names, and counts how.

    Args:
        report: where how many labels were chosen by which rule is a fact.
    """

    def __init__(self, report: Report) -> None:
        self._facts = report.facts

    def of_names(self, names: Iterable[str]) -> tuple[str, tuple[str, ...]]:
        """Returns label and aliases as the names alone tell."""
        given = list(names)
        capitals = [name for name in given if name[:1].isupper()]
        label = max(capitals, key=len, default=given[0])
        self._count(_CAPITAL if capitals else _FIRST, 1)
        return names_of([label, *capitals, *given])  # so one in capitals is kept of two

    def joined(self, first: Entity, second: Entity) -> Entity:
        """Returns two parts as one; where a text joins names it chooses the label anew."""
        whole = joined(first, second)
        if not (first.label and second.description and not first.description):
            return whole
        names = [whole.label, *whole.aliases]
        label, shared = _opening(whole.description, names)
        if not shared:
            return whole
        self._count(_TEXT if shared == len(_words(label)) else _SHARED, 1)
        self._count(_CAPITAL if any(name[:1].isupper() for name in names) else _FIRST, -1)
        others = tuple(name for name in names if name != label)
        return replace(whole, label=label, aliases=others)

    def _count(self, rule: str, number: int) -> None:
        self._facts[rule] = self._facts.get(rule, 0) + number


def _opening(text: str, names: Sequence[str]) -> tuple[str, int]:
    """Returns the name that fits the first words of a text, and how many of its words are there.

    The longest that is there as a whole, else the one with most of its first words there.
    """
    opening = _words(text[:_LOOKED])

    def fit(name: str) -> tuple[bool, int, bool, int]:
        words = _words(name)
        pairs = zip(words, opening, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return 0 < shared == len(words), shared, name[:1].isupper(), len(name)

    best = max(names, key=fit)
    return best, fit(best)[1]


def _words(text: str) -> list[str]:
    """Returns the words of a text in a normal form, without an article before them."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    return words[1:] if len(words) > 1 and words[0] in _ARTICLES else words


def _triples(source: Path, given: tuple[str, ...]) -> list[Path]:
    """Returns the files to read; one that is not there is found missing when it is read."""
    names = given or _SPLITS
    split = any(existing(source / name) for name in _SPLITS)
    if not given and not split and existing(source / _ALL):
        names = (_ALL,)
    return [existing(source / name) or source / name for name in names]
