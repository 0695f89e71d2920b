"""Files that go beside a knowledge base: sentences with linked mentions, and labels of ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from pathlib import Path
from typing import Any

from kbench.data import Mention
from kbench.data.sources import parse_json
from kbench.knowledge import Entity, Sentence
from kbench.knowledge.aliases import Dictionary
from kbench.knowledge.folding import folded
from kbench.knowledge.importing import Option, Report, by_id, check_name, fields, read_rows
from kbench_tasks.knowledge.dialects import read_table

__all__ = [
    "LABELS",
    "SENTENCES",
    "Corpus",
    "Surfaces",
    "joined",
    "names_of",
    "read_labels",
    "read_sentences",
]

SENTENCES = Option(
    help="JSON Lines {text, mentions: [{start, end, entity}]}: the corpus, and names of entities",
    path=True,
    repeatable=True,
)
LABELS = Option(help="TSV `id TAB label`, before any other source of labels", path=True)

_LINKED = 0.1
"""The share of its places in which a word is linked, for it to be a name."""
_SHOWN = 5

Surfaces = Mapping[str, Sequence[str]]
"""What each entity is called in the sentences, the most frequent first."""


def read_labels(path: Path | None, known: Mapping[str, Any], report: Report) -> dict[str, str]:
    """Reads ``id TAB label`` lines; the first label of an id counts.

    Args:
        path: the file, or None for none.
        known: ids of the bundle; labels of others are left out.
        report: counts the rows.
    """
    labels: dict[str, str] = {}
    if path is None:
        return labels
    layout = "one `id TAB label` a line"
    rows = read_table(path, "labels", _pair, report, layout, known)
    for entity, label in by_id(rows, "labels", report):
        if entity not in known:
            report.drop("labels", "entity not in the bundle")
        elif entity in labels:
            report.drop("labels", "id seen before")
        else:
            labels[entity] = label
            report.kept["labels"] += 1
    return labels


def _pair(line: str) -> tuple[str, str]:
    _, label = fields(line, ["id", "label"])
    return line.partition("\t")[0], label


def read_sentences(
    paths: Iterable[Path], known: Mapping[str, Any], report: Report
) -> tuple[list[Sentence], Surfaces]:
    """Reads linked sentences and keeps those that mention an entity of the bundle.

    Mentions of other entities stay: their ids are unknown to the bundle, and a later one may
    know them. What a mention reads is a name of its entity, unless most of the places where it
    stands are no mention at all (``the``, linked once by mistake): of less than a tenth it is
    left out and counted. This is the link probability of Mihalcea and Csomai (CIKM 2007). The
    sentences are held in memory.

    Args:
        paths: JSON Lines files, ``{"text", "mentions": [{"start", "end", "entity"}]}`` with
            character offsets; a mention may have a ``score`` in [0, 1].
        known: ids of the bundle.
        report: counts sentences and mentions.

    Returns:
        The sentences in the order of the files, and the names by which they call the entities.
    """
    layout = 'JSON Lines {"text": …, "mentions": [{"start": …, "end": …, "entity": …}]}'
    kept: list[Sentence] = []
    counts: dict[str, Counter[str]] = {}
    rows = (read_rows(path, "sentences", _sentence, report, layout) for path in paths)
    for _, sentence in chain.from_iterable(rows):
        linked = [m for m in sentence.mentions if m.entity in known]
        if not linked:
            report.drop("sentences", "no entity of the bundle")
            continue
        kept.append(sentence)
        report.kept["sentences"] += 1
        _count("mentions", len(sentence.mentions), report)
        _count("mentions of entities of the bundle", len(linked), report)
        for mention in linked:
            surface = " ".join(sentence.text[mention.start : mention.end].split())
            if surface and "\0" not in surface:
                counts.setdefault(str(mention.entity), Counter())[surface] += 1
    words = _mere_words(kept, {folded(name) for names in counts.values() for name in names})
    if words:
        often = sorted(words, key=lambda word: (-words[word], word))
        shown = ", ".join(often[:_SHOWN]) + (" and others" if len(often) > _SHOWN else "")
        report.note(f"words seldom linked where they stand, which are no names: {shown}")
    return kept, {
        entity: [name for name in _by_frequency(names) if folded(name) not in words]
        for entity, names in counts.items()
    }


def _mere_words(sentences: Sequence[Sentence], surfaces: Set[str]) -> dict[str, int]:
    """Returns the surfaces that are seldom linked where they stand, and how often they stand.

    What stands within a longer mention (*York* in *New York*) is not counted.
    """
    names = Dictionary(surfaces)
    stands, linked = Counter[str](), Counter[str]()
    for sentence in sentences:
        places = [(m.start, m.end) for m in sentence.mentions]
        linked.update(folded(sentence.text[start:end].strip()) for start, end in places)
        for name, _, _, (start, end) in names.find(sentence.text):
            if not any(first <= start and end <= last for first, last in places):
                stands[name] += 1
    seldom = ((word, number + linked[word]) for word, number in stands.items())
    return {word: number for word, number in seldom if linked[word] < _LINKED * number}


def _count(fact: str, number: int, report: Report) -> None:
    report.facts[fact] = report.facts.get(fact, 0) + number


def _by_frequency(surfaces: Counter[str]) -> list[str]:
    return [name for name, _ in sorted(surfaces.items(), key=lambda item: (-item[1], item[0]))]


def names_of(candidates: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Returns the first name as label, and the others that differ by more than case as aliases."""
    distinct: dict[str, str] = {}
    for name in candidates:
        if name:
            distinct.setdefault(name.casefold(), name)
    label, *aliases = distinct.values() or [""]
    return label, tuple(aliases)


def joined(first: Entity, second: Entity) -> Entity:
    """Returns two parts of an entity as one: what the first lacks comes from the second."""
    label, aliases = names_of([first.label, *first.aliases, second.label, *second.aliases])
    types = tuple(dict.fromkeys(first.types + second.types))
    return Entity(first.id, label, aliases, types, first.description or second.description)


class Corpus:
    """Linked sentences, read when the ids of a bundle are known, and held from then on.

    Args:
        paths: JSON Lines files, as in :func:`read_sentences`.
        report: counts sentences and mentions.
    """

    def __init__(self, paths: Sequence[Path], report: Report) -> None:
        self.report = report
        self._paths = paths
        self._kept: list[Sentence] = []

    def named(self, known: Mapping[str, Any]) -> Iterator[Entity]:
        """Reads the sentences and yields what they call the entities that are known."""
        self._kept, surfaces = read_sentences(self._paths, known, self.report)
        for entity, (label, *aliases) in surfaces.items():
            yield Entity(entity, label, tuple(aliases))

    def sentences(self) -> Iterator[Sentence]:
        """Yields the sentences that :meth:`named` has read."""
        yield from self._kept


def _sentence(line: str) -> Sentence:
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError(f"is a JSON {type(row).__name__}, not an object")
    text, mentions = row.get("text"), row.get("mentions")
    if not isinstance(text, str) or not isinstance(mentions, list):
        raise ValueError('lacks a string "text" or a list "mentions"')
    check_name("text", text.replace("\0", " "))
    return Sentence(text, tuple(_mention(mention, text) for mention in mentions))


def _mention(value: Any, text: str) -> Mention:
    if not isinstance(value, dict):
        raise ValueError("has a mention that is not an object")
    start, end, entity = value.get("start"), value.get("end"), value.get("entity")
    score = value.get("score")
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise ValueError(f"has a mention [{start!r}, {end!r}) in {len(text)} characters")
    if entity is not None and not isinstance(entity, str):
        raise ValueError(f"has a mention of {entity!r}, which is no id")
    if entity is not None:
        check_name("entity", entity)
    if score is not None and not (type(score) in (int, float) and 0 <= score <= 1):
        raise ValueError(f"has a mention with score {score!r}")
    return Mention(start, end, entity=entity, score=score)
