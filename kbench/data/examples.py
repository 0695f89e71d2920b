"""What a task is made of: examples with linked mentions, in splits.

Free of torch: listing and showing data must stay quick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

__all__ = [
    "NONE_OF_THE_ABOVE",
    "Candidate",
    "Example",
    "Label",
    "Mention",
    "Role",
    "Split",
    "digest_examples",
    "outermost",
]

NONE_OF_THE_ABOVE = "none of the above"
"""The label of an example that is of none of its candidates (FewRel 2.0)."""

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
        candidates: the classes to choose from, each shown by examples of it (N-way K-shot); empty
            where the classes are those of the task.
        stratum: what the example counts under where a metric tells examples apart, such as
            ``5w1s``; empty where none does.
        relation: what a question asks for of its subject, as far as the data tell it: what is
            right of another question of the same relation is an answer that could be. It follows
            from what else an example has, and is no part of its digest.
    """

    id: str
    text: str
    mentions: tuple[Mention, ...]
    label: Label
    blank: int | None = None
    candidates: tuple[Candidate, ...] = field(default=(), repr=False)
    stratum: str = field(default="", repr=False)
    relation: str = field(default="", repr=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """All of its labels: the one, those of a set, or all acceptable answers."""
        return (self.label,) if isinstance(self.label, str) else self.label

    @property
    def before_blank(self) -> str:
        """What stands right before the blank, for many tokenizers spell a word by it.

        Nothing at the beginning of the text, a blank behind one of any kind, else the character
        itself. Where there is no blank the answer is taken to stand inside a sentence.
        """
        if self.blank is None:
            return " "
        before = self.text[: self.blank]
        if not before.strip():
            return ""
        return " " if before[-1].isspace() else before[-1]

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


@dataclass(frozen=True, slots=True)
class Candidate:
    """A class that an example may be of.

    Attributes:
        label: its name.
        support: labelled examples of it, K of them; their ids name their content.
    """

    label: str
    support: tuple[Example, ...]


def digest_examples(examples: Iterable[Example]) -> str:
    """Returns the SHA-256 of everything in the examples, in their order."""
    digest = hashlib.sha256()
    known: set[str] = set()
    for example in examples:
        lines = [repr(example)]
        if example.stratum:
            lines.append(f"stratum {example.stratum!r}")
        for candidate in example.candidates:
            lines.append(f"candidate {candidate.label!r} {[e.id for e in candidate.support]}")
            # A support recurs in many episodes: it is told once.
            lines += [repr(e) for e in candidate.support if e.id not in known]
            known.update(e.id for e in candidate.support)
        digest.update("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def outermost(mentions: Iterable[Mention]) -> list[Mention]:
    """Returns mentions in the order of the text, without those that overlap one before."""
    kept: list[Mention] = []
    for mention in sorted(mentions, key=lambda m: (m.start, -m.end)):
        if not kept or mention.start >= kept[-1].end:
            kept.append(mention)
    return kept
