"""Map-tuning (Zhang et al., "Plug-and-Play Knowledge Injection for Pre-trained Language Models").

An affine map takes an entity's vector ``k_e`` (``d`` numbers) into the word-embedding space of
the frozen model, and the mapped vector goes into the input before the mention::

    M(k_e) = A k_e + b                                A: [H, d], b: [H]
    input  = ... M(k_e) "/" m_1 ... m_n ...           for a linked mention m_1 ... m_n

With the option ``slots = n`` there are ``n`` such maps, whose vectors stand one after another
(kbench's own; ``A: [n H, d]``, ``b: [n H]``).

``A`` and ``b`` are all that trains. General: mention-masked language modelling on a corpus of
linked sentences through the frozen backbone, or prediction of the next token of mentions through
one that reads from left to right (:func:`kbench.corpus.asked_mentions`), regularised by the
backbone's own dropout. Task-specific: the task's loss through the frozen downstream model,
starting from the general map where there is one. Fine-tuning: a general map trained without
dropout is fixed and the model is tuned with it in place.

The paper trains the general map at several dropout rates, keeps it after every epoch, and takes
for each task and tuning the one that is best there. The option ``choose`` does so, on dev::

    choose: {dropout: [0.15, 0.25, 0.35, 0.45], epoch: [1, 2, 3, 4, 5]}

One plug then holds all these maps; what was tried and taken is in every result. A task-specific
map starts from the one that is best on its dev split.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from kbench.corpus import CorpusTrained, asked_mentions, mention_loss
from kbench.encoding import Batch, Data
from kbench.errors import UsageError
from kbench.knowledge import KnowledgeBase
from kbench.method import Fit, MethodCard, Plug
from kbench.model import LanguageModel
from kbench.spec import OptionType, Setting
from kbench.task import Family
from kbench.training import History, Recipe

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


_RATE, _EPOCH = OptionType("number", least=0, below=1), OptionType("whole number", least=1)


class EntityMap(Plug, ABC):
    """A map of entity vectors into the input space.

    Args:
        knowledge: gives ``k_e``.
        slots: ``n``, vectors of an entity.
    """

    def __init__(self, knowledge: KnowledgeBase, slots: int = 1) -> None:
        super().__init__()
        self.knowledge = knowledge
        self.slots = slots
        self.kept: Tensor
        self._offered: tuple[str, ...] = ()
        self._chosen: int | None = None

    def offer(self, names: Sequence[str]) -> None:
        """Makes room for other maps of the same form, of which :meth:`choose` takes one."""
        self._offered = tuple(names)
        size = parameters_to_vector(self.parameters()).numel()
        self.register_buffer("kept", torch.zeros(len(names), size))

    def keep(self, name: str) -> None:
        """Puts the map as it is now among those offered."""
        self.kept[self._offered.index(name)] = parameters_to_vector(self.parameters()).detach()

    def choose(self, value: str) -> None:
        self._chosen = self._offered.index(value)

    def start_at(self, name: str) -> None:
        """Makes an offered map its own, to be trained on."""
        vector_to_parameters(self.kept[self._offered.index(name)].clone(), self.parameters())
        self._chosen = None

    @abstractmethod
    def forward(self, vectors: Tensor) -> Tensor:
        """Maps ``k_e``. ``[entities, d] -> [entities, n H]``."""

    def slot_vectors(self, rows: Tensor) -> Tensor:
        """Maps the vectors of entities, gathered in one go: ``[rows] -> [rows, (n,) H]``."""
        there = self.vectors_of(rows)
        chosen = self._chosen
        mapped: Tensor = self(there) if chosen is None else self._mapped(there, self.kept[chosen])
        return mapped if self.slots == 1 else mapped.view(len(mapped), self.slots, -1)

    def _mapped(self, vectors: Tensor, weights: Tensor) -> Tensor:
        """Maps with other weights, given as one vector, in the place of its own."""
        own = dict(self.named_parameters())
        pieces = torch.split(weights, [weight.numel() for weight in own.values()])
        theirs = {name: piece.view_as(own[name]) for name, piece in zip(own, pieces, strict=True)}
        mapped: Tensor = functional_call(self, theirs, (vectors,))
        return mapped


@final
class AffineMap(EntityMap):
    """The map ``M``: ``n (H d + H)`` parameters.

    Args:
        knowledge: gives ``k_e``.
        width: ``H``, the size of a word embedding.
        slots: ``n``, vectors of an entity.
    """

    def __init__(self, knowledge: KnowledgeBase, width: int, slots: int = 1) -> None:
        super().__init__(knowledge, slots)
        self.linear = nn.Linear(knowledge.dimension, slots * width)

    def forward(self, vectors: Tensor) -> Tensor:
        mapped: Tensor = self.linear(vectors)
        return mapped


class MappedSlots(CorpusTrained):
    """Methods that train a map of entity vectors, and put what it gives before the mention.

    Options: those of :class:`~kbench.corpus.CorpusTrained`; ``slots``, the vectors of an entity;
    and ``choose``, the dropout rates and epochs of which a task takes the best general map on dev
    (null: the recipe's rate, the last epoch).
    """

    slot = "{slot} / {mention}"
    left_to_right = True
    defaults: ClassVar[Mapping[str, Any]] = {
        **CorpusTrained.defaults,
        "max_length": 64,
        "choose": None,
        "slots": 1,
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        **CorpusTrained.option_types,
        "slots": OptionType("whole number", least=1),
    }
    later_options = frozenset({"slots"})
    general = _GENERAL
    fixed = _GENERAL.updated({"learning_rate": 1e-5, "dropout": None})
    families = TASK_RECIPES
    # 3,000 episodes of 25 queries, four a step.
    tasks = dict.fromkeys(
        ("fewrel", "fewrel-pubmed"), Recipe(2e-5, 100, 1, warmup=0.1, dropout=0.35)
    )

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self._offered = _offered(self.options["choose"])

    def slot_count(self) -> int:
        return int(self.options["slots"])

    @abstractmethod
    def untrained_map(self, lm: LanguageModel, knowledge: KnowledgeBase) -> EntityMap:
        """Returns an untrained map."""

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns an untrained map, with room for those that the option ``choose`` offers.

        Raises:
            Unsupported: the knowledge base has no vectors.
        """
        self.check(lm, knowledge)
        plug = self.untrained_map(lm, knowledge)
        if self._offered:
            plug.offer(self.choices())
        return plug

    def choices(self) -> Sequence[str]:
        return [_name(*choice) for choice in self._offered]

    def corpus_readings(self) -> float | None:
        """A sentence with head and tail is three instances, at each dropout rate."""
        return 3 * max(1, len({dropout for dropout, _ in self._offered}))

    def pretrain(self, plug: Plug, fit: Fit, max_length: int) -> History:
        assert isinstance(plug, EntityMap)
        data = asked_mentions(fit.lm, fit.knowledge, self.slot, max_length, slots=self.slot_count())
        loss = partial(mention_loss, fit.lm)
        if self._offered:
            history = self._pretrain_each(plug, fit, loss, data)
        else:
            history = fit.train(plug, loss, data)
        history.counts = data.dropped
        return history

    def _pretrain_each(
        self, plug: EntityMap, fit: Fit, loss: Callable[[Batch], Tensor], data: Data
    ) -> History:
        """Trains the map at each dropout rate from the same start, keeping it after each epoch."""
        last = max(epoch for _, epoch in self._offered)
        if last > fit.recipe.epochs:
            raise UsageError(
                f"choose names epoch {last}, but the recipe has {fit.recipe.epochs} epochs"
            )
        start = parameters_to_vector(plug.parameters()).detach().clone()
        whole = History()
        for dropout in dict.fromkeys(dropout for dropout, _ in self._offered):
            epochs = iter(range(1, fit.recipe.epochs + 1))

            def keep(dropout: float = dropout, epochs: Iterator[int] = epochs) -> float:
                epoch = next(epochs)
                if (dropout, epoch) in self._offered:
                    plug.keep(_name(dropout, epoch))
                return epoch  # the last is kept as the plug's own

            vector_to_parameters(start.clone(), plug.parameters())
            recipe = fit.recipe.updated({"dropout": dropout, "select": True})
            history = replace(fit, recipe=recipe, validate=keep).train(plug, loss, data)
            whole.add(history)
        plug.start_at(self.choices()[0])  # what fine-tuning takes
        return whole

    def fit(self, plug: Plug, fit: Fit) -> History:
        if fit.setting != Setting.TASK_SPECIFIC or not self._offered:
            return super().fit(plug, fit)
        if not self.starts_general(fit.lm, fit.knowledge):
            return super().fit(plug, fit)
        assert isinstance(plug, EntityMap)
        scores = [self._tried(plug, fit, name) for name in self.choices()]
        best = scores.index(max(scores))
        plug.start_at(self.choices()[best])
        history = super().fit(plug, fit)
        history.counts |= {"starts_tried": len(scores), "start_taken": best + 1}
        return history

    def _tried(self, plug: EntityMap, fit: Fit, name: str) -> float:
        """Returns the main metric on dev with an offered map."""
        assert fit.validate is not None
        plug.choose(name)
        with plug.attach(fit.lm):
            return fit.validate()


def _offered(choose: Any) -> list[tuple[float, int]]:
    """Returns the dropout rates and epochs that the option ``choose`` offers.

    Raises:
        UsageError: it is no such mapping.
    """
    if choose is None:
        return []
    dropouts: Any = choose.get("dropout") if isinstance(choose, dict) else None
    epochs: Any = choose.get("epoch") if isinstance(choose, dict) else None
    right = (
        isinstance(choose, dict)
        and choose.keys() == {"dropout", "epoch"}
        and all(isinstance(several, list) and several for several in (dropouts, epochs))
        and all(_RATE.allows(rate) for rate in dropouts)
        and all(_EPOCH.allows(epoch) for epoch in epochs)
    )
    if not right:
        raise UsageError(
            f"choose is {choose!r}; expected {{dropout: [rates], epoch: [numbers from 1]}}"
        )
    return list(product(map(float, dropouts), epochs))


def _name(dropout: float, epoch: int) -> str:
    return f"dropout {dropout:g}, epoch {epoch}"


@final
class MapTuning(MappedSlots):
    """Map-tuning: an affine map of entity vectors into the frozen model's input space."""

    card = MethodCard(
        title="map-tuning",
        paper="Plug-and-Play Knowledge Injection for Pre-trained Language Models (ACL 2023)",
        year=2023,
        needs="entity vectors; general: a masked-LM head and linked sentences",
        citation="2023.acl-long.594",
        authors="Zhengyan Zhang, Zhiyuan Zeng, Yankai Lin, Huadong Wang, Deming Ye, Chaojun "
        "Xiao, Xu Han, Zhiyuan Liu, Peng Li, Maosong Sun and Jie Zhou",
        trains="n (d H + H), n slots",
    )
    revision = "1"

    def untrained_map(self, lm: LanguageModel, knowledge: KnowledgeBase) -> EntityMap:
        return AffineMap(knowledge, lm.slot_width, self.slot_count())
