"""Methods that train on linked sentences, and on a task from there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from kbench.corpus.mentions import check_masked_lm
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase
from kbench.method import Fit, InjectionMethod, Plug
from kbench.model import LanguageModel
from kbench.spec import OptionType, Setting
from kbench.task import Family
from kbench.training import History, Recipe

__all__ = ["CorpusTrained"]


class CorpusTrained(InjectionMethod):
    """A general plug by masked language modelling on linked sentences; a task-specific one from it.

    The option ``start`` says where a task-specific plug begins: ``general``, where a general one
    can be had, or ``scratch``; ``max_length`` how many tokens a sentence has at most.

    Attributes:
        left_to_right: whether its general plug has an objective for models that read so.
        general: settings of the general plug.
        fixed: settings of the general plug that stays fixed in fine-tuning.
        families: settings on a task.
        tasks: settings on a task by its name, where they are not those of its family.
    """

    settings = frozenset(Setting)
    defaults: ClassVar[Mapping[str, Any]] = {"start": "general", "max_length": 128}
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "start": OptionType("text", words=("general", "scratch")),
        "max_length": OptionType("whole number", least=1),
    }
    left_to_right: ClassVar[bool] = False
    general: ClassVar[Recipe]
    fixed: ClassVar[Recipe]
    families: ClassVar[Mapping[Family, Recipe]]
    tasks: ClassVar[Mapping[str, Recipe]] = {}

    def check_training(self, setting: Setting, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        if setting == Setting.TASK_SPECIFIC:
            return  # a general plug, where it may start from one, is not needed
        if not (lm.left_to_right and self.left_to_right):
            check_masked_lm(lm)
        if not len(knowledge.sentences):
            raise Unsupported(f"knowledge base {knowledge.name} has no sentence to train on")

    def recipe(self, setting: Setting, family: Family | None, task: str | None) -> Recipe:
        if setting == Setting.TASK_SPECIFIC:
            assert family is not None
            return self.tasks.get(task or "", self.families[family])
        return self.fixed if setting == Setting.FINE_TUNING else self.general

    def corpus_readings(self) -> float | None:
        """Each sentence is one instance."""
        return 1

    def may_start_general(self) -> bool:
        return bool(self.options["start"] == "general")

    def starts_general(self, lm: LanguageModel, knowledge: KnowledgeBase) -> bool:
        known = lm.has_lm_head and (self.left_to_right or not lm.left_to_right)
        return self.may_start_general() and known and len(knowledge.sentences) > 0

    def fit(self, plug: Plug, fit: Fit) -> History:
        if fit.setting == Setting.TASK_SPECIFIC:
            return super().fit(plug, fit)
        return self.pretrain(plug, fit, min(int(fit.options["max_length"]), fit.lm.max_length))

    @abstractmethod
    def pretrain(self, plug: Plug, fit: Fit, max_length: int) -> History:
        """Trains a general plug on sentences of at most ``max_length`` tokens.

        Raises:
            Unsupported: the backbone has no masked-LM head, or no sentence is usable.
        """
