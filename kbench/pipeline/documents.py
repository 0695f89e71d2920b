"""Which document an example gets where a control chooses it (:mod:`kbench.knowledge.documents`)."""

from __future__ import annotations

from collections.abc import Sequence

from kbench.data import Example
from kbench.data.sentences import sentences_of
from kbench.knowledge.documents import NOTHING, Answers, bare, joined
from kbench.knowledge.gold import answers_of, called
from kbench.parts.run_parts import Parts
from kbench.spec import Control

__all__ = ["documents"]


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
      an entity that is called so; :data:`~kbench.knowledge.documents.NOTHING` where none is left.
    - ``empty``: :data:`~kbench.knowledge.documents.NOTHING`.

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
        answers = Answers([text], named, knowledge)
        if not several:
            chosen.append([])
        elif control == Control.ORACLE:
            chosen.append(_oracle(parts, answers, linked, several))
        else:
            chosen.append(answers.removed_from(several) or [NOTHING])
    return chosen


def _oracle(
    parts: Parts, answers: Answers, linked: Sequence[int], brought: Sequence[str]
) -> list[str]:
    told = [s for text in brought for s in sentences_of(text) if answers.within(s)]
    if told:
        return [joined(told), *answers.removed_from(brought)]
    knowledge = parts.knowledge
    assert knowledge is not None
    rows = [row for row in dict.fromkeys(linked) if row >= 0]
    every = (line for row in rows for line in knowledge.lines(row, knowledge.facts(row)))
    facts = [line for line in every if answers.within(line)]
    names = {bare(knowledge.name_of(row)) for row in rows}
    for row in answers.rows:
        joining = [fact for fact in knowledge.facts(row) if bare(fact[1]) in names]
        facts += knowledge.lines(row, joining)
    if not facts:
        facts = [t for row in answers.rows[:1] for t in parts.method.passages(knowledge, row) if t]
    return [joined(facts), *brought] if facts else list(brought)
