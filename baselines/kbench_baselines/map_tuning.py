"""Map-tuning (Zhang et al., "Plug-and-Play Knowledge Injection for Pre-trained Language Models").

An affine map takes an entity's vector ``k_e`` (``d`` numbers) into the word-embedding space of
the frozen model, and the mapped vector goes into the input before the mention::

    M(k_e) = A k_e + b                                A: [H, d], b: [H]
    input  = ... M(k_e) "/" m_1 ... m_n ...           for a linked mention m_1 ... m_n

``A`` and ``b`` are all that trains. General: mention-masked language modelling on a corpus of
linked sentences through the frozen backbone (see :mod:`kbench_baselines.masked_lm`), regularised
by the backbone's own dropout. Task-specific: the task's loss through the frozen downstream model,
starting from the general map where there is one. Fine-tuning: a general map trained without
dropout is fixed and the model is tuned with it in place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from kbench.knowledge import KnowledgeBase
from kbench.method import Fit, MethodCard, Plug
from kbench.model import Encoder
from kbench.task import Family
from kbench.training import History, Recipe
from kbench_baselines.corpus_trained import CorpusTrained
from kbench_baselines.masked_lm import masked_mentions, mention_loss

__all__ = ["TASK_RECIPES", "AffineMap", "EntityMap", "MapTuning", "MappedSlots"]

_GENERAL = Recipe(
    learning_rate=3e-5, batch_size=64, epochs=5, optimizer="adam", decay="constant", dropout=0.25
)
TASK_RECIPES = {
    # Wiki-ET, Wiki80 and EntityQuestions of the release.
    Family.TYPING: Recipe(5e-5, 128, 2, optimizer="adam", warmup=0.1, dropout=0.2),
    Family.RELATION: Recipe(4e-4, 64, 30, optimizer="adam", warmup=0.1, dropout=0.3),
    Family.QUESTION: Recipe(2e-3, 64, 5, optimizer="adam", warmup=0.1, dropout=0.1),
}
"""Task-specific settings by family."""


class EntityMap(Plug, ABC):
    """A map of entity vectors into the input space.

    Args:
        knowledge: gives ``k_e``.
    """

    def __init__(self, knowledge: KnowledgeBase) -> None:
        super().__init__()
        self.knowledge = knowledge

    @abstractmethod
    def forward(self, vectors: Tensor) -> Tensor:
        """Maps ``k_e``. ``[slots, d] -> [slots, H]``."""

    def slot_vectors(self, rows: Tensor) -> Tensor:
        """Maps the vectors of entities, gathered in one go. ``[slots] -> [slots, H]``."""
        vectors = torch.from_numpy(self.knowledge.vectors(rows.numpy()))
        mapped: Tensor = self(vectors.to(next(self.parameters()).device, non_blocking=True))
        return mapped


@final
class AffineMap(EntityMap):
    """The map ``M``: ``H * d + H`` parameters.

    Args:
        knowledge: gives ``k_e``.
        width: ``H``, the size of a word embedding.
    """

    def __init__(self, knowledge: KnowledgeBase, width: int) -> None:
        super().__init__(knowledge)
        self.linear = nn.Linear(knowledge.dimension, width)

    def forward(self, vectors: Tensor) -> Tensor:
        mapped: Tensor = self.linear(vectors)
        return mapped


class MappedSlots(CorpusTrained):
    """Methods that train a map of entity vectors, and put what it gives before the mention."""

    slot = "{slot} / {mention}"
    defaults: ClassVar[Mapping[str, Any]] = {"start": "general", "max_length": 64}
    general = _GENERAL
    fixed = _GENERAL.updated({"learning_rate": 1e-5, "dropout": None})
    families = TASK_RECIPES
    # 3,000 episodes of 25 queries, four a step.
    tasks = dict.fromkeys(
        ("fewrel", "fewrel-pubmed"), Recipe(2e-5, 100, 1, warmup=0.1, dropout=0.35)
    )

    def pretrain(self, plug: Plug, fit: Fit, max_length: int) -> History:
        data = masked_mentions(fit.encoder, fit.knowledge, self.slot, max_length)
        history = fit.train(plug, lambda batch: mention_loss(fit.encoder, batch), data)
        history.counts = data.dropped
        return history


@final
class MapTuning(MappedSlots):
    """Map-tuning: an affine map of entity vectors into the frozen model's input space."""

    card = MethodCard(
        title="map-tuning",
        paper="Plug-and-Play Knowledge Injection for Pre-trained Language Models (ACL 2023)",
        year=2023,
        needs="entity vectors; general: a masked-LM head and linked sentences",
        citation="2023.acl-long.594",
        trains="d H + H",
    )
    revision = "1"

    def build(self, encoder: Encoder, knowledge: KnowledgeBase) -> Plug:
        return AffineMap(knowledge, encoder.slot_width)
