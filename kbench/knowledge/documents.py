"""Controls of documents: which text a method reads, with all knowledge as it is.

A method that reads texts is told apart from one that copies an answer, or only reads longer inputs,
by the document it gets:

- ``oracle``: one that holds an answer, where the knowledge base has any such;
- ``answer-removed``: that of the linked entities, without the sentences that name an answer;
- ``empty``: one that says nothing, in the same place.

Which sentences those are hangs on the example, so what goes into an input is made where inputs are
(:mod:`kbench.pipeline.documents`). A method that reads the text of an entity by itself, once for
all examples, is given it through :meth:`~kbench.knowledge.KnowledgeBase.shown`: without what names
an answer to any example that asks about the entity. Of it ``oracle`` says nothing. What is known of
entities stays as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import final

from kbench.data import Example
from kbench.data.sentences import sentences_of
from kbench.knowledge.base import KnowledgeBase, Rows, Vectors
from kbench.knowledge.folding import folded
from kbench.knowledge.gold import answers_of, asked_about, called
from kbench.knowledge.names import find_word
from kbench.knowledge.views import Broken
from kbench.spec import Control

__all__ = [
    "DOCUMENTS",
    "NOTHING",
    "Answers",
    "Documents",
    "answers_by_entity",
    "bare",
    "joined",
    "plain",
]

DOCUMENTS = frozenset({Control.ORACLE, Control.ANSWER_REMOVED, Control.EMPTY})
"""The controls of documents."""
NOTHING = "background : none ."
"""The document that says nothing."""
_NO_WORD = re.compile(r"[\W_]+")


def plain(text: str) -> str:
    """Returns the words of a text, folded, with one blank between them."""
    return " ".join(_NO_WORD.sub(" ", folded(text)).split())


def joined(sentences: Iterable[str]) -> str:
    """Returns sentences as one text."""
    return " ".join(sentence.strip() for sentence in sentences)


def bare(text: str) -> str:
    """Returns the words of a text without accents, which a tokenizer may drop."""
    signs = unicodedata.normalize("NFD", folded(text))
    return plain("".join(sign for sign in signs if unicodedata.category(sign) != "Mn"))


@final
class Answers:
    """What answers some examples, by all the names of the entities that are called so.

    Args:
        examples: one or several.
        named: entities by the folded answers that they are called by.
        knowledge: gives their other names.

    Attributes:
        rows: of the entities.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        named: Mapping[str, Sequence[int]],
        knowledge: KnowledgeBase,
    ) -> None:
        asked = (answer for example in examples for answer in answers_of(example))
        self.rows = list(dict.fromkeys(r for a in asked for r in named.get(folded(a), ())))
        names = [label for example in examples for label in example.labels]
        names += [name for row in self.rows for name in knowledge.entity(row).names]
        self._names: Collection[str] = {bare(name) for name in names} - {""}

    def within(self, text: str) -> bool:
        """Whether a text names one, whatever its case, marks and accents."""
        words = bare(text)
        return any(find_word(name, words) >= 0 for name in self._names)

    def removed_from(self, texts: Iterable[str]) -> list[str]:
        """Returns texts without the sentences that name an answer."""
        kept = (joined(s for s in sentences_of(text) if not self.within(s)) for text in texts)
        return [text for text in kept if text]


def answers_by_entity(
    examples: Sequence[Example], knowledge: KnowledgeBase, linker: str
) -> dict[int, Answers]:
    """Returns the answers to all examples that ask about an entity, by its row."""
    about: dict[int, list[Example]] = {}
    found = asked_about(examples, knowledge, linker)
    for at, row in zip(found.example.tolist(), found.row.tolist(), strict=True):
        about.setdefault(row, []).append(examples[at])
    named = called({answer for text in examples for answer in answers_of(text)}, knowledge)
    return {row: Answers(several, named, knowledge) for row, several in about.items()}


@final
class Documents(Broken):
    """The true knowledge base, of which another document is to be made.

    Args:
        base: the true knowledge base.
        control: one of :data:`DOCUMENTS`.
        answers: gives what ``answer-removed`` takes out of the texts of entities, by row; None
            where no method reads them by itself.
        grounds: what these answers are called in the digest.
    """

    def __init__(
        self,
        base: KnowledgeBase,
        control: Control,
        answers: Callable[[], Mapping[int, Answers]] | None = None,
        grounds: object = None,
    ) -> None:
        super().__init__(base, str(control), None, grounds)
        self._control, self._given, self._grounds = control, answers, grounds

    @cached_property
    def _answers(self) -> Mapping[int, Answers]:
        return self._given() if self._given else {}

    def shown(self, row: int, texts: Sequence[str]) -> list[str]:
        if not texts or self._control == Control.ORACLE:
            return [*texts]
        if self._control == Control.EMPTY:
            return [NOTHING]
        own = self._answers.get(row)
        return [*texts] if own is None else own.removed_from(texts) or [NOTHING]

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        return Documents(self.base.over(rows, vectors), self._control, self._given, self._grounds)
