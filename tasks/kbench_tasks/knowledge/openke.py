"""OpenKE-style vectors: a matrix and the ids of its rows (the Knowledge-Plugin release)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kbench.errors import DataError
from kbench.knowledge import Bundle
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
from kbench_tasks.knowledge.graphs import collect, count_used, misplaced
from kbench_tasks.knowledge.linked import SENTENCES, Corpus
from kbench_tasks.knowledge.matrices import (
    ENTITIES,
    TITLES,
    Matrix,
    count_vectors,
    load_matrix,
    numbered_ids,
    packed_or_not,
    read_ids,
    titles_path,
    write_matrix,
)
from kbench_tasks.knowledge.text_vectors import read_header

__all__ = ["OpenKEImporter", "numbered_triples"]

_TRIPLES = "first line the number of triples, then one `head tail relation` a line, by number"


class OpenKEImporter(Importer):
    """A .npy matrix of entity vectors, entity2id.txt, and if there titles and triples.

    Titles are those of entity_map.txt, triples those of train2id.txt, valid2id.txt and test2id.txt,
    by the numbers of entity2id.txt and relation2id.txt. `-o triples=FILE` names the files to read
    instead: so a split can be held out.

    The matrix is read through a memory map and written row by row in the order of the bundle,
    so its size is not bounded by memory. An entity whose row holds NaN or infinity stays in the
    bundle without a vector.
    """

    revision = "2"
    card = ImporterCard(
        title="OpenKE vectors (Knowledge-Plugin)",
        layout="one .npy matrix [entities, dimension], entity2id.txt and, if there, "
        "entity_map.txt, {train,valid,test}2id.txt, relation2id.txt",
        source="https://github.com/thunlp/Knowledge-Plugin",
        licence="as stated by whoever gave you the vectors",
        citation="Zhengyan Zhang, Zhiyuan Zeng, Yankai Lin, Huadong Wang, Deming Ye, Chaojun "
        "Xiao, Xu Han, Zhiyuan Liu, Peng Li, Maosong Sun and Jie Zhou: Plug-and-Play "
        "Knowledge Injection for Pre-trained Language Models, ACL 2023",
    )
    options: ClassVar[Mapping[str, Option]] = {
        "vectors": Option("name of the .npy file in SRC; default: the only one"),
        "entities": ENTITIES,
        "titles": TITLES,
        "triples": Option("name of a file of triples in SRC; default: those of "
                          "train2id.txt, valid2id.txt, test2id.txt that are there",
                          repeatable=True),
        "order": Option("of their columns: h head, r relation, t tail; default: htr, refused where "
                        "it looks wrong", choices=("htr", "hrt")),
        "name": Option("of the bundle; default: the name of the matrix"),
        "licence": LICENCE,
        "sentences": SENTENCES,
    }  # fmt: skip

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Reads ids, triples, titles and sentences, writes them, then adds the vectors."""
        path = _matrix_path(source, options.text("vectors"))
        ids = packed_or_not(source / (options.text("entities") or ""))
        titles = titles_path(source, options)
        splits = _splits(source, options.values["triples"])
        names = packed_or_not(source / "relation2id.txt")
        files = [
            file.name for file in [path, *splits, *([names] if splits else [])] if file.exists()
        ]
        beside = [ids.name, *([titles.name] if titles else [])]
        note_unread(report, source, [*files, *beside], options)
        values = load_matrix(path)
        numbers = read_ids(ids, len(values), report)
        report.facts["rows of the matrix without an id"] = len(values) - len(numbers)
        relations = _relations(names, report) if splits else {}
        triples = collect(_triples(splits, relations, numbers, options, report), report)
        if not options.text("order") and misplaced(triples):
            tails = len(np.unique(triples.rows[:, 2]))
            problem = f"seems to have {len(triples.relations)} relations and {tails} tails"
            expected = f"{_TRIPLES}; or say which: -o order=hrt, or order=htr if it is so"
            raise DataError(splits[0], problem, expected)
        if relations:
            count_used("relations", relations.values(), triples.relations, report)
        origin = {"format": "openke", "file": path.name, "type": str(values.dtype)}
        corpus = Corpus(options.paths("sentences"), report)

        def card() -> dict[str, Any]:
            about = {"name": options.text("name") or path.stem, "title": f"vectors of {path.name}"}
            return card_of(self, options, report, {**about, "files": files})

        matrix = Matrix(values, numbers, origin)
        bundle = write_matrix(target, card, matrix, titles, corpus, triples.spelled())
        count_vectors(bundle, report)
        return bundle


def _splits(source: Path, given: Sequence[str]) -> list[Path]:
    """Returns the files of triples: those asked for, else the usual ones that are there."""
    if given:
        return [packed_or_not(source / name) for name in given]
    usual = (packed_or_not(source / f"{split}2id.txt") for split in ("train", "valid", "test"))
    return [path for path in usual if path.exists()]


def _relations(names: Path, report: Report) -> dict[int, str]:
    """Returns the names of relations by their numbers; none where there is no file of them."""
    if not names.exists():
        report.note("there is no relation2id.txt: relations go by their numbers")
        return {}
    return {at: name for name, at in numbered_ids(names, report, "relations")}


def _triples(
    paths: Sequence[Path],
    relations: Mapping[int, str],
    numbers: Mapping[str, int],
    options: Options,
    report: Report,
) -> Iterator[tuple[str, str, str]]:
    """Yields the triples by name; a relation goes by its number where there are no names."""
    entities = {row: name for name, row in numbers.items()} if paths else {}
    for path in paths:
        yield from numbered_triples(
            path, entities, relations, report, options.text("order") or "htr"
        )


def numbered_triples(
    path: Path,
    entities: Mapping[int, str],
    relations: Mapping[int, str],
    report: Report,
    order: str = "htr",
    unknown: str = "entity without a row of the matrix",
) -> Iterator[tuple[str, str, str]]:
    """Yields the triples of a train2id.txt and the like, by name.

    Args:
        path: the file.
        entities: their names by number; triples of others are left out.
        relations: theirs; where there are none, a relation goes by its number.
        report: counts the triples.
        order: of the columns.
        unknown: why a triple of an entity without a name is left out.

    Raises:
        DataError: the file is missing, of another format, or holds another number than it states.
    """
    columns = [order.index(role) for role in "hrt"]

    def parse(line: str) -> tuple[int, int, int]:
        values = fields(" ".join(line.split()), order, separator=" ")
        if not all(value.isascii() and value.isdigit() for value in values):
            raise ValueError("has something else than three numbers")
        head, relation, tail = (int(values[at]) for at in columns)
        if relations and relation not in relations:
            raise ValueError(f"has the relation {relation}, which has no name")
        return head, relation, tail

    [expected], before = read_header(path, 1, _TRIPLES), report.read["triples"]
    for _, (head, relation, tail) in read_rows(path, "triples", parse, report, _TRIPLES, header=1):
        if head in entities and tail in entities:
            yield entities[head], relations.get(relation, str(relation)), entities[tail]
        else:
            report.drop("triples", unknown)
    if (read := report.read["triples"] - before) != expected:
        raise DataError(path, f"holds {read} rows and states {expected}", _TRIPLES, line=1)


def _matrix_path(source: Path, name: str | None) -> Path:
    if name:
        return source / name
    paths = sorted(source.glob("*.npy"))
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths) or "none"
        raise DataError(source, f"holds {len(paths)} .npy files ({names})",
                        "exactly one, or its name: -o vectors=FILE.npy")  # fmt: skip
    return paths[0]
