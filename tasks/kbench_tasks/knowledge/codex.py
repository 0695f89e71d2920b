"""CoDEx: Wikidata facts in three sizes (Safavi and Koutra, EMNLP 2020)."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from kbench.data.sources import parse_json
from kbench.errors import DataError, first_line
from kbench.knowledge import Bundle, Entity, write_bundle
from kbench.knowledge.importing import (
    Importer,
    ImporterCard,
    Option,
    Options,
    Report,
    fields,
    read_rows,
    read_whole,
)
from kbench_tasks.knowledge.cards import note_unread
from kbench_tasks.knowledge.graphs import count_used
from kbench_tasks.knowledge.linked import (
    LABELS,
    SENTENCES,
    Surfaces,
    names_of,
    read_labels,
    read_sentences,
)
from kbench_tasks.knowledge.matrices import packed_or_not

__all__ = ["CodexImporter"]

_SPLITS = ("train", "valid", "test")
_FOLDERS = ("triples", "types", "relations", "entities")
_COLUMNS = ("head", "relation", "tail")
Triple = tuple[str, str, str]


class CodexImporter(Importer):
    """CoDEx S, M or L: the triples of all three splits, types, names where there are any.

    Entities are those of the triples. Their labels come, in this order, from ``labels``, from
    the release (``entities/LANGUAGE/entities.json``) and from the mentions in ``sentences``.
    """

    card = ImporterCard(
        title="CoDEx",
        layout="the data folder of CoDEx: triples/codex-{s,m,l}/{train,valid,test}.txt, "
        "types/entity2types.json, types/en/types.json, relations/en/relations.json and, if "
        "there, entities/en/entities.json",
        source="https://github.com/tsafavi/codex",
        licence="MIT",
    )
    options: ClassVar[Mapping[str, Option]] = {
        "size": Option("which of the three graphs", default="m", choices=("s", "m", "l")),
        "language": Option("of labels", default="en", choices=("ar", "de", "en", "es", "ru", "zh")),
        "sentences": SENTENCES,
        "labels": LABELS,
    }

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Reads the release and writes a bundle without vectors."""
        root = source / "data" if (source / "data" / "triples").is_dir() else source
        size, language = options.text("size") or "m", options.text("language") or "en"
        note_unread(report, root, _FOLDERS, options)
        triples = _triples(root / "triples" / f"codex-{size}", report)
        known = dict.fromkeys(e for head, _, tail in triples for e in (head, tail))
        sentences, surfaces = read_sentences(options.paths("sentences"), known, report)
        given = read_labels(next(iter(options.paths("labels")), None), known, report)
        release = _objects(root / "entities" / language / "entities.json", required=False)
        _count("names", release, known, report)
        if not release:
            report.note(f"no entities/{language}/entities.json: the release names no entity")
        types = _types(root, language, known, report)
        entities = list(_entities(known, given, release, surfaces, types))
        _describe(entities, report)
        relations = _objects(root / "relations" / language / "relations.json")
        used = sorted({relation for _, relation, _ in triples})
        _count("relations", relations, used, report)
        card = {
            "name": f"codex-{size}",
            "version": "1.0",
            "title": f"CoDEx-{size.upper()}",
            "licence": self.card.licence,
            "source": self.card.source,
            "citation": "Safavi and Koutra, EMNLP 2020",
            "splits": "the triples of train, valid and test together",
            "import": {
                "format": "codex",
                "revision": self.revision,
                "language": language,
                "sentences": [path.name for path in options.paths("sentences")],
                "labels": [path.name for path in options.paths("labels")],
                **report.as_json(),
            },
        }
        labels = {name: _text(relations.get(name), "label") or name for name in used}
        return write_bundle(target, card, entities, triples, labels, sentences)


def _triples(folder: Path, report: Report) -> list[Triple]:
    layout = "one `head TAB relation TAB tail` a line"
    triples: dict[Triple, None] = {}
    files = [packed_or_not(folder / f"{split}.txt") for split in _SPLITS]
    for path in files:
        for _, triple in read_rows(path, "triples", _triple, report, layout):
            if triple in triples:
                report.drop("triples", "seen before")
            else:
                triples[triple] = None
                report.kept["triples"] += 1
    if not triples:
        raise DataError(folder, "holds no triple", layout)
    note_unread(report, folder, [path.name for path in files], Options({}))
    return list(triples)


def _triple(line: str) -> Triple:
    head, relation, tail = fields(line, _COLUMNS)
    return head, relation, tail


def _objects(path: Path, required: bool = True) -> dict[str, Any]:
    """Reads a JSON object of objects or lists, packed or not; one that may be missing is empty."""
    expected = "the JSON object of the CoDEx release"
    there = packed_or_not(path)
    if not required and not there.exists():
        return {}
    try:
        value = parse_json(read_whole(there, expected).decode("utf-8"))
    except (ValueError, RecursionError) as cause:
        raise DataError(there, f"cannot be read ({first_line(cause)})", expected) from None
    if not isinstance(value, dict):
        raise DataError(path, f"is a JSON {type(value).__name__}", expected)
    return value


def _text(value: Any, key: str) -> str:
    """Returns a string of an object of the release, which may lack it."""
    text = value.get(key) if isinstance(value, dict) else None
    if not isinstance(text, str):
        return ""
    # JSON can spell half a surrogate pair, which no UTF-8 file can hold.
    return " ".join(text.encode("utf-8", "ignore").decode("utf-8").split())


def _count(kind: str, rows: Collection[str], used: Container[str], report: Report) -> None:
    """Counts what is told of what a size of the graph has, and of others."""
    report.see(kind, len(rows))
    count_used(kind, rows, used, report)


def _types(
    root: Path, language: str, known: Mapping[str, Any], report: Report
) -> dict[str, tuple[str, ...]]:
    """Returns the names of the types of each entity; a type without a name goes by its id."""
    names = _objects(root / "types" / language / "types.json")
    path = root / "types" / "entity2types.json"
    types: dict[str, tuple[str, ...]] = {}
    rows = _objects(path)
    _count("types", rows, known, report)
    for entity, ids in rows.items():
        if entity not in known:
            continue
        if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
            raise DataError(path, f"has {ids!r} for {entity}", "a list of type ids")
        types[entity] = tuple(dict.fromkeys(_text(names.get(i), "label") or i for i in ids))
    return types


def _entities(
    known: Mapping[str, Any],
    given: Mapping[str, str],
    release: Mapping[str, Any],
    surfaces: Surfaces,
    types: Mapping[str, tuple[str, ...]],
) -> Iterator[Entity]:
    for entity in known:
        about = release.get(entity)
        label, aliases = names_of(
            [given.get(entity, ""), _text(about, "label"), *surfaces.get(entity, ())]
        )
        yield Entity(entity, label, aliases, types.get(entity, ()), _text(about, "description"))


def _describe(entities: list[Entity], report: Report) -> None:
    report.facts["entities"] = len(entities)
    report.facts["entities with a label"] = sum(bool(e.label) for e in entities)
    report.facts["entities with a type"] = sum(bool(e.types) for e in entities)
    report.facts["entities with a description"] = sum(bool(e.description) for e in entities)
