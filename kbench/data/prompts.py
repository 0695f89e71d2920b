"""How an example is put to a model that reads from left to right: a text that it goes on with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kbench.data.examples import Example, Role

__all__ = ["Prompt"]

_PIECE = re.compile(r"\{(text|before|target|head|tail)\}")
_NAMED = re.compile(r"\{(target|head|tail)\}")
_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Prompt:
    """A form of prompts.

    Attributes:
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
                text += _name(example, Role(piece[1]))
        text = (text + self.ask[at:]).rstrip()
        moved = tuple(
            # One that ends in a blank, as some data have it, ends with the text.
            replace(mention, start=mention.start + shift, end=min(mention.end + shift, len(text)))
            for mention in example.mentions
        )
        return replace(example, text=text, mentions=moved, blank=len(text))

    def joins(self, example: Example) -> bool:
        """Whether the answer of an example stands right behind its text, without a blank.

        So where what is read ends before its blank, and ends there in a sign: scripts without
        blanks between words have it so, and so does what stands in brackets.
        """
        if not self.ask.endswith("{before}") or example.blank is None:
            return False
        before = example.text[: example.blank]
        return bool(before) and not before[-1].isspace()

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


def _name(example: Example, role: Role) -> str:
    named = next((m for m in example.mentions if m.role == role), None)
    return "" if named is None else example.text[named.start : named.end]
