"""Controls of documents: which text a method puts into an input, with all knowledge as it is.

A method that reads texts in context is told apart from one that copies an answer, or only reads
longer inputs, by the document it gets:

- ``oracle``: one that holds an answer, where the knowledge base has any such;
- ``answer-removed``: that of the linked entities, without the sentences that name an answer;
- ``empty``: one that says nothing, in the same place.

Which sentences those are hangs on the example, so the texts are made where inputs are
(:mod:`kbench.pipeline.documents`). What is known of entities stays as it is.
"""

from __future__ import annotations

from typing import final

from kbench.knowledge.base import KnowledgeBase, Rows, Vectors
from kbench.knowledge.views import Broken
from kbench.spec import Control

__all__ = ["DOCUMENTS", "Documents"]

DOCUMENTS = frozenset({Control.ORACLE, Control.ANSWER_REMOVED, Control.EMPTY})
"""The controls of documents."""


@final
class Documents(Broken):
    """The true knowledge base, of which another document is to be made.

    Args:
        base: the true knowledge base.
        control: one of :data:`DOCUMENTS`.
    """

    def __init__(self, base: KnowledgeBase, control: Control) -> None:
        super().__init__(base, str(control), None)
        self._control = control

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        return Documents(self.base.over(rows, vectors), self._control)
