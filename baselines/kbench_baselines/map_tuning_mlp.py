"""Map-tuning with a two-layer map: kbench's own variant of :mod:`kbench_baselines.map_tuning`.

Would a map that bends do better at the same price? In the place of the affine map stands::

    M(k_e) = A GELU(B k_e + c) + b            B: [m, d], c: [m], A: [H, m], b: [H]

with ``m = floor(d H / (d + H + 1))``, at least 1, so that it has as many parameters as the affine
map's ``d H + H`` or just fewer; with ``n`` slots ``n H`` stands for ``H``. All else is as in
map-tuning: where the vector goes, what it is trained on, and how.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.knowledge import KnowledgeBase
from kbench.method import MethodCard
from kbench.model import LanguageModel
from kbench_baselines.map_tuning import EntityMap, MappedSlots

__all__ = ["BentMap", "MlpMapTuning"]


@final
class BentMap(EntityMap):
    """The map ``M``: ``m (d + n H + 1) + n H`` parameters.

    Args:
        knowledge: gives ``k_e``.
        width: ``H``, the size of a word embedding.
        slots: ``n``, vectors of an entity.
    """

    def __init__(self, knowledge: KnowledgeBase, width: int, slots: int = 1) -> None:
        super().__init__(knowledge, slots)
        dimension, width = knowledge.dimension, slots * width
        hidden = max(1, dimension * width // (dimension + width + 1))
        self.inner = nn.Linear(dimension, hidden)
        self.outer = nn.Linear(hidden, width)

    def forward(self, vectors: Tensor) -> Tensor:
        mapped: Tensor = self.outer(F.gelu(self.inner(vectors)))
        return mapped


@final
class MlpMapTuning(MappedSlots):
    """Map-tuning with a two-layer map of the same number of parameters; kbench's own variant."""

    card = MethodCard(
        title="map-tuning (MLP)",
        paper="kbench's own variant of map-tuning (Plug-and-Play Knowledge Injection for "
        "Pre-trained Language Models, ACL 2023)",
        year=2023,
        needs="entity vectors; general: a masked-LM head and linked sentences",
        citation="2023.acl-long.594",
        authors="Zhengyan Zhang, Zhiyuan Zeng, Yankai Lin, Huadong Wang, Deming Ye, Chaojun "
        "Xiao, Xu Han, Zhiyuan Liu, Peng Li, Maosong Sun and Jie Zhou",
        trains="m (d + n H + 1) + n H, at most map-tuning's n (d H + H), n slots",
    )
    revision = "1"

    def untrained_map(self, lm: LanguageModel, knowledge: KnowledgeBase) -> EntityMap:
        return BentMap(knowledge, lm.slot_width, self.slot_count())
