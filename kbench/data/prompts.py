"""How an example is put to a model that reads from left to right: a text that it goes on with."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Self

from kbench.data.examples import Example, Role
from kbench.errors import UsageError

__all__ = ["Lists", "Options", "Prompt", "Verdicts"]

_PIECE = re.compile(r"\{(text|before|target|head|tail|labels)\}")
_NAMED = re.compile(r"\{(target|head|tail)\}")
_WORD = re.compile(r"\w")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Prompt:
    """A form of prompts.

    Attributes:
        room: tokens that an answer may take, where it is written and not compared.
        ask: what stands before the answer. ``{text}`` is the example's text, ``{before}`` what of
            it stands before the blank, and ``{target}``, ``{head}``, ``{tail}`` are the names of
            these mentions.
        nothing: the same prompt without an example: what a model says of the answers by
            themselves is said after it (Holtzman et al., "Surface Form Competition", EMNLP 2021).
        words: of a label where they are not its own, its signs ``_``, ``-`` and ``/`` being blanks.
        statements: a sentence of each label, in which ``{head}``, ``{tail}`` and ``{target}`` are
            the names of the mentions. Where there are any, it is asked which of them is likeliest
            to come next, and not which words.
    """

    room: ClassVar[int] = 0

    ask: str
    nothing: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    statements: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ask.count("{text}") + self.ask.count("{before}") != 1:
            raise ValueError(f"prompt {self.ask!r}: expected {{text}} or {{before}}, and once")

    def put(self, example: Example) -> Example | None:
        """Returns an example as it is put: its text ends where the answer begins.

        Mentions keep their roles and their order. None where a word follows the blank: the model
        would not have read it.
        """
        text, shift, cut = "", 0, len(example.text)
        if "{before}" in self.ask:
            if example.blank is None or _WORD.search(example.text[example.blank :]):
                return None
            cut = example.blank
        at = 0
        for piece in _PIECE.finditer(self.ask):
            text += self.ask[at : piece.start()]
            at = piece.end()
            if piece[1] in ("text", "before"):
                shift = len(text)
                whole = example.text[:cut]
                # What follows brings its own blank.
                text += whole.rstrip() if piece[1] == "before" else whole
            else:
                text += self._piece(example, piece)
        text = (text + self.ask[at:]).rstrip()
        moved = tuple(
            # One that ends in a blank, as some data have it, ends with the text.
            replace(mention, start=mention.start + shift, end=min(mention.end + shift, len(text)))
            for mention in example.mentions
        )
        return replace(example, text=text, mentions=moved, blank=len(text))

    def _piece(self, example: Example, piece: re.Match[str]) -> str:
        """What stands in the place of a piece that is not the text."""
        return piece[0] if piece[1] == "labels" else _name(example, Role(piece[1]))

    @property
    def closed(self) -> str:
        """The sign that every text ends in, of a script without blanks between words; else nothing.

        Such as the colon of Chinese or Japanese: an answer stands right behind it.
        """
        last = self.ask.rstrip()[-1:]
        return last if last != "}" and _is_wide(last) else ""

    def lead(self, example: Example) -> str:
        """Returns what stands right before the answer to an example, as tokenizers spell it by.

        A blank behind words of the prompt, or its sign where it is :attr:`closed`; where the text
        itself ends the prompt, :attr:`kbench.data.Example.before_blank`: what is read ends before
        its blank, and may end there in a sign, as scripts without blanks have it, and brackets.
        A statement follows the text's last sign where that is of such a script.
        """
        if self.statements and self.ask == "{text}":
            last = example.text[-1:]
            return last if _is_wide(last) else " "
        if self.closed or not self.ask.endswith("{before}"):
            return self.closed or " "
        return example.before_blank or ("" if self.ask == "{before}" else " ")

    def joins(self, example: Example) -> bool:
        """Whether the answer of an example stands right behind its text, without a blank."""
        return bool(self.lead(example).strip())

    def shown(self, example: Example, answer: str) -> Example | None:
        """Returns an example as it is put, with an answer: a demonstration; None as :meth:`put`."""
        put = self.put(example)
        if put is None:
            return None
        text = f"{put.text}{'' if self.joins(example) else ' '}{answer}"
        return replace(put, text=text, blank=len(text), label=answer)

    def answer(self, example: Example, label: str) -> str:
        """Returns what is said of an example where a label is right: its words, or its statement.

        Raises:
            KeyError: there are statements, and none of the label.
        """
        if not self.statements:
            return self.spelled(label)
        return _NAMED.sub(lambda name: _name(example, Role(name[1])), self.statements[label])

    def spelled(self, label: str) -> str:
        """Returns the words of a label."""
        return self.words.get(label) or re.sub(r"[_\-/]+", " ", label).strip() or label

    def candidates(self, labels: Sequence[str]) -> list[str]:
        """Returns what a model may go on with where it has the choice of some labels.

        As many of the first label, then as many of the second, and so on; here one of each.
        """
        return [self.spelled(label) for label in labels]


@dataclass(frozen=True)
class Verdicts(Prompt):
    """A form of prompts that ask of each label by itself whether it holds: yes or no?

    What is asked ends where a label goes (``{text} Is {target} a``). The label stands last, so that
    all questions of an example share what stands before it.

    Attributes:
        yes: what follows a label that holds. Its last word counts with and without a capital.
        no: what follows one that does not, likewise.
    """

    yes: str = "? Answer: yes"
    no: str = "? Answer: no"

    def candidates(self, labels: Sequence[str]) -> list[str]:
        """Returns four of each label: yes, in small letters and with a capital; no, likewise."""
        ends = [end for said in (self.yes, self.no) for end in _in_both_cases(said)]
        return [f"{self.spelled(label)}{end}" for label in labels for end in ends]

    def answer(self, example: Example, label: str) -> str:
        return self.verdict(label, label in example.labels)

    def verdict(self, label: str, holds: bool) -> str:
        """Returns a label and whether it holds, as a demonstration has it."""
        return f"{self.spelled(label)}{self.yes if holds else self.no}"


@dataclass(frozen=True)
class Options(Prompt):
    """A form of prompts that list the labels behind letters, and ask for a letter.

    They are listed twice, in opposite orders, and what is said of both counts: models prefer some
    letters, and some places of a list, whatever stands there (Zheng et al., "Large Language Models
    Are Not Robust Multiple Choice Selectors", ICLR 2024).

    Attributes:
        most: labels that there are letters for.
        asks: what stands between the list and the letter.
    """

    most: ClassVar[int] = len(_LETTERS)
    asks: str = "Answer:"

    def candidates(self, labels: Sequence[str]) -> list[str]:
        """Returns two of each label: its letter behind the list, and behind the list turned round.

        Raises:
            UsageError: there are more labels than letters.
        """
        if len(labels) > self.most:
            raise UsageError(
                f"ask=letters, and there are {len(labels)} labels; expected {self.most} at most, "
                "of which each has a letter: take ask=name"
            )
        return [
            self.lettered(labels, label, turned=turned)
            for label in labels
            for turned in (False, True)
        ]

    def lettered(self, labels: Sequence[str], label: str, *, turned: bool) -> str:
        """Returns the list, or the list turned round, and the letter of a label."""
        order = labels[::-1] if turned else labels
        lines = (f"{_LETTERS[n]}. {self.spelled(each)}" for n, each in enumerate(order))
        return "\n".join((*lines, f"{self.asks} {_LETTERS[order.index(label)]}"))


@dataclass(frozen=True)
class Lists(Prompt):
    """A form of prompts that ask for all labels that hold, which the model writes in a list.

    ``{labels}`` in what is asked are those that there are.

    Attributes:
        among: the labels that there are.
        none: what is written where none holds.
    """

    room: ClassVar[int] = 48

    among: tuple[str, ...] = ()
    none: str = "none of these"

    def of(self, labels: Sequence[str]) -> Self:
        """Returns the form as it is asked where a task has these labels."""
        return replace(self, among=tuple(labels))

    def _piece(self, example: Example, piece: re.Match[str]) -> str:
        return self.listed(self.among) if piece[1] == "labels" else super()._piece(example, piece)

    def answer(self, example: Example, label: str) -> str:
        return self.listed(example.labels)

    def listed(self, labels: Sequence[str]) -> str:
        """Returns a list of labels, in their own order, as a model is to write it."""
        return ", ".join(self.spelled(label) for label in sorted(labels)) or self.none

    @cached_property
    def _known(self) -> dict[str, str]:
        """The labels by how they may be written, folded once for all lists that are read."""
        known: dict[str, str] = {}
        for fold in (_folded, _plain):  # the nearer way to read a label has the say
            for label in reversed(self.among):
                known |= dict.fromkeys((fold(label), fold(self.spelled(label))), label)
        return known

    def _label(self, written: str) -> str | None:
        return self._known.get(_plain(written), self._known.get(_folded(written)))

    def read(self, said: str) -> tuple[str, ...]:
        """Returns the labels of a list that a model has written, sorted.

        Commas and semicolons part them, and ``and`` and ``or`` do where what they join is no label.
        Case, articles and signs have no say. What is no label stays, as it was written: it is one
        thing that the model says and that is not so.
        """
        found = set[str]()
        for part in re.split(r"[,;，、；]", said):
            whole = [part] if self._label(part) else re.split(r"\b(?:and|or)\b", part)
            for written in whole:
                named = self._label(written)
                if named is not None:
                    found.add(named)
                elif _WORD.search(written) and _folded(written) != _folded(self.none):
                    found.add(" ".join(written.split()))
        return tuple(sorted(found))


def _plain(said: str) -> str:
    """A label without case, and with single blanks."""
    return " ".join(said.casefold().split())


def _folded(said: str) -> str:
    """What of a label does not hang on how it is written."""
    words = re.findall(r"\w+", said.casefold().replace("_", " "))
    named = words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words
    return " ".join(named) or said.strip()


def _is_wide(sign: str) -> bool:
    """Whether a sign is of a script that has no blanks between words."""
    return bool(sign) and unicodedata.east_asian_width(sign) in ("W", "F")


def _in_both_cases(said: str) -> tuple[str, str]:
    """A text as it is, and with a capital at its last word."""
    *before, last = re.split(r"(\s+)", said)
    return said, "".join((*before, last[:1].upper() + last[1:]))


def _name(example: Example, role: Role) -> str:
    named = next((m for m in example.mentions if m.role == role), None)
    return "" if named is None else example.text[named.start : named.end]
