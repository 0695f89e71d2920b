"""Which document an example gets where a control chooses it (:mod:`kbench.knowledge.documents`)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

from kbench.data import Example
from kbench.encoding.passages import sentences_of
from kbench.knowledge import KnowledgeBase, folded
from kbench.knowledge.gold import answers_of, called
from kbench.knowledge.names import find_word
from kbench.parts.run_parts import Parts
from kbench.spec import Control

__all__ = ["NOTHING", "documents", "plain"]

NOTHING = "background : none ."
"""The document that says nothing."""
_NO_WORD = re.compile(r"[\W_]+")


def plain(text: str) -> str:
    """Returns the words of a text, folded, with one blank between them."""
    return " ".join(_NO_WORD.sub(" ", folded(text)).split())


def documents(
    parts: Parts,
    texts: Sequence[Example],
    rows: Sequence[Sequence[int]],
    brought: Sequence[Sequence[str]],
) -> list[list[str]]:
    """Returns the texts of each example as the control of a run chooses them.

    Examples without a text, of which nothing is linked, get none.

    - ``oracle``: the sentences that name an answer come first, before all that is to be cut. Where
      there are none, the facts that join a linked entity and one that is called as an answer, else
      the document of such a one; the linked document as it is where the knowledge base has neither.
    - ``answer-removed``: without the sentences (facts are such) that name an answer, by any name of
      an entity that is called so; :data:`NOTHING` where none is left.
    - ``empty``: :data:`NOTHING`.

    Args:
        parts: of the run.
        texts: the examples.
        rows: of the entities that each links.
        brought: the texts of these, an entry an example.
    """
    control, knowledge = parts.spec.control, parts.knowledge
    assert knowledge is not None
    if control == Control.EMPTY:
        return [[NOTHING] if several else [] for several in brought]
    named = called({answer for text in texts for answer in answers_of(text)}, knowledge)
    chosen: list[list[str]] = []
    for text, linked, several in zip(texts, rows, brought, strict=True):
        answers = _Answers(text, named, knowledge)
        if not several:
            chosen.append([])
        elif control == Control.ORACLE:
            chosen.append(_oracle(parts, answers, linked, several))
        else:
            chosen.append(answers.removed_from(several) or [NOTHING])
    return chosen


class _Answers:
    """The answers of an example by all their names.

    Args:
        example: its labels are what is right.
        named: entities by the folded answers that they are called by.
        knowledge: gives their other names.
    """

    def __init__(
        self, example: Example, named: Mapping[str, Sequence[int]], knowledge: KnowledgeBase
    ) -> None:
        asked = answers_of(example)
        self.rows = list(dict.fromkeys(r for a in asked for r in named.get(folded(a), ())))
        names = [
            *example.labels,
            *(name for row in self.rows for name in knowledge.entity(row).names),
        ]
        self._names: Collection[str] = {_bare(name) for name in names} - {""}

    def within(self, text: str) -> bool:
        """Whether a text names one, whatever its case, marks and accents."""
        words = _bare(text)
        return any(find_word(name, words) >= 0 for name in self._names)

    def removed_from(self, texts: Iterable[str]) -> list[str]:
        """Returns texts without the sentences that name an answer."""
        kept = (_joined(s for s in sentences_of(text) if not self.within(s)) for text in texts)
        return [text for text in kept if text]


def _oracle(
    parts: Parts, answers: _Answers, linked: Sequence[int], brought: Sequence[str]
) -> list[str]:
    told = [s for text in brought for s in sentences_of(text) if answers.within(s)]
    if told:
        return [_joined(told), *answers.removed_from(brought)]
    knowledge = parts.knowledge
    assert knowledge is not None
    rows = [row for row in dict.fromkeys(linked) if row >= 0]
    every = (line for row in rows for line in knowledge.lines(row, knowledge.facts(row)))
    facts = [line for line in every if answers.within(line)]
    names = {_bare(knowledge.name_of(row)) for row in rows}
    for row in answers.rows:
        joining = [fact for fact in knowledge.facts(row) if _bare(fact[1]) in names]
        facts += knowledge.lines(row, joining)
    if not facts:
        facts = [t for row in answers.rows[:1] for t in parts.method.passages(knowledge, row) if t]
    return [_joined(facts), *brought] if facts else list(brought)


def _joined(sentences: Iterable[str]) -> str:
    return " ".join(sentence.strip() for sentence in sentences)


def _bare(text: str) -> str:
    """The words of a text without accents, which a tokenizer may drop."""
    signs = unicodedata.normalize("NFD", folded(text))
    return plain("".join(sign for sign in signs if unicodedata.category(sign) != "Mn"))
