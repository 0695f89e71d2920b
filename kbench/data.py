"""What a task is made of: examples with linked mentions, in splits.

Free of torch: listing and showing data must stay quick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

__all__ = ["Example", "Label", "Mention", "Role", "Split", "digest_examples"]

Label: TypeAlias = str | tuple[str, ...]
"""One class name, a set of class names (multi-label), or the acceptable answers of a question."""


class Split(StrEnum):
    """The part of a data set: fit on train, select on dev, report on test once."""

    TRAIN = "train"
    DEV = "dev"
    TEST = "test"


class Role(StrEnum):
    """What a mention is to the task; markers are set around all but ``context``."""

    TARGET = "target"
    HEAD = "head"
    TAIL = "tail"
    CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class Mention:
    """A span of text that names an entity.

    Attributes:
        start: first character of the span.
        end: character after the last.
        entity: id in a knowledge base, or None where no link is known.
        role: what the mention is to the task.
        score: the linker's confidence in [0, 1], or None for gold links.
    """

    start: int
    end: int
    entity: str | None = None
    role: Role = Role.CONTEXT
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One item of a task.

    Attributes:
        id: unique within the data set; the key of paired comparisons.
        text: the input, never lower-cased or stripped (offsets point into it).
        mentions: spans in ``text``.
        label: gold class, classes or acceptable answers.
        blank: character offset at which the answer's ``[MASK]`` is put, or None.
    """

    id: str
    text: str
    mentions: tuple[Mention, ...]
    label: Label
    blank: int | None = None

    def __post_init__(self) -> None:
        for mention in self.mentions:
            if not 0 <= mention.start < mention.end <= len(self.text):
                raise ValueError(
                    f"example {self.id}: mention [{mention.start}, {mention.end}) lies outside "
                    f"its text of {len(self.text)} characters"
                )
        if self.blank is not None and not 0 <= self.blank <= len(self.text):
            raise ValueError(
                f"example {self.id}: blank {self.blank} lies outside its text of "
                f"{len(self.text)} characters"
            )


def digest_examples(examples: Iterable[Example]) -> str:
    """Returns the SHA-256 of everything in the examples, in their order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr(example).encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    return digest.hexdigest()
