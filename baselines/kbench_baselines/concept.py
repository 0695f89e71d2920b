"""ConceptFormer's concept vectors: attention over an entity's facts, in slots of a frozen model.

Barmettler, Bernstein and Rossetto, "ConceptFormer: Towards Efficient Use of Knowledge-Graph
Embeddings in Large Language Models". Entity ``c`` with facts ``(c, r_j, t_j)`` has ``n`` slots::

    q_i   = Q_i x_c + b_i                         Q_i: [a, s]
    k_ij  = K_i x_tj + E_i w_rj                   K_i: [a, s], E_i: [a, W]
    o_i   = Σ_j softmax_j( q_i k_ij / sqrt(a) ) V_i x_tj        V_i: [a, s]
    slot_i = B LeakyReLU( A o_i + a_0 ) + b_0     A: [m, a], B: [W, m], m = 1.6 W, of all slots

``x`` and ``w`` are what :class:`~kbench_baselines.facts.FactVectors` says, by the option
``source``; ``a`` is ``W``, the width of a word embedding. The slots stand before the mention, and
the input names neither relation nor tail. ``facts`` of an entity count at most, those that come
first in the knowledge base: nothing sees to it that the answer is among them, which in the
release's evaluation is always put into a cut list.

Published are vectors as wide as the model, so that all maps are ``H x H``, another map of each
head before the shared one, and slots behind the mention. The release (no licence) adds GPT-2's
positions twice, to the model without knowledge too; reads the last logits of texts padded on the
right; leaves entities without a vector out of its score; and reads a text once for each token of
the answer. It trains on sentences with the object last, as here on the tails of facts
(:func:`~kbench_baselines.facts.told_facts`), with the network frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kbench.encoding import sent
from kbench.knowledge import KnowledgeBase, Rows
from kbench.method import MethodCard, Plug
from kbench.model import LanguageModel
from kbench.spec import OptionType
from kbench.task import Family
from kbench.training import Recipe
from kbench_baselines.facts import FactVectors, entity_width, has_facts, seats
from kbench_baselines.read_facts import FactReader

__all__ = ["Concept", "ConceptPlug"]

_WIDER = 1.6
"""The shared map's inner width to its outer."""

# Of the release: on sentences made for the purpose, then on T-REx.
_PUBLISHED = Recipe(learning_rate=6e-5, batch_size=12, epochs=3, optimizer="adam", decay="constant")


@final
class ConceptPlug(Plug):
    """Attention over facts, and the map of what it finds into the input space.

    ``n (a (3 s + W + 1)) + m (a + 1) + W (m + 1)`` parameters.

    Args:
        method: says how many slots, and which facts.
        knowledge: has them.
        lm: the network.
    """

    def __init__(self, method: Concept, knowledge: KnowledgeBase, lm: LanguageModel) -> None:
        super().__init__()
        self.method, self.knowledge = method, knowledge
        self.slots, self.width = method.slot_count(), lm.slot_width
        given = entity_width(lm, knowledge, method.options["source"])
        out, inner = self.slots * self.width, int(_WIDER * self.width)
        self.query = nn.Linear(given, out)
        self.key = nn.Linear(given, out, bias=False)
        self.edge = nn.Linear(self.width, out, bias=False)
        self.value = nn.Linear(given, out, bias=False)
        self.shared = nn.Sequential(
            nn.Linear(self.width, inner), nn.LeakyReLU(), nn.Linear(inner, self.width)
        )
        self._vectors: FactVectors | None = None

    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        device = self.query.weight.device
        self._vectors = FactVectors(lm, self.knowledge, self.method.options["source"], device)
        try:
            with lm.slots(self.slot_vectors):
                yield
        finally:
            self._vectors = None

    def slot_vectors(self, rows: Tensor) -> Tensor:
        """Attends over the facts of entities. ``[entities] -> [entities, n, W]``.

        Raises:
            RuntimeError: the plug is not attached: it knows no network's words.
        """
        if self._vectors is None:
            raise RuntimeError("the slots of concept are those of a network; attach the plug first")
        given, known = self._vectors, rows.numpy()
        facts, there = self._seats(given, known)
        tails = given.tails(facts[..., 2].ravel())
        edges = given.relations(facts[..., 1].ravel())
        keys = self._by_slot(self.key(tails) + self.edge(edges), *there.shape)
        values = self._by_slot(self.value(tails), *there.shape)
        queries = self._by_slot(self.query(given.heads(known)), len(known), 1)
        scores = (queries * keys).sum(3) * self.width**-0.5  # [entities, facts, n]
        seen = sent(torch.from_numpy(there), scores.device)[:, :, None]
        weights = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(1)
        slots: Tensor = self.shared((weights.unsqueeze(3) * values).sum(1))
        return slots if self.slots > 1 else slots[:, 0]

    def _by_slot(self, mapped: Tensor, entities: int, seats: int) -> Tensor:
        return mapped.view(entities, seats, self.slots, self.width)

    def _seats(self, given: FactVectors, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The facts of entities, ``[entities, seats, 3]``, and which seats are taken."""
        numbers, owner = given.table.of(rows)
        within, counts = seats(owner, len(rows))
        most = min(int(self.method.options["facts"]), int(counts.max(initial=1)))
        kept = within < most
        taken = np.zeros((len(rows), most), dtype=np.int64)
        taken[owner[kept], within[kept]] = numbers[kept]
        there = np.arange(most) < counts[:, None]
        return given.table.facts[taken].astype(np.int64), there


@final
class Concept(FactReader):
    """ConceptFormer's idea: ``slots`` vectors an entity, each of its own view of the facts.

    Options: ``slots``; ``facts`` of an entity at most; ``source``; and those of
    :class:`~kbench_baselines.read_facts.FactReader`.
    """

    card = MethodCard(
        title="concept",
        paper="ConceptFormer: Towards Efficient Use of Knowledge-Graph Embeddings in Large "
        "Language Models (2025)",
        year=2025,
        needs="facts, entity vectors or names",
        citation="arXiv:2504.07624",
        authors="Joel Barmettler, Abraham Bernstein and Luca Rossetto",
        trains="n W (3 s + W + 1) + m (W + 1) + W (m + 1), m = 1.6 W, n slots",
    )
    revision = "2"
    slot = "{slot} / {mention}"
    defaults: ClassVar[Mapping[str, Any]] = {
        **FactReader.defaults,
        "slots": 4,
        "facts": 64,
        "source": "kge",
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        **FactReader.option_types,
        "slots": OptionType("whole number", least=1),
        "facts": OptionType("whole number", least=1),
        "source": OptionType("text", words=("kge", "words")),
    }
    general = _PUBLISHED
    fixed = _PUBLISHED
    families = dict.fromkeys(Family, _PUBLISHED)

    def slot_count(self) -> int:
        return int(self.options["slots"])

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        """Whether an entity is the head of a fact."""
        return has_facts(knowledge, rows)

    def check(self, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        self.check_facts(knowledge, vectors=self.options["source"] == "kge")

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns an untrained plug.

        Raises:
            Unsupported: there are no facts, or no vectors.
        """
        self.check(lm, knowledge)
        return ConceptPlug(self, knowledge, lm)
