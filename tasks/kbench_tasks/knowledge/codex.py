"""CoDEx: Wikidata facts in three sizes (Safavi and Koutra, EMNLP 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

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
from kbench_tasks.knowledge.cards import note_unread
from kbench_tasks.knowledge.linked import (
    LABELS,
    SENTENCES,
    Surfaces,
    names_of,
    read_labels,
    read_sentences,
)
from kbench_tasks.knowledge.matrices import packed_or_not
from kbench_tasks.knowledge.objects import count_entities, count_known, read_objects, text_of
from kbench_tasks.knowledge.published import published

__all__ = ["CodexImporter", "read_types"]

_SPLITS = ("train", "valid", "test")
_FOLDERS = ("triples", "types", "relations", "entities")
_COLUMNS = ("head", "relation", "tail")
_RELEASE = "the JSON object of the CoDEx release"
Triple = tuple[str, str, str]


class CodexImporter(Importer):
    """CoDEx S, M or L: the triples of all three splits, types, names where there are any.

    Entities are those of the triples. Their labels come, in this order, from ``labels``, from
    the release (``entities/LANGUAGE/entities.json``) and from the mentions in ``sentences``.
    """

    revision = "2"
    card = ImporterCard(
        title="CoDEx",
        layout="the data folder of CoDEx: triples/codex-{s,m,l}/{train,valid,test}.txt, "
        "types/entity2types.json, types/en/types.json, relations/en/relations.json and, if "
        "there, entities/en/entities.json",
        source="https://github.com/tsafavi/codex",
        licence="MIT",
        citation="Tara Safavi and Danai Koutra: CoDEx: A Comprehensive Knowledge Graph "
        "Completion Benchmark, EMNLP 2020",
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
        release = read_objects(
            root / "entities" / language / "entities.json", _RELEASE, required=False
        )
        count_known("names", release, known, report)
        if not release:
            report.note(f"no entities/{language}/entities.json: the release names no entity")
        types = read_types(root / "types" / "entity2types.json", language, known, report)
        entities = list(_entities(known, given, release, surfaces, types))
        count_entities(entities, report)
        relations = read_objects(root / "relations" / language / "relations.json", _RELEASE)
        used = sorted({relation for _, relation, _ in triples})
        count_known("relations", relations, used, report)
        card = {
            "name": f"codex-{size}",
            "version": "1.0",
            "title": f"CoDEx-{size.upper()}",
            "licence": self.card.licence,
            "source": self.card.source,
            "citation": "Safavi and Koutra, EMNLP 2020",
            "splits": "the triples of train, valid and test together",
            "published": published(f"codex-{size}"),
            "import": {
                "format": "codex",
                "revision": self.revision,
                "language": language,
                "sentences": [path.name for path in options.paths("sentences")],
                "labels": [path.name for path in options.paths("labels")],
                **report.as_json(),
            },
        }
        labels = {name: text_of(relations.get(name), "label") or name for name in used}
        splits = triples.values()
        return write_bundle(target, card, entities, triples, labels, sentences, splits=splits)


def _triples(folder: Path, report: Report) -> dict[Triple, int]:
    """Returns the triples, and of each the number of its split: of the first that has it."""
    layout = "one `head TAB relation TAB tail` a line"
    triples: dict[Triple, int] = {}
    files = [packed_or_not(folder / f"{split}.txt") for split in _SPLITS]
    for split, path in enumerate(files):
        for _, triple in read_rows(path, "triples", _triple, report, layout):
            if triple in triples:
                report.drop("triples", "seen before")
            else:
                triples[triple] = split
                report.kept["triples"] += 1
    if not triples:
        raise DataError(folder, "holds no triple", layout)
    note_unread(report, folder, [path.name for path in files], Options({}))
    return triples


def _triple(line: str) -> Triple:
    head, relation, tail = fields(line, _COLUMNS)
    return head, relation, tail


def read_types(
    path: Path, language: str, known: Mapping[str, Any], report: Report
) -> dict[str, tuple[str, ...]]:
    """Returns the names of the types of each entity; a type without a name goes by its id.

    Args:
        path: ``types/entity2types.json`` of the release; the names of the types lie beside it.
        language: of the names.
        known: the entities of the graph, by Wikidata id; types of others are left out.
        report: counts the entities with types.

    Raises:
        DataError: a file is missing or of another format.
    """
    names = read_objects(path.parent / language / "types.json", _RELEASE)
    types: dict[str, tuple[str, ...]] = {}
    rows = read_objects(path, _RELEASE)
    count_known("types", rows, known, report)
    for entity, ids in rows.items():
        if entity not in known:
            continue
        if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
            raise DataError(path, f"has {ids!r} for {entity}", "a list of type ids")
        types[entity] = tuple(dict.fromkeys(text_of(names.get(i), "label") or i for i in ids))
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
            [given.get(entity, ""), text_of(about, "label"), *surfaces.get(entity, ())]
        )
        yield Entity(entity, label, aliases, types.get(entity, ()), text_of(about, "description"))
