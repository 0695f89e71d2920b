"""Wikipedia2Vec: words and entities in one space, as text (Yamada et al., EMNLP 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from kbench.errors import DataError
from kbench.knowledge import Bundle, Entity, Vectors, Words, write_bundle
from kbench.knowledge.importing import (
    PACKED,
    Importer,
    ImporterCard,
    Option,
    Options,
    Report,
    by_id,
    check_name,
    fields,
)
from kbench_tasks.knowledge.cards import LICENCE, card_of, note_unread
from kbench_tasks.knowledge.dialects import read_titles
from kbench_tasks.knowledge.linked import SENTENCES, Corpus, joined
from kbench_tasks.knowledge.matrices import Matrix, add_vectors, packed_or_not
from kbench_tasks.knowledge.text_vectors import (
    KIND,
    RowFile,
    TextLayout,
    read_header,
    read_vectors,
)

__all__ = ["Wikipedia2VecImporter"]

_PREFIX = "ENTITY/"
_VECTORS = "first line `count dimension`, then one `token number number …` a line"
_IDS = "one `title TAB id` a line"
_OTHERWISE = "title that another row spells with blanks"


class Wikipedia2VecImporter(Importer):
    """The text of `wikipedia2vec save-text --out-format word2vec`: words, and ENTITY/Some_title.

    Underscores inside titles are read as blanks; those at the ends belong to the title, so that
    ``_India`` is not ``India``. Of two rows with one title the one that is written with blanks
    counts, else the first. An entity goes by its title, or by the id that the file ``ids`` gives
    to it. An entity whose numbers are NaN or infinite stays in the bundle
    without a vector; such a word is left out.
    """

    revision = "2"
    card = ImporterCard(
        title="Wikipedia2Vec",
        layout="one text file, plain or packed (.bz2, .gz, .xz): `count dimension`, then "
        "`token numbers…` a line",
        source="https://wikipedia2vec.github.io",
        licence="Apache-2.0",
        citation="Ikuya Yamada, Akari Asai, Jin Sakuma, Hiroyuki Shindo, Hideaki Takeda, "
        "Yoshiyasu Takefuji and Yuji Matsumoto: Wikipedia2Vec: An Efficient Toolkit "
        "for Learning and Visualizing the Embeddings of Words and Entities from "
        "Wikipedia, EMNLP 2020 (demonstrations)",
    )
    options: ClassVar[Mapping[str, Option]] = {
        "vectors": Option("name of the text file in SRC; default: the only .txt, plain or packed"),
        "ids": Option("TSV `title TAB id`: the ids (QIDs, say) by which entities go", path=True),
        "name": Option("of the bundle; default: the name of the text file"),
        "licence": LICENCE,
        "sentences": SENTENCES,
    }

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Parses the text once, then writes entities, words and their vectors."""
        path = _text_path(source, options.text("vectors"))
        corpus = Corpus(options.paths("sentences"), report)
        note_unread(report, source, [path.name], options)
        with TemporaryDirectory(dir=target.parent) as work:
            space = _read_space(path, Path(work), report)
            given = next(iter(options.paths("ids")), None)
            numbers = _identified(space, given, report)
            titles = {row: title for title, row in space.titles.items()}

            def parts() -> Iterator[Entity]:
                for entity, row in numbers.items():
                    yield Entity(entity, titles[row])
                yield from corpus.named(numbers)

            def card() -> dict[str, Any]:
                name = options.text("name") or _stem(path)
                about = {"name": name, "citation": "Yamada et al., EMNLP 2020"}
                return card_of(self, options, report, {**about, "files": [path.name]})

            bundle = write_bundle(target, card, parts(), sentences=corpus.sentences(), join=joined)
            origin = {"format": "wikipedia2vec", "file": path.name}
            words = Words(list(space.words), space.word_rows.matrix()) if space.words else None
            return add_vectors(bundle, Matrix(space.entity_rows.matrix(), numbers, origin), words)


def _stem(path: Path) -> str:
    name = path.name.removesuffix(path.suffix) if path.suffix in PACKED else path.name
    return name.removesuffix(".txt")


def _text_path(source: Path, name: str | None) -> Path:
    if name:
        return packed_or_not(source / name)
    paths = sorted(at for ending in ("", *PACKED) for at in source.glob(f"*.txt{ending}"))
    if len(paths) != 1:
        there = paths or sorted(source.iterdir())
        names = ", ".join(path.name for path in there[:5]) or "nothing"
        raise DataError(source, f"holds {len(paths)} text files (there: {names})",
                        f"exactly one .txt, plain or packed ({', '.join(PACKED)}), or the name of "
                        "a file: -o vectors=FILE")  # fmt: skip
    return paths[0]


@dataclass
class _Space:
    """What the text holds: words in the order of their vectors, and the row of each title.

    Attributes:
        word_rows: the vectors of the words.
        entity_rows: those of the titles; some may be of no title any more.
        words: in the order of their rows.
        titles: the row of each.
        spelled: titles of several words whose row writes them with blanks.
    """

    word_rows: RowFile
    entity_rows: RowFile
    words: dict[str, None] = field(default_factory=dict)
    titles: dict[str, int] = field(default_factory=dict)
    spelled: set[str] = field(default_factory=set)


def _read_space(path: Path, work: Path, report: Report) -> _Space:
    count, dimension = read_header(path, 2, _VECTORS)
    if not dimension:
        raise DataError(path, "states the dimension 0", _VECTORS, line=1)
    layout = TextLayout(_VECTORS, header=1, dimension=dimension, name=_token)
    space = _Space(RowFile(work / "words"), RowFile(work / "entities"))
    for names, vectors in read_vectors(path, layout, report):
        _add_block(space, names, vectors, report)
    if report.read[KIND] != count:
        problem = f"holds {report.read[KIND]} rows and states {count}"
        raise DataError(path, problem, _VECTORS, line=1)
    if not space.titles:
        raise DataError(
            path, "holds words alone", f"{_VECTORS}; that of an entity is {_PREFIX}Title"
        )
    known, used = space.entity_rows.known, list(space.titles.values())
    report.kept[KIND] = int(known[used].sum()) + len(space.words)
    if spare := int(known.sum() - known[used].sum()):
        report.drop(KIND, _OTHERWISE, spare)
    report.facts["entities"] = len(space.titles)
    report.facts["words"] = len(space.words)
    return space


def _add_block(space: _Space, names: list[str], vectors: Vectors, report: Report) -> None:
    """Adds rows of the text to the words and entities, each name once."""
    finite = ~np.isnan(vectors[:, 0])
    words: list[int] = []
    entities: list[int] = []
    first = len(space.entity_rows)
    for at, name in enumerate(names):
        if name.startswith(_PREFIX):
            if why := _left_out(space, name.removeprefix(_PREFIX), report):
                report.drop(KIND, why, int(finite[at]))  # else counted as NaN
            else:
                space.titles[_title(name.removeprefix(_PREFIX))] = first + len(entities)
                entities.append(at)
        elif name in space.words:
            report.drop(KIND, "seen before", int(finite[at]))
        elif name and finite[at]:
            space.words[name] = None
            words.append(at)
    space.entity_rows.append(vectors[entities])
    space.word_rows.append(vectors[words])


def _left_out(space: _Space, raw: str, report: Report) -> str:
    """Returns why a row of an entity does not count; a title spelled with blanks goes first."""
    title = _title(raw)
    exact = raw == title and " " in title
    known = title in space.titles
    if known and exact != (title in space.spelled):
        report.note(f"several rows spell the title {title!r}; the one with blanks counts")
    if exact and title not in space.spelled:
        space.spelled.add(title)
        return ""
    if known:
        return _OTHERWISE if title in space.spelled and not exact else "seen before"
    return ""


def _token(text: str) -> str:
    if text.startswith(_PREFIX):
        check_name("title", text.removeprefix(_PREFIX))
        return text
    return check_name("token", text)


def _title(text: str) -> str:
    """Returns a title with blanks inside and underscores at its ends, where it has any."""
    inner = text.strip("_ ")
    if not inner:
        return "_" * len(text)
    start = text.index(inner)
    end = len(text) - start - len(inner)
    return "_" * start + inner.replace("_", " ") + "_" * end


def _identified(space: _Space, path: Path | None, report: Report) -> dict[str, int]:
    """Returns the row of each entity by its id, else by its title."""
    rows = dict(space.titles)
    row_of: dict[str, int] = {}
    given = read_titles(path, "ids", _identity, report, _IDS) if path else ()
    for entity, title in by_id(given, "ids", report):
        if entity in row_of:
            report.drop("ids", "id seen before")
        elif (row := rows.pop(title, None)) is None:
            report.drop("ids", "title without a vector or seen before")
        else:
            row_of[entity] = row
            report.kept["ids"] += 1
    for title, row in rows.items():
        if title in row_of:  # there are articles called Q1
            report.drop("entities", "title is the id of another")
        else:
            row_of[title] = row
    return row_of


def _identity(line: str) -> tuple[str, str]:
    raw, _, entity = line.partition("\t")
    fields(line, ["title", "id"])
    return entity, _title(raw)
