"""Tasks: a data set with labels, a head and metrics, of one of three families.

Free of torch until a head is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from kbench.data import Example, Role, Split, digest_examples
from kbench.metrics import Accuracy, LooseMacroF1, LooseMicroF1, Metric, StrictAccuracy

if TYPE_CHECKING:
    from kbench.heads import Head

__all__ = ["Family", "QuestionTask", "RelationTask", "Task", "TaskCard", "TypingTask"]


class Family(StrEnum):
    """What a task asks of a model."""

    TYPING = "entity typing"
    RELATION = "relation classification"
    QUESTION = "question answering"


@dataclass(frozen=True)
class TaskCard:
    """What a reader must know of a data set.

    Attributes:
        title: its name in print.
        revision: of the data as loaded here; part of every address.
        licence: of the data.
        citation: paper that introduced it.
        source: where it comes from.
        obtain: how to get it and what ``--data`` must point to; empty for embedded tasks.
    """

    title: str
    revision: str
    licence: str
    citation: str
    source: str
    obtain: str = ""


class Task(ABC):
    """A data set with labels, a head, and metrics.

    Subclass one of the families, give a ``card`` and implement :meth:`load`.

    Args:
        data: value of ``--data``: a folder in the published layout, ``hf:REPOSITORY[@REVISION]``,
            or None.
        options: parameters of the task, such as a link threshold.

    Attributes:
        metrics: the main metric first.
        markers: wordpieces set around a mention of each role, with and without knowledge.
        max_length: tokens of an input, specials included.
        linking: default linker: ``gold`` (ids of the data) or ``title`` (exact label).
        defaults: the options and their default values.
        counts: what loading kept and dropped, by name; filled by :meth:`load`.
    """

    card: ClassVar[TaskCard]
    family: ClassVar[Family]
    metrics: tuple[Metric, ...]
    markers: ClassVar[Mapping[Role, str]]
    max_length: ClassVar[int] = 128
    linking: ClassVar[str] = "gold"
    defaults: ClassVar[Mapping[str, float | int | str]] = {}

    def __init__(
        self, data: str | None = None, options: Mapping[str, float | int | str] | None = None
    ) -> None:
        self.data = data
        self.options = {**self.defaults, **(options or {})}
        self.counts: dict[str, int] = {}
        self._splits: dict[Split, Sequence[Example]] = {}

    @abstractmethod
    def load(self, split: Split) -> Sequence[Example]:
        """Reads a split.

        Raises:
            DataError: a file is missing or malformed.
        """

    @abstractmethod
    def head(self, width: int) -> Head:
        """Returns an untrained head over hidden states of ``width``."""

    def examples(self, split: Split) -> Sequence[Example]:
        """Returns a split, read once."""
        if split not in self._splits:
            self._splits[split] = tuple(self.load(split))
        return self._splits[split]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all splits: a task's data by content."""
        return digest_examples(e for split in Split for e in self.examples(split))

    @cached_property
    def training_digest(self) -> str:
        """SHA-256 of train and dev: all that a downstream model is made of."""
        return digest_examples(e for s in (Split.TRAIN, Split.DEV) for e in self.examples(s))

    @property
    def form(self) -> dict[str, object]:
        """What shapes a downstream model beside the examples: inputs and head.

        Tasks that share form, train and dev share their downstream models and plugs.
        """
        maker = next(kind for kind in type(self).__mro__ if "head" in vars(kind))
        return {
            "family": str(self.family),
            "head": f"{maker.__module__}:{maker.__qualname__}",
            "markers": {str(role): marker for role, marker in sorted(self.markers.items())},
            "max_length": self.max_length,
        }

    @property
    def main_metric(self) -> Metric:
        """The metric that selects on dev and ranks on test."""
        return self.metrics[0]


class _LabelledTask(Task):
    """A task over a closed set of classes, those of its training split unless given."""

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The class names, sorted."""
        found: set[str] = set()
        for example in self.examples(Split.TRAIN):
            found.update([example.label] if isinstance(example.label, str) else example.label)
        return tuple(sorted(found))


class TypingTask(_LabelledTask):
    """Entity typing: which of many classes does the marked mention have? Labels are sets.

    Attributes:
        fallback: whether the best type is predicted where no logit is above 0.
    """

    family = Family.TYPING
    fallback: bool = False
    metrics: tuple[Metric, ...] = (LooseMicroF1(), LooseMacroF1(), StrictAccuracy())
    markers: ClassVar[Mapping[Role, str]] = {Role.TARGET: "$"}

    def head(self, width: int) -> Head:
        """Returns a linear layer on the pooled output with one logit a type."""
        from kbench.heads import TypingHead

        return TypingHead(width, self.labels, self.fallback)

    @property
    def form(self) -> dict[str, object]:
        return {**super().form, "fallback": self.fallback}


class RelationTask(_LabelledTask):
    """Relation classification: which relation holds between head and tail? One label."""

    family = Family.RELATION
    metrics: tuple[Metric, ...] = (Accuracy(),)
    markers: ClassVar[Mapping[Role, str]] = {Role.HEAD: "#", Role.TAIL: "$"}

    def head(self, width: int) -> Head:
        """Returns a linear layer on the pooled output with one logit a relation."""
        from kbench.heads import RelationHead

        return RelationHead(width, self.labels)


class QuestionTask(Task):
    """Question answering at ``[MASK]``: the label is the tuple of acceptable answers.

    An example is kept where some answer, lower-cased, is one token of the backbone; the first
    such answer becomes the only gold one (the convention of the map-tuning release). How many
    were kept of how many is part of every result.
    """

    family = Family.QUESTION
    metrics: tuple[Metric, ...] = (Accuracy(),)
    markers: ClassVar[Mapping[Role, str]] = {Role.TARGET: "$"}
    max_length = 64

    def head(self, width: int) -> Head:
        """Returns the backbone's masked-LM head, read at the blank."""
        from kbench.heads import BlankHead

        return BlankHead()
