"""gated-map: an affine map of entity vectors whose outputs pass a learned gate.

A linked mention ``m_1 ... m_n`` of entity ``e``, whose vector in the knowledge base is ``k_e``,
becomes ``M(k_e) / m_1 ... m_n`` in the input of the frozen model, with

    M(k) = g * (A k + b)          A: [H, d], b: [H], g: [H]

where ``d`` is the size of an entity vector and ``H`` that of a word embedding. This is a place to
start from: change what you like, and `kbench check gated-map` says whether the rules still hold.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from kbench.knowledge import KnowledgeBase
from kbench.method import InjectionMethod, MethodCard, Plug
from kbench.model import LanguageModel
from kbench.spec import Setting
from kbench.task import Family
from kbench.training import Recipe

__all__ = ["GatedMapInjection", "GatedMapPlug"]


@final
class GatedMapPlug(Plug):
    """Everything that trains; the model around it is frozen.

    Args:
        knowledge: gives ``k_e``. Under a control it gives broken vectors: ask nobody else.
        width: ``H``, the size of a word embedding.
    """

    def __init__(self, knowledge: KnowledgeBase, width: int) -> None:
        super().__init__()
        self.knowledge = knowledge
        self.linear = nn.Linear(knowledge.dimension, width)
        self.gate = nn.Parameter(torch.ones(width))

    def slot_vectors(self, rows: Tensor) -> Tensor:
        """Maps rows of the knowledge base to input vectors. ``[slots] -> [slots, H]``.

        A method that works inside the layers overrides ``attach`` instead; see the docstrings of
        ``kbench.method.Plug`` and ``kbench.model.LanguageModel``.
        """
        mapped: Tensor = self.gate * self.linear(self.vectors_of(rows))
        return mapped


@final
class GatedMapInjection(InjectionMethod):
    """An affine map of entity vectors with a learned gate."""

    # `kbench ls methods` reads these lines without running them: keep the values literal.
    card = MethodCard(
        title="gated-map",
        paper="yours",
        year=2026,
        needs="entity vectors",
        trains="d H + 2 H",
    )
    # Change it whenever the same inputs would give another plug: stored ones are then made again.
    revision = "1"
    # Task-specific: trained on the task, through the frozen model. A general plug never sees a
    # task: add Setting.GENERAL, and override `fit` with an objective on `fit.knowledge.sentences`.
    settings = frozenset({Setting.TASK_SPECIFIC})
    # Where the vector goes. `{slot}` alone takes the mention's place.
    slot = "{slot} / {mention}"

    def recipe(self, setting: Setting, family: Family | None, task: str | None) -> Recipe:
        """Returns how to train; the option `--set` of `kbench run` changes it for a run."""
        return Recipe(learning_rate=2e-2, batch_size=32, epochs=10, dropout=0.0)

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns an untrained plug; raise ``kbench.errors.Unsupported`` for what cannot work."""
        return GatedMapPlug(knowledge, lm.slot_width)
