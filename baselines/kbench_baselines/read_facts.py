"""Methods that learn, without a task, to tell the tails of facts that they are given."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from kbench.corpus import CorpusTrained, check_masked_lm, mention_loss
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase
from kbench.method import Fit, Plug
from kbench.model import LanguageModel
from kbench.spec import OptionType, Setting
from kbench.training import History
from kbench_baselines.facts import told_facts
from kbench_baselines.linked import vector_width

__all__ = ["FactReader"]


class FactReader(CorpusTrained):
    """A general plug by the tails of facts; a task-specific one from it.

    Options: those of :class:`~kbench.corpus.CorpusTrained`, and ``lessons``, the facts it learns
    from at most.
    """

    left_to_right = True
    reads_facts = True
    defaults: ClassVar[Mapping[str, Any]] = {
        **CorpusTrained.defaults,
        "max_length": 64,
        "lessons": 16384,
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        **CorpusTrained.option_types,
        "lessons": OptionType("whole number", least=1),
    }

    def check_facts(self, knowledge: KnowledgeBase, *, vectors: bool) -> None:
        """Refuses a knowledge base without facts or, where they are wanted, without vectors.

        Raises:
            Unsupported: it says what is lacking.
        """
        if not len(knowledge.unbroken.triples):
            raise Unsupported(f"knowledge base {knowledge.name} has no facts")
        if vectors:
            vector_width(knowledge)

    def check_training(self, setting: Setting, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        if setting != Setting.TASK_SPECIFIC and not lm.left_to_right:
            check_masked_lm(lm)

    def starts_general(self, lm: LanguageModel, knowledge: KnowledgeBase) -> bool:
        return self.may_start_general() and lm.has_lm_head and len(knowledge.triples) > 0

    def pretrain(self, plug: Plug, fit: Fit, max_length: int) -> History:
        data = told_facts(
            fit.lm,
            fit.knowledge,
            self.template(),
            max_length,
            most=int(fit.options["lessons"]),
            seed=fit.seed,
            slots=self.slot_count(),
        )
        history = fit.train(plug, partial(mention_loss, fit.lm), data)
        history.counts = data.dropped
        return history
