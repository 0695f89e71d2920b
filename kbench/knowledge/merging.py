"""Knowledge bases merged into one: what several graphs know of the same entities."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, final

from kbench.errors import UsageError
from kbench.knowledge.base import Entity, Sentence
from kbench.knowledge.bundle import Bundle
from kbench.knowledge.folding import folded
from kbench.knowledge.importing import check_name
from kbench.knowledge.writing import write_bundle

__all__ = ["merge"]

_SHOWN = 5
"""Relations whose texts differ that are spelled out."""
_STEP = 1 << 16
_SHARED = "entities that another source has too"
_LABELS = "labels that differ"
_DESCRIPTIONS = "descriptions that differ"
_RELATIONS = "texts of relations that differ"
_SENTENCES = "sentences that another source has too"
_SAYS = ("name", "version", "title", "licence", "source", "citation", "digest")
_RULE = (
    "entities, relations and facts are the same by id; of labels, descriptions and texts of "
    "relations that differ the first source's counts, another label is an alias; aliases, types, "
    "facts and sentences are united; vectors are left out"
)


def merge(bundles: Sequence[Bundle], target: Path, name: str = "") -> tuple[Bundle, dict[str, int]]:
    """Writes a bundle of all that several know, without vectors, and without holding it.

    Entities are the same where their ids are. Of what differs that of the first source counts; a
    label of another becomes an alias. Facts, types, aliases and sentences are united. A fact keeps
    its split; where two sources differ, or one knows of none, it is of train. Vectors are
    left out, for those of two graphs share no space: train them anew.

    Args:
        bundles: two or more, the one whose words count first.
        target: where to.
        name: of the new bundle; default: those of the sources, joined.

    Returns:
        The bundle, and what was the same and what differed.

    Raises:
        UsageError: fewer than two bundles, one that is given twice, or one at the target.
    """
    _check(bundles, target)
    try:
        check_name("name", name or target.name)
    except ValueError as cause:
        raise UsageError(f"{name!a} {cause}; expected another name for the bundle") from None
    joining = _Joining(bundles)
    relations = joining.relations()
    known = any(bundle.splits is not None for bundle in bundles)

    def card() -> dict[str, Any]:
        return {
            "name": name or "+".join(bundle.name for bundle in bundles),
            "version": "1",
            "title": " and ".join(str(b.card.get("title") or b.name) for b in bundles),
            "licence": _united(bundles, "licence"),
            "source": _united(bundles, "source"),
            "merged": {
                "rule": _RULE,
                "sources": [_about(bundle) for bundle in bundles],
                "relation_texts_not_taken": joining.others,
                **joining.counts,
            },
        }

    made = write_bundle(
        target,
        card,
        chain.from_iterable(bundle.each_entity() for bundle in bundles),
        chain.from_iterable(map(_triples, bundles)),
        relations,
        joining.sentences(),
        join=joining.joined,
        splits=chain.from_iterable(map(_splits, bundles)) if known else None,
    )
    read = sum(len(bundle.triples) for bundle in bundles)
    return made, {**joining.counts, "facts that another source has too": read - len(made.triples)}


def _check(bundles: Sequence[Bundle], target: Path) -> None:
    if len(bundles) < 2:
        raise UsageError(f"got {len(bundles)} knowledge base to merge; expected two or more")
    for at, bundle in enumerate(bundles):
        if any(bundle.digest == other.digest for other in bundles[:at]):
            raise UsageError(f"{bundle.folder} is given twice, or is a copy; give each once")
        if bundle.folder.resolve() == target.resolve():
            raise UsageError(f"{target} is one of the sources; give a new folder")


def _about(bundle: Bundle) -> dict[str, Any]:
    said = {key: bundle.card[key] for key in _SAYS if key in bundle.card}
    return {**said, "counts": bundle.card["counts"]}


def _united(bundles: Sequence[Bundle], key: str) -> str:
    return "; ".join(dict.fromkeys(str(bundle.card.get(key, "unknown")) for bundle in bundles))


def _triples(bundle: Bundle) -> Iterator[tuple[str, str, str]]:
    ids, names = list(bundle.ids), list(bundle.relations)
    for start in range(0, len(bundle.triples), _STEP):
        for head, relation, tail in bundle.triples[start : start + _STEP].tolist():
            yield ids[head], names[relation], ids[tail]


def _splits(bundle: Bundle) -> Iterator[int]:
    if bundle.splits is None:
        return repeat(0, len(bundle.triples))
    return iter(bundle.splits.tolist())


@final
class _Joining:
    """Joins what several sources say of one thing, and counts what was the same and what differed.

    Args:
        bundles: the sources, the one whose words count first.
    """

    def __init__(self, bundles: Sequence[Bundle]) -> None:
        self._bundles = bundles
        self.counts = dict.fromkeys((_SHARED, _LABELS, _DESCRIPTIONS, _RELATIONS, _SENTENCES), 0)
        self.others: list[str] = []

    def joined(self, first: Entity, second: Entity) -> Entity:
        """Returns what two sources know of an entity."""
        self.counts[_SHARED] += 1
        one, two = first.label.strip(), second.label.strip()
        self.counts[_LABELS] += bool(one and two and folded(one) != folded(two))
        told = [text for text in (first.description, second.description) if text.strip()]
        self.counts[_DESCRIPTIONS] += len(set(told)) > 1
        names: dict[str, str] = {}
        for name in map(str.strip, [one, *first.aliases, two, *second.aliases]):
            if name:
                names.setdefault(folded(name), name)
        label = one or two
        names.pop(folded(label), None)
        types = tuple(dict.fromkeys(first.types + second.types))
        return Entity(first.id, label, tuple(names.values()), types, next(iter(told), ""))

    def relations(self) -> dict[str, str]:
        """Returns the text of each relation: the first that is more than its id."""
        texts: dict[str, str] = {}
        for bundle in self._bundles:
            for relation, text in bundle.relations.items():
                known = texts.get(relation, relation)
                if known == relation:
                    texts[relation] = text
                elif text not in (known, relation):
                    self.counts[_RELATIONS] += 1
                    if len(self.others) < _SHOWN:
                        self.others.append(f"{relation}: {known!r}, not {text!r}")
        return texts

    def sentences(self) -> Iterator[Sentence]:
        """Yields the sentences of all sources, those with the same text and links once."""
        seen: set[bytes] = set()
        for sentence in chain.from_iterable(bundle.sentences for bundle in self._bundles):
            key = hashlib.blake2b(repr(sentence).encode(), digest_size=16).digest()
            if key in seen:
                self.counts[_SENTENCES] += 1
                continue
            seen.add(key)
            yield sentence
