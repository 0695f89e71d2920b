"""OpenEntity with Wikidata links, in the layout of the ERNIE release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from kbench.data import Example, Mention, Role, Split
from kbench.errors import UsageError
from kbench.records import Record
from kbench.sources import find_file, find_folder, hub_records, is_hub, read_records
from kbench.task import TaskCard, TypingTask

__all__ = ["OpenEntity"]

# A link is [Wikidata id, start, end, confidence]; offsets are characters of ``sent``.
_ROW = {"sent": str, "start": int, "end": int, "labels": [str], "ents": [(str, int, int, float)]}
_ARTICLES = frozenset({"the ", "a ", "an "})


class OpenEntity(TypingTask):
    """OpenEntity: coarse types of a marked mention in a sentence, with TAGME links.

    ``train.json``, ``dev.json`` and ``test.json`` are lists of
    ``{sent, start, end, labels, ents: [[QID, start, end, confidence], …]}``. An example without
    labels (about a fifth of the published ones: none of the nine coarse types applies) is kept,
    with the empty set as its label.

    Links with a confidence below the option ``link_threshold`` are dropped and counted (ERNIE
    keeps what is greater than 0.3, so it also drops a link at exactly the threshold). A kept
    link belongs to the marked mention if it ends where that ends and starts where that starts
    or right after its leading article: "the [European Commission]". Looser overlap would often
    name another entity: "the reign of [Diocletian]" is not Diocletian. All other kept links,
    nested ones too, are context mentions.
    """

    card = TaskCard(
        title="OpenEntity",
        revision="1",
        licence="not stated by its publishers",
        citation="Choi, Levy, Choi and Zettlemoyer: Ultra-Fine Entity Typing, ACL 2018",
        source="https://github.com/thunlp/ERNIE (nine coarse types; Wikidata links by TAGME)",
        obtain="the OpenEntity folder of the ERNIE release (https://github.com/thunlp/ERNIE) "
        "with train.json, dev.json and test.json",
    )
    defaults: ClassVar[Mapping[str, float | int | str]] = {"link_threshold": 0.3}

    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split.

        Raises:
            DataError: the file is missing or malformed, or a label of dev or test does not
                occur in train.
            UsageError: ``link_threshold`` is not in [0, 1].
        """
        threshold = self._threshold()
        records = self._records(split)
        examples = [
            _example(f"open-entity/{split}/{number}", record, threshold)
            for number, record in enumerate(records)
        ]
        if split is not Split.TRAIN:
            self._check_labels(records)
        self._count(split, records, examples)
        return examples

    def _threshold(self) -> float:
        given = self.options["link_threshold"]
        try:
            value = float(given)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise UsageError(f"link_threshold is {given!r}: expected a number from 0 to 1")
        return value

    def _records(self, split: Split) -> list[Record]:
        if is_hub(self.data):
            return hub_records(self.data, split, _ROW)
        folder = find_folder(self.data, self.card, "openentity")
        return read_records(find_file(folder, f"{split}.json"), _ROW)

    def _check_labels(self, records: Sequence[Record]) -> None:
        known = set(self.labels)
        for record in records:
            for label in record["labels"]:
                if label not in known:
                    names = ", ".join(self.labels)
                    raise record.error(f"label {label!r} is none of those in train ({names})")

    def _count(self, split: Split, records: list[Record], examples: list[Example]) -> None:
        links = sum(len(record["ents"]) for record in records)
        kept = sum(m.score is not None for example in examples for m in example.mentions)
        self.counts |= {
            f"{split}_total": len(examples),
            f"{split}_without_label": sum(not example.label for example in examples),
            f"{split}_links_kept": kept,
            f"{split}_links_below_threshold": links - kept,
            f"{split}_target_linked": sum(e.mentions[0].entity is not None for e in examples),
        }


def _example(name: str, record: Record, threshold: float) -> Example:
    text, labels = record["sent"], record["labels"]
    record.span("the mention", record["start"], record["end"], text)
    if len(set(labels)) < len(labels):
        raise record.error("has a label twice")
    target = Mention(record["start"], record["end"], role=Role.TARGET)
    links = [link for link in _links(record) if (link.score or 0.0) >= threshold]
    own = [link for link in links if _names(link, target, text)]
    if own:
        best = max(own, key=lambda link: link.score or 0.0)  # the first of equals
        links.remove(best)
        target = Mention(target.start, target.end, best.entity, Role.TARGET, best.score)
    return Example(name, text, (target, *links), tuple(sorted(labels)))


def _links(record: Record) -> list[Mention]:
    links = []
    for number, (entity, start, end, score) in enumerate(record["ents"]):
        record.span(f"ents[{number}]", start, end, record["sent"])
        if not 0 <= score <= 1:
            raise record.error(f"ents[{number}] has the confidence {score}, outside [0, 1]")
        # The hub library returns 0.1071 as 0.10709999999999999; one digest for both sources.
        links.append(Mention(start, end, entity, score=round(float(score), 12)))
    return links


def _names(link: Mention, target: Mention, text: str) -> bool:
    """Returns whether the link's span is the target's, but for a leading article."""
    lead = text[target.start : link.start].lower()
    return link.end == target.end and (link.start == target.start or lead in _ARTICLES)
