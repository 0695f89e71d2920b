"""Triples as text, with names, texts and types of their entities in files beside them."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kbench.errors import DataError
from kbench.knowledge import Bundle, Entity, distinct_facts, write_bundle
from kbench.knowledge.importing import Report, by_id, check_name, fields
from kbench_tasks.knowledge.dialects import AS_FOUND, Dialect, read_table, read_triple_table
from kbench_tasks.knowledge.linked import Corpus, joined, names_of
from kbench_tasks.knowledge.matrices import packed_or_not

__all__ = [
    "GraphFiles",
    "Triples",
    "collect",
    "count_used",
    "existing",
    "misplaced",
    "read_triples",
    "write_graph",
]

_TRIPLES = "one `head TAB relation TAB tail` a line"
_NAMES = "one `id TAB label TAB alias …` a line"
_TEXTS = "one `id TAB text` a line"
_STEP = 1 << 16
_MANY = 10
"""Relations for each tail that no graph has."""
_ITEM, _PROPERTY = re.compile(r"Q\d+"), re.compile(r"P\d+")


@dataclass(frozen=True)
class GraphFiles:
    """Where the parts of a graph lie; triples alone are needed.

    Attributes:
        triples: ``head TAB relation TAB tail``, read one after the other.
        names: ``id TAB label TAB alias …``.
        texts: ``id TAB text``, the descriptions.
        types: ``id TAB type TAB type …``; several rows of an entity add up.
        relations: ``id TAB label TAB alias …``; the aliases are not kept.
        dialect: what is said of how the files are written.
        name: makes label and aliases of the names of an entity; default: the first is the label.
    """

    triples: Sequence[Path]
    names: Path | None = None
    texts: Path | None = None
    types: Path | None = None
    relations: Path | None = None
    dialect: Dialect = AS_FOUND
    name: Callable[[Iterable[str]], tuple[str, tuple[str, ...]]] = names_of

    @property
    def read(self) -> list[str]:
        """The names of the files."""
        beside = (self.names, self.texts, self.types, self.relations)
        return [path.name for path in [*self.triples, *filter(None, beside)]]


@dataclass
class Triples:
    """Facts as numbers, and the numbers of ids.

    Attributes:
        entities: a number for each id; more may be added.
        relations: a number for each relation id.
        rows: rising, each once. ``[triples, 3]``: head, relation, tail.
    """

    entities: dict[str, int] = field(default_factory=dict)
    relations: dict[str, int] = field(default_factory=dict)
    rows: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 3), dtype=np.int32))

    def spelled(self) -> Iterator[tuple[str, str, str]]:
        """Yields the ids of each fact."""
        entities, relations = list(self.entities), list(self.relations)
        for start in range(0, len(self.rows), _STEP):
            for head, relation, tail in self.rows[start : start + _STEP].tolist():
                yield entities[head], relations[relation], entities[tail]


def existing(path: Path) -> Path | None:
    """Returns the path, or that of its .gz, .bz2 or .xz, if there is such a file."""
    there = packed_or_not(path)
    return there if there.exists() else None


def read_triples(
    paths: Iterable[Path],
    report: Report,
    dialect: Dialect = AS_FOUND,
) -> Triples:
    """Reads triples of text, of which each counts once.

    Raises:
        DataError: a file is missing, of another format, or has its columns in another order.
    """
    files = list(paths)
    rows = (read_triple_table(path, _triple, report, _TRIPLES, dialect) for path in files)
    triples = collect((triple for _, triple in chain.from_iterable(rows)), report)
    if len(triples.rows) and not dialect.order:
        if problem := misplaced(triples):
            hint = dialect.hint("order=htr, order=rht, or order=hrt if it is so")
            raise DataError(files[0], problem, _TRIPLES + hint)
        relations = len(triples.relations)
        for column, ends in ((0, "heads"), (2, "tails")):
            if (few := len(np.unique(triples.rows[:, column]))) < relations:
                report.note(f"the triples have {relations} relations and {few} {ends}: the second "
                            f"column is read as the relation{dialect.hint('order=')}")  # fmt: skip
    if _stands_apart(triples.rows):
        report.note("the first triple shares nothing with the others, as a header would; "
                    f"it is kept: {', '.join(next(triples.spelled()))}")  # fmt: skip
    return triples


def _stands_apart(rows: NDArray[np.int32]) -> bool:
    """Whether entities and relation of the first triple read are in no other of many.

    What was read first has the number 0; rows rise by head.
    """
    if len(rows) < 4 or rows[:, 1].max() + 2 > len(rows):
        return False
    tail = rows[0, 2]
    ends = rows[1:, [0, 2]]
    return not ((ends == 0) | (ends == tail)).any() and bool((rows[1:, 1] != 0).all())


def misplaced(triples: Triples) -> str:
    """Returns, in words, why the second column can hardly be the relation, empty if it can.

    Relations are few, and not heads or tails themselves.
    """
    rows = triples.rows
    spelled = list(triples.relations)
    if not len(rows):
        return ""
    if all(_ITEM.fullmatch(name) for name in spelled):
        for column, place in ((0, "first"), (2, "third")):
            if all(_PROPERTY.fullmatch(triple[column]) for triple in triples.spelled()):
                return f"has items (Q…) in its second column and properties (P…) in its {place}"
    ends = np.array([triples.entities.get(name, -1) for name in spelled])
    for column, place, other in ((2, "third", 0), (0, "first", 2)):
        few = len(np.unique(rows[:, column]))
        shared = int(np.isin(ends, rows[:, other]).sum())
        if few < len(spelled) <= 2 * shared:
            return (f"seems to have relations in its {place} column ({few} values): of the "
                    f"{len(spelled)} in the second {shared} are heads or tails too")  # fmt: skip
        if column == 2 and _MANY * few <= len(spelled):
            return f"seems to have {len(spelled)} relations, and {few} tails alone"
    return ""


def collect(rows: Iterable[tuple[str, str, str]], report: Report) -> Triples:
    """Keeps triples as numbers: 12 bytes each, and each once."""
    triples = Triples()
    entities, relations = triples.entities, triples.relations
    numbers = array("i")
    for head, relation, tail in rows:
        numbers.append(entities.setdefault(head, len(entities)))
        numbers.append(relations.setdefault(relation, len(relations)))
        numbers.append(entities.setdefault(tail, len(entities)))
    every = np.frombuffer(numbers, dtype=np.intc).reshape(-1, 3)
    triples.rows = distinct_facts(every)
    report.kept["triples"] = len(triples.rows)
    if again := len(every) - len(triples.rows):
        report.drop("triples", "seen before", again)
    return triples


def count_used(kind: str, named: Collection[str], used: Container[str], report: Report) -> None:
    """Counts what a file tells of relations or entities: a bundle has those that are in a triple.

    Args:
        kind: of row.
        named: of whom it tells.
        used: those in a triple.
        report: counts them.
    """
    report.kept[kind] = kept = sum(name in used for name in named)
    if spare := len(named) - kept:
        owner = "relation" if kind == "relations" else "entity"
        report.drop(kind, f"{owner} without a triple", spare)


def _triple(line: str) -> tuple[str, str, str]:
    head, relation, tail = fields(line, ["head", "relation", "tail"])
    return head, relation, tail


def write_graph(
    target: Path,
    card: Callable[[], Mapping[str, Any]],
    files: GraphFiles,
    corpus: Corpus,
    join: Callable[[Entity, Entity], Entity] = joined,
) -> Bundle:
    """Writes the bundle of all entities that the files speak of, without vectors.

    Texts are not held: they are sorted on disk with the entities.

    Args:
        target: where to.
        card: makes the card when all files have been read.
        files: where the parts lie.
        corpus: the sentences, which may give names to entities without any.
        join: makes one entity of two parts of it, in the order names, text, types, sentences.

    Raises:
        DataError: a file is missing or of another format, or there is no triple.
    """
    report = corpus.report
    triples = read_triples(files.triples, report, files.dialect)
    if not len(triples.rows):
        raise DataError(files.triples[0], "holds no triple", _TRIPLES)
    labels = _relations(files, triples.relations, report)

    def parts() -> Iterator[Entity]:
        yield from map(Entity, list(triples.entities))
        yield from _parts(files, triples.entities, report)
        yield from corpus.named(triples.entities)
        report.facts["entities"] = len(triples.entities)

    return write_bundle(
        target, card, parts(), triples.spelled(), labels, corpus.sentences(), join=join
    )


def _parts(files: GraphFiles, known: dict[str, int], report: Report) -> Iterator[Entity]:
    """Yields what the files beside the triples say of entities, a part for each row."""
    said = files.dialect
    if files.names:
        rows = read_table(files.names, "names", _named, report, _NAMES, known, said)
        for entity, names in _first(rows, "names", known, report):
            label, aliases = files.name(names)
            yield Entity(entity, label, aliases)
    if files.texts:
        texts = read_table(files.texts, "texts", _described, report, _TEXTS, known, said)
        for entity, text in _first(texts, "texts", known, report):
            yield Entity(entity, description=text)
    if files.types:
        expected = "one `id TAB type TAB type …` a line"
        typed = read_table(files.types, "types", _named, report, expected, known, said)
        for entity, types in by_id(typed, "types", report):
            known.setdefault(entity, len(known))
            report.kept["types"] += 1
            yield Entity(entity, types=tuple(types))


def _first(
    rows: Iterable[tuple[int, tuple[str, Any]]],
    kind: str,
    known: dict[str, int],
    report: Report,
) -> Iterator[tuple[str, Any]]:
    """Yields the first row of each id, and gives a number to those that have none."""
    seen = bytearray(len(known))
    before, met, apart = len(known), 0, ""
    for entity, value in by_id(rows, kind, report):
        number = known.setdefault(entity, len(known))
        if number == len(seen):
            seen.append(0)
        if seen[number]:
            report.drop(kind, "id seen before")
            continue
        seen[number] = 1
        met += number < before
        apart = apart if report.kept[kind] or number < before else entity
        report.kept[kind] += 1
        yield entity, value
    if report.kept[kind] and not met:
        report.note(f"none of the ids of the {kind} is in a triple")
    if apart and met > 2 and met == report.kept[kind] - 1:
        report.note(f"{apart!r}, the first id of the {kind}, alone is in no triple, as a header "
                    "would be; it is kept")  # fmt: skip


def _relations(files: GraphFiles, known: Mapping[str, int], report: Report) -> dict[str, str]:
    """Returns the label of each relation of the triples, its id where there is none."""
    labels = dict.fromkeys(known, "")
    others = 0
    path, said = files.relations, files.dialect
    rows = read_table(path, "relations", _named, report, _NAMES, known, said) if path else ()
    for relation, names in by_id(rows, "relations", report):
        if relation not in labels:
            report.drop("relations", "relation without a triple")
        elif labels[relation]:
            report.drop("relations", "id seen before")
        else:
            labels[relation] = names[0]
            others += len(names) - 1
            report.kept["relations"] += 1
    if others:
        report.facts["other names of relations, not kept"] = others
    return {relation: label or relation for relation, label in labels.items()}


def _named(line: str) -> tuple[str, list[str]]:
    """Returns the id as it is written, and all other fields that are not empty, one at least."""
    entity, *others = line.split("\t")
    names = [name for other in others if (name := " ".join(other.split()))]
    if not names:
        raise ValueError("has 1 fields where id and a name belong")
    for name in names:
        check_name("name", name)
    check_name("id", entity.strip())
    return entity, names


def _described(line: str) -> tuple[str, str]:
    entity, separator, text = line.partition("\t")
    if not separator:
        raise ValueError("has 1 fields where id text belong")
    check_name("id", entity.strip())
    return entity, check_name("text", text.strip())
