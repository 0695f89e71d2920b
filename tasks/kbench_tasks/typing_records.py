"""What typing tasks share whose records mark one mention: ``{sent, start, end, labels, …}``."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from kbench.data import Example, Mention, Role, Split
from kbench.data.records import Record, Shape
from kbench.data.sources import find_file, find_folder, is_hub, stream_hub_records, stream_records
from kbench.spec import OptionType
from kbench.task import TypingTask

__all__ = ["ErnieTyping", "TypingRecords"]

_RECORD = {"sent": str, "start": int, "end": int, "labels": [str]}
_ARTICLES = frozenset({"the ", "a ", "an "})


class TypingRecords(TypingTask):
    """Base of tasks with ``train.json``, ``dev.json`` and ``test.json`` of such records.

    Lists or JSON Lines; on the hub, rows with the same keys. An example without labels is kept,
    with the empty set as its label. Files are read record by record, and equal names are held
    once: they may have millions.

    Attributes:
        name: of the task; ids are ``NAME/SPLIT/NUMBER``.
        link: shape of what a record says of entities, beside ``sent``, ``start``, ``end``,
            ``labels``.
    """

    name: ClassVar[str]
    link: ClassVar[Mapping[str, Shape]]

    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split.

        Raises:
            DataError: the file is missing or malformed, or a label of dev or test does not
                occur in train.
            UsageError: an option has no such value.
        """
        known = None if split is Split.TRAIN else self.labels
        counts: Counter[str] = Counter(total=0, without_label=0, target_linked=0)
        examples = []
        for number, record in enumerate(self._records(split)):
            label = _label(record, known)
            record.span("the mention", record["start"], record["end"], record["sent"])
            target = Mention(record["start"], record["end"], role=Role.TARGET)
            mentions = self.mentions(record, target, counts)
            counts["total"] += 1
            counts["without_label"] += not label
            counts["target_linked"] += mentions[0].entity is not None
            name = f"{self.name}/{split}/{number}"
            examples.append(Example(name, record["sent"], mentions, label))
        self.counts |= {f"{split}_{what}": count for what, count in counts.items()}
        return examples

    @abstractmethod
    def mentions(
        self, record: Record, target: Mention, counts: Counter[str]
    ) -> tuple[Mention, ...]:
        """Returns the target with its entity, if it has one, and the other mentions behind it.

        Args:
            record: has its shape.
            target: the marked mention, not linked.
            counts: where it is counted what was kept and dropped.

        Raises:
            DataError: the record is malformed.
        """

    def _records(self, split: Split) -> Iterator[Record]:
        shape = {**_RECORD, **self.link}
        if is_hub(self.data):
            return stream_hub_records(self.data, split, shape)
        folder = find_folder(self.data, self.card, self.name.replace("-", ""))
        return stream_records(find_file(folder, f"{split}.json"), shape)


class ErnieTyping(TypingRecords):
    """Base of typing tasks of the ERNIE release, whose records hold the links of TAGME.

    ``ents: [[QID, start, end, confidence], …]``, offsets in characters of ``sent``. Links with a
    confidence below the option ``link_threshold`` are dropped and counted (ERNIE keeps what is
    greater than 0.3, so it also drops a link at exactly the threshold). A kept link belongs to
    the marked mention if it ends where that ends and starts where that starts or right after its
    leading article: "the [European Commission]". Looser overlap would often name another entity:
    "the reign of [Diocletian]" is not Diocletian. All other kept links, nested ones too, are
    context mentions.
    """

    link: ClassVar[Mapping[str, Shape]] = {"ents": [(str, int, int, float)]}
    defaults: ClassVar[Mapping[str, float | int | str]] = {
        **TypingTask.defaults,
        "link_threshold": 0.3,
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        **TypingTask.option_types,
        "link_threshold": OptionType("number", least=0, most=1),
    }

    def __init__(
        self, data: str | None = None, options: Mapping[str, float | int | str] | None = None
    ) -> None:
        super().__init__(data, options)
        self.link_threshold: float = float(self.options["link_threshold"])

    def mentions(
        self, record: Record, target: Mention, counts: Counter[str]
    ) -> tuple[Mention, ...]:
        """Gives the target the surest link that names it; the rest are context."""
        links = [link for link in _links(record) if (link.score or 0.0) >= self.link_threshold]
        counts["links_kept"] += len(links)
        counts["links_below_threshold"] += len(record["ents"]) - len(links)
        own = [link for link in links if _names(link, target, record["sent"])]
        if own:
            best = max(own, key=lambda link: link.score or 0.0)  # the first of equals
            links.remove(best)
            target = Mention(target.start, target.end, best.entity, Role.TARGET, best.score)
        return (target, *links)


def _label(record: Record, known: Sequence[str] | None) -> tuple[str, ...]:
    labels = record["labels"]
    if len(set(labels)) < len(labels):
        raise record.error("has a label twice")
    if known is not None:
        for label in labels:
            record.known("label", label, known)
    return tuple(sorted(map(sys.intern, labels)))


def _links(record: Record) -> list[Mention]:
    links = []
    for number, (entity, start, end, score) in enumerate(record["ents"]):
        record.span(f"ents[{number}]", start, end, record["sent"])
        if not 0 <= score <= 1:
            raise record.error(f"ents[{number}] has the confidence {score}, outside [0, 1]")
        # The hub library returns 0.1071 as 0.10709999999999999; one digest for both sources.
        links.append(Mention(start, end, sys.intern(entity), score=round(float(score), 12)))
    return links


def _names(link: Mention, target: Mention, text: str) -> bool:
    """Returns whether the link's span is the target's, but for a leading article."""
    lead = text[target.start : link.start].lower()
    return link.end == target.end and (link.start == target.start or lead in _ARTICLES)
