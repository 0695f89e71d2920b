"""FB15k-237: Freebase facts (Toutanova and Chen, CVSC 2015), joined with Wikidata."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
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
from kbench_tasks.knowledge.cards import LICENCE, card_of, note_unread
from kbench_tasks.knowledge.codex import read_types
from kbench_tasks.knowledge.linked import (
    SENTENCES,
    Surfaces,
    joined,
    names_of,
    read_sentences,
)
from kbench_tasks.knowledge.matrices import numbered_ids, packed_or_not
from kbench_tasks.knowledge.objects import count_entities, count_known, read_objects, text_of
from kbench_tasks.knowledge.openke import numbered_triples
from kbench_tasks.knowledge.published import published

__all__ = ["FB15k237Importer", "relation_texts"]

_SPLITS = ("train", "valid", "test")
_NUMBERED = ("entity2id.txt", "relation2id.txt")
_WIKIDATA = "entity2wikidata.json"
_OBJECT = "a JSON object {mid: {wikidata_id, label, alternatives, description}}"
_TRIPLES = "one `head TAB relation TAB tail` a line"
_QID = re.compile(r"Q[1-9][0-9]*")
_KINDS = (("entities", "entity", (0, 2)), ("relations", "relation", (1,)))
"""Rows of the files of numbers, and the columns of a triple that use them."""
Triple = tuple[str, str, str]


class FB15k237Importer(Importer):
    """FB15k-237 in text or in the integers of OpenKE, with the Wikidata ids of its entities.

    Entities are those of the triples, called by their Wikidata ids, so that they are those that
    data sets link to; one without such an id keeps its Freebase mid, and two mids of one id
    become one entity. Labels, other names and descriptions are Wikidata's. The texts of relations
    are made of their Freebase paths. The graph tells no types; `-o types=FILE` takes those that
    CoDEx has for more entities than are in its own triples.

    The triples are those of all three splits, and the bundle knows the split of each: the facts of
    test are knowledge like any other, for what kbench asks is whether knowledge arrives.
    Link prediction is measured on vectors that have not seen them. `-o split=train` leaves the
    other facts out of the knowledge altogether.
    """

    card = ImporterCard(
        title="FB15k-237",
        layout="train.txt, valid.txt and test.txt (`head TAB relation TAB tail`), or "
        "entity2id.txt, relation2id.txt and {train,valid,test}2id.txt of OpenKE; and, if there, "
        "entity2wikidata.json, each plain or .gz, .bz2, .xz",
        source="https://www.microsoft.com/en-us/download/details.aspx?id=52312; names from "
        "https://github.com/villmow/datasets_knowledge_embedding",
        licence="CC BY 2.5 (Freebase); CC0-1.0 (names and descriptions of Wikidata)",
        citation="Kristina Toutanova and Danqi Chen: Observed versus Latent Features for "
        "Knowledge Base and Text Inference, CVSC 2015",
    )
    options: ClassVar[Mapping[str, Option]] = {
        "split": Option("whose triples are read; default: all", choices=_SPLITS, repeatable=True),
        "types": Option("types/entity2types.json of CoDEx: types by Wikidata id", path=True),
        "name": Option("of the bundle", default="fb15k-237"),
        "licence": LICENCE,
        "sentences": SENTENCES,
    }

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Reads the release and writes a bundle without vectors."""
        splits = [split for split in _SPLITS if split in (options.values["split"] or _SPLITS)]
        files = _files(source, splits)
        beside = packed_or_not(source / _WIKIDATA)
        read = [path.name for path in [*files.all, beside] if path.exists()]
        note_unread(report, source, read, options)
        by_mid = _read_triples(files, report)
        things = _things(beside, by_mid, report)
        triples = _by_wikidata(by_mid, things, report)
        known = {thing.id: None for thing in things.values()}
        sentences, surfaces = read_sentences(options.paths("sentences"), known, report)
        entities = list(_entities(things.values(), surfaces, _types(options, known, report)))
        count_entities(entities, report)
        relations = relation_texts(relation for _, relation, _ in triples)

        def card() -> dict[str, Any]:
            about: dict[str, Any] = {
                "name": options.text("name"),
                "citation": "Toutanova and Chen, CVSC 2015",
                "splits": f"the triples of {', '.join(splits)} together",
                "files": read,
            }
            if len(splits) == len(_SPLITS):
                about["published"] = published("fb15k-237")
            return card_of(self, options, report, about)

        return write_bundle(
            target, card, entities, triples, relations, sentences, splits=triples.values()
        )


@dataclass(frozen=True)
class _Files:
    """The files of triples that are read, by the number of their split, and of their numbers."""

    triples: Mapping[int, Path]
    numbers: Sequence[Path] = ()

    @property
    def all(self) -> list[Path]:
        return [*self.numbers, *self.triples.values()]


def _files(source: Path, splits: Sequence[str]) -> _Files:
    """Returns the files of the form that is there; text, where both are.

    Raises:
        DataError: neither is.
    """
    at = {split: _SPLITS.index(split) for split in splits}
    text = {at[split]: packed_or_not(source / f"{split}.txt") for split in splits}
    numbered = {at[split]: packed_or_not(source / f"{split}2id.txt") for split in splits}
    if any(path.exists() for path in text.values()):
        return _Files(text)
    if any(path.exists() for path in numbered.values()):
        return _Files(numbered, [packed_or_not(source / name) for name in _NUMBERED])
    raise DataError(source, "has no triples", FB15k237Importer.card.layout)


def _read_triples(files: _Files, report: Report) -> dict[Triple, int]:
    """Returns the triples by mid, and of each the number of its split: the first that has it."""
    names = [
        {at: name for name, at in numbered_ids(path, report, kind)}
        for path, (kind, *_) in zip(files.numbers, _KINDS, strict=False)
    ]
    triples: dict[Triple, int] = {}
    for split, path in files.triples.items():
        for triple in _rows(path, names, report):
            if triple in triples:
                report.drop("triples", "seen before")
            else:
                triples[triple] = split
    if not triples:
        raise DataError(next(iter(files.triples.values())), "holds no triple", _TRIPLES)
    for (kind, singular, columns), known in zip(_KINDS, names, strict=False):
        used = {triple[column] for triple in triples for column in columns}
        report.kept[kind] = len(used)
        if spare := len(set(known.values()) - used):
            report.drop(kind, f"{singular} without a triple", spare)
    return triples


def _rows(path: Path, names: Sequence[Mapping[int, str]], report: Report) -> Iterator[Triple]:
    if names:
        entities, relations = names
        unknown = "entity without a mid"
        yield from numbered_triples(path, entities, relations, report, unknown=unknown)
        return
    for _, row in read_rows(path, "triples", _triple, report, _TRIPLES):
        yield row


def _triple(line: str) -> Triple:
    head, relation, tail = fields(line, ("head", "relation", "tail"))
    return head, relation, tail


def _things(path: Path, triples: Iterable[Triple], report: Report) -> dict[str, Entity]:
    """Returns what Wikidata knows of each mid of the triples: by its own id, or else by the mid."""
    rows = read_objects(path, _OBJECT, required=False)
    mids = dict.fromkeys(end for head, _, tail in triples for end in (head, tail))
    if rows:
        count_known("names", rows, mids, report)
    else:
        report.note(f"no {_WIKIDATA}: entities go by Freebase mids, which no text or data set uses")
    things = {mid: _thing(mid, rows.get(mid), path) for mid in mids}
    mids_of: dict[str, list[str]] = {}
    for mid, thing in things.items():
        mids_of.setdefault(thing.id, []).append(mid)
    for entity, several in mids_of.items():
        if len(several) > 1:
            report.note(f"{' and '.join(sorted(several))} are one entity of Wikidata: {entity}")
    bare = sum(thing.id == mid for mid, thing in things.items())
    report.facts["mids without a Wikidata id, which are kept"] = bare
    report.facts["mids joined with another of the same Wikidata id"] = len(mids) - len(mids_of)
    return things


def _thing(mid: str, about: Any, path: Path) -> Entity:
    if about is None:
        return Entity(mid)
    if not isinstance(about, dict):
        raise DataError(path, f"has {str(about)[:40]!r} for {mid}", _OBJECT)
    given = text_of(about, "wikidata_id")
    others = about.get("alternatives")
    candidates = [text_of(name) for name in others] if isinstance(others, list) else []
    label, aliases = names_of([text_of(about, "label"), *candidates])
    entity = given if _QID.fullmatch(given) else mid
    return Entity(entity, label, aliases, (), text_of(about, "description"))


def _by_wikidata(
    triples: Mapping[Triple, int], things: Mapping[str, Entity], report: Report
) -> dict[Triple, int]:
    """Returns the triples by the ids of their entities; one of two mids may be there already."""
    found: dict[Triple, int] = {}
    for (head, relation, tail), split in triples.items():
        triple = things[head].id, relation, things[tail].id
        if triple in found:
            report.drop("triples", "seen before, of another mid")
        found.setdefault(triple, split)
    report.kept["triples"] = len(found)
    return found


def _types(
    options: Options, known: Mapping[str, None], report: Report
) -> dict[str, tuple[str, ...]]:
    given = next(iter(options.paths("types")), None)
    return read_types(given, "en", known, report) if given else {}


def _entities(
    things: Iterable[Entity],
    surfaces: Surfaces,
    types: Mapping[str, tuple[str, ...]],
) -> Iterator[Entity]:
    """Yields the entities, two mids of one id joined, with what sentences call them."""
    seen: dict[str, Entity] = {}
    for thing in things:
        seen[thing.id] = joined(seen[thing.id], thing) if thing.id in seen else thing
    for thing in seen.values():
        label, aliases = names_of([thing.label, *thing.aliases, *surfaces.get(thing.id, ())])
        yield Entity(thing.id, label, aliases, types.get(thing.id, ()), thing.description)


def relation_texts(relations: Iterable[str]) -> dict[str, str]:
    """Returns words for each relation that is a Freebase path.

    ``/people/person/nationality`` is ``nationality``. A path of two hops has the words of both:
    ``/award/award_nominee/award_nominations./award/award_nomination/nominated_for`` is ``award
    nominations nominated for``. What several paths would be called has the words of the type before
    them: ``film genre``, ``tv program genre``; and of the whole path, if that does not suffice.

    Args:
        relations: their ids; any id that is no path stays as it is.
    """
    texts = {relation: relation for relation in relations}
    hops = {
        relation: [hop.strip("/").split("/") for hop in relation.split(".")]
        for relation in texts
        if relation.startswith("/")
    }
    for words_of in (_property, _with_type, _whole):
        counts = Counter(texts[relation] for relation in hops)
        for relation, path in hops.items():
            if texts[relation] == relation or counts[texts[relation]] > 1:
                texts[relation] = words_of(path)
    return texts


def _property(path: Sequence[Sequence[str]]) -> str:
    """Returns the words of each hop; of the last alone, if the first says the same of several."""
    first, last = _words(path[0][-1]), _words(path[-1][-1])
    return last if first.rstrip("s") == last.rstrip("s") else f"{first} {last}"


def _with_type(path: Sequence[Sequence[str]]) -> str:
    return f"{_words(path[0][-2])} {_property(path)}" if len(path[0]) > 1 else _property(path)


def _whole(path: Sequence[Sequence[str]]) -> str:
    words = " ".join(_words(part) for hop in path for part in hop).split()
    return " ".join(word for word, _ in groupby(words))


def _words(name: str) -> str:
    """Returns the words of a part of a path; ``spouse_s`` is how Freebase writes both numbers."""
    return re.sub(r"_s$", "s", name).replace("_", " ")
