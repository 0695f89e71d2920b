"""MetaQA's graph of films: as released, or by numbers of names (Zhang et al., AAAI 2018)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kbench.errors import DataError
from kbench.knowledge import Bundle, Entity, write_bundle
from kbench.knowledge.importing import (
    Importer,
    ImporterCard,
    Option,
    Options,
    Report,
    fields,
    read_rows,
)
from kbench_tasks.knowledge.cards import LICENCE, card_of, note_unread
from kbench_tasks.knowledge.graphs import Triples, collect, existing
from kbench_tasks.knowledge.linked import SENTENCES, Corpus, joined
from kbench_tasks.knowledge.matrices import packed_or_not

__all__ = ["MetaQAImporter"]

_RELEASE = "kb.txt"
_NUMBERED = ("train.tsv", "dev.tsv", "test_old.tsv")
_NAMES, _RELATIONS = "entity2text.txt", "relation2text.txt"
_HEAD = ("film",)
_TAILS: Mapping[str, tuple[str, ...]] = {
    "directed_by": ("person", "director"),
    "written_by": ("person", "writer"),
    "starred_actors": ("person", "actor"),
    "release_year": ("year",),
    "in_language": ("language",),
    "has_tags": ("tag",),
    "has_genre": ("genre",),
    "has_imdb_votes": ("votes",),
    "has_imdb_rating": ("rating",),
}
_YEAR = "release_year"
_KINDS = {*_HEAD, *(types[0] for types in _TAILS.values())}

Triple = tuple[str, str, str]


@dataclass(frozen=True)
class _Source:
    """The files of one of the two layouts.

    Attributes:
        triples: read one after the other.
        names: of the entities, by line; None where triples spell them.
        relations: likewise of the relations.
    """

    triples: Sequence[Path]
    names: Path | None = None
    relations: Path | None = None

    @property
    def read(self) -> list[str]:
        """The names of the files."""
        return [path.name for path in [*self.triples, *filter(None, (self.names, self.relations))]]


class MetaQAImporter(Importer):
    """kb.txt of the release, or triples of numbers beside the names of what they number.

    An entity is its name, as in the release, which has no other ids: films of one title are one
    entity, and so are a film and a word that are spelled alike. How many names are of several
    kinds, or of a film of several years, is counted. So the questions of MetaQA link by name,
    whichever layout is imported.

    The numbers of entities and relations are those of the lines of entity2text.txt and
    relation2text.txt, counted from 0, whatever number stands in a line; where it is another, it is
    counted. A name without a triple is an entity too.

    The types are what the nine relations have as heads and tails: film; person, and director,
    writer or actor; year, language, tag, genre, votes, rating.
    """

    card = ImporterCard(
        title="MetaQA's graph of films",
        layout="kb.txt (`head|relation|tail` a line); else entity2text.txt, relation2text.txt "
        "(`number TAB name` a line) and train.tsv, dev.tsv, test_old.tsv (`head TAB relation TAB "
        "tail` a line, by number); each plain or .gz, .bz2, .xz",
        source="https://github.com/yuyuz/MetaQA",
        licence="CC BY 3.0",
        citation="Yuyu Zhang, Hanjun Dai, Zornitsa Kozareva, Alexander J. Smola and Le Song: "
        "Variational Reasoning for Question Answering with Knowledge Graph, AAAI 2018",
    )
    options: ClassVar[Mapping[str, Option]] = {
        "triples": Option("name of a file of triples in SRC, in the layout of train.tsv; default: "
                          "kb.txt if it is there, else those of train.tsv, dev.tsv, test_old.tsv "
                          "that are", repeatable=True),
        "name": Option("of the bundle", default="metaqa"),
        "licence": LICENCE,
        "sentences": SENTENCES,
    }  # fmt: skip

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Reads the graph and writes a bundle without vectors."""
        files = _found(source, options.values["triples"], self.card.layout)
        note_unread(report, source, files.read, options)
        named = _numbered(files.names, "names", report) if files.names else {}
        relations = _numbered(files.relations, "relations", report) if files.relations else {}
        read = partial(_by_number, named, relations) if files.names else _spelled
        triples = _triples(files.triples, read, report)
        _count_relations(relations, triples, report)
        types = _types(triples)
        for name in named.values():
            triples.entities.setdefault(name, len(triples.entities))
        _describe(triples, types, report)
        corpus = Corpus(options.paths("sentences"), report)

        def parts() -> Iterator[Entity]:
            for name in triples.entities:
                yield Entity(name, name, types=tuple(types.get(name, ())))
            yield from corpus.named(triples.entities)

        def card() -> dict[str, Any]:
            about = {"name": options.text("name"), "citation": "Zhang et al., AAAI 2018"}
            return card_of(self, options, report, {**about, "files": files.read})

        labels = {relation: relation.replace("_", " ") for relation in triples.relations}
        return write_bundle(
            target, card, parts(), triples.spelled(), labels, corpus.sentences(), join=joined
        )


def _found(source: Path, given: Sequence[str], layout: str) -> _Source:
    """Returns the files of the layout that is there.

    Raises:
        DataError: none is.
    """
    whole = existing(source / _RELEASE)
    if whole and not given:
        return _Source([whole])
    paths = [packed_or_not(source / name) for name in given or _NUMBERED]
    there = [path for path in paths if given or path.exists()]
    if not there:
        raise DataError(source, f"has neither {_RELEASE} nor {_NUMBERED[0]}", layout)
    return _Source(there, packed_or_not(source / _NAMES), packed_or_not(source / _RELATIONS))


def _numbered(path: Path, kind: str, report: Report) -> dict[int, str]:
    """Returns the name in each line of a file of names, by the number of the line from 0."""
    named: dict[int, str] = {}
    others = 0
    rows = read_rows(path, kind, _name, report, "one `number TAB name` a line")
    for line, (number, name) in rows:
        named[line - 1] = name
        others += number != str(line - 1)
    if others:
        report.facts[f"{kind} with the number of another line, read by line"] = others
    if again := len(named) - len({*named.values()}):
        report.facts[f"{kind} that another line has too, joined"] = again
    if kind == "names":
        report.kept[kind] = len(named)
    return named


def _name(line: str) -> tuple[str, str]:
    number, name = fields(line, ["number", "name"])
    return number, name


def _spelled(line: str) -> Triple:
    head, relation, tail = fields(line, ["head", "relation", "tail"], "|")
    return head, relation, tail


def _by_number(named: Mapping[int, str], relations: Mapping[int, str], line: str) -> Triple:
    numbers = fields(line, ["head", "relation", "tail"])
    if not all(number.isdecimal() and len(number) < 19 for number in numbers):
        raise ValueError(f"has {', '.join(numbers)[:40]!r} where three numbers belong")
    head, relation, tail = map(int, numbers)
    if head not in named or tail not in named or relation not in relations:
        raise ValueError(f"has {', '.join(numbers)}, not all of them numbers of a name")
    return named[head], relations[relation].replace(" ", "_"), named[tail]


def _triples(paths: Sequence[Path], read: Callable[[str], Triple], report: Report) -> Triples:
    expected = "one triple a line: `head|relation|tail` in kb.txt, else three numbers and tabs"
    rows = (read_rows(path, "triples", read, report, expected) for path in paths)
    triples = collect((triple for _, triple in chain.from_iterable(rows)), report)
    if not len(triples.rows):
        raise DataError(paths[0], "holds no triple", expected)
    return triples


def _count_relations(relations: Mapping[int, str], triples: Triples, report: Report) -> None:
    if relations:
        used = sum(text.replace(" ", "_") in triples.relations for text in relations.values())
        report.kept["relations"] = used
        if used < len(relations):
            report.drop("relations", "relation without a triple", len(relations) - used)
    if others := sorted(triples.relations.keys() - _TAILS.keys()):
        report.note(f"relations that give no types: {', '.join(others[:10])}")


def _types(triples: Triples) -> Mapping[str, Mapping[str, None]]:
    """Returns the types of each entity, by what the relations are about."""
    types: dict[str, dict[str, None]] = defaultdict(dict)
    for head, relation, tail in triples.spelled():
        if relation in _TAILS:
            types[head].update(dict.fromkeys(_HEAD))
            types[tail].update(dict.fromkeys(_TAILS[relation]))
    return types


def _describe(triples: Triples, types: Mapping[str, Mapping[str, None]], report: Report) -> None:
    """Counts the entities, and those whose name is that of several things as far as one can see."""
    names, facts = triples.entities, report.facts
    folded = Counter(name.casefold() for name in names)
    years = triples.rows[:, 1] == triples.relations.get(_YEAR, -1)
    dated = np.bincount(triples.rows[years, 0])
    facts["entities"] = len(names)
    facts["entities with a type"] = len(types)
    facts["entities without a triple"] = len(names) - len(np.unique(triples.rows[:, [0, 2]]))
    facts["films of several release years"] = int((dated > 1).sum())
    facts["entities of several kinds"] = sum(len(_KINDS & own.keys()) > 1 for own in types.values())
    facts["names that another has but for case"] = sum(folded[n.casefold()] > 1 for n in names)
