"""The yardstick: the downstream model as it is."""

from __future__ import annotations

from typing import ClassVar, final

from kbench.knowledge import KnowledgeBase
from kbench.method import InjectionMethod, MethodCard, NoPlug, Plug
from kbench.model import LanguageModel
from kbench.spec import Setting

__all__ = ["NoInjection"]


@final
class NoInjection(InjectionMethod):
    """No knowledge: the frozen downstream model itself, against which all else is read."""

    card = MethodCard(title="none", paper="", year=0, needs="nothing")
    revision = "1"
    settings: ClassVar[frozenset[Setting]] = frozenset()
    trains = False

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        return NoPlug()
