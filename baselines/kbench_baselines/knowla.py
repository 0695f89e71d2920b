"""KnowLA's entity mixture in the layers of a frozen model.

Luo et al., "KnowLA: Enhancing Parameter-efficient Finetuning with Knowledgeable Adaptation".
After two layers, for a token with state ``h`` of a text that links ``e_1 … e_n`` up to it::

    x  = h / rms(h)
    κ  = W_3 ( SiLU(W_1 [e ; s]) * W_2 [e ; s] )          W_1, W_2: [i, d], W_3: [H, i]
    α  = softmax( x κ' / sqrt(H) )                        over the entities and the sentinel s
    m  = Σ α [e ; s]
    h ← h + g W_o SiLU( W_x x + W_m m + b )               W_x: [r, H], W_m: [r, d], W_o: [H, r]

``e`` are vectors of the knowledge base, brought to mean 0 and variance 1 (published: as they are).
``s`` is learned: a token that wants nothing of the entities looks there. ``W_o`` is zero at first,
so that the model is itself, and ``g`` is 1/2, as published. ``i = r = 64``, ``d`` at most. A token
before which nothing is linked stays as it is; in a model that reads both ways every token of a text
sees all of its entities. Layers are those after a third and two thirds of them: what the last one
gives is read by no other token.

Published is a layer beside LoRA, with which it trains; here the network is frozen, and this alone
trains. There the candidates are those of each word of the text (five at most), which its tokens
alone look at by their mean: here they are the entities that the text links, and each token looks
for itself, so that nothing is told of a token by one behind it. The release (GPL-3; known from
descriptions alone) adds to all tokens, also where nothing is linked; skips tokens that are read one
at a time, so that an answer with a cache is another than without; and loses all entities of a text
of which one word is misaligned.

Without a task it learns what comes next in linked sentences (or what is masked).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.corpus import CorpusTrained, masked_tokens, mention_loss, next_tokens
from kbench.encoding import Batch, sent
from kbench.knowledge import KnowledgeBase
from kbench.method import Fit, MethodCard, Plug
from kbench.model import LanguageModel, rewritten
from kbench.task import Family
from kbench.training import History, Recipe
from kbench_baselines.linked import vector_width

__all__ = ["Knowla", "KnowlaPlug", "Mixture", "fused_layers"]

_INNER = 64
_GATE = 0.5

# Of the release, on Alpaca, where LoRA trains along.
_PUBLISHED = Recipe(learning_rate=3e-4, batch_size=128, epochs=3, warmup=0.1)


def fused_layers(layers: int) -> tuple[int, ...]:
    """Returns after which layers entities are mixed in: 1 and 3 of 6, 9 and 20 of 32."""
    return tuple(sorted({max(0, layers * part // 3 - 1) for part in (1, 2)}))


@final
class Mixture(nn.Module):
    """What is added to the states after one layer.

    ``i (2 d + H) + r (2 H + d + 1) + d + 1`` parameters.

    Args:
        width: ``H``.
        dimension: ``d``, of entity vectors.
    """

    def __init__(self, width: int, dimension: int) -> None:
        super().__init__()
        inner = min(_INNER, dimension)
        self.sentinel = nn.Parameter(torch.randn(dimension) * 0.02)
        self.into = nn.Linear(dimension, 2 * inner, bias=False)
        self.key = nn.Linear(inner, width, bias=False)
        self.state = nn.Linear(width, inner)
        self.entity = nn.Linear(dimension, inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.gate = nn.Parameter(torch.tensor(_GATE))
        nn.init.zeros_(self.out.weight)

    def forward(self, hidden: Tensor, entities: Tensor, seen: Tensor) -> Tensor:
        """Adds to states.

        Args:
            hidden: ``[texts, tokens, H]``.
            entities: of each text. ``[texts, seats, d]``.
            seen: which of them each token sees. ``[texts, tokens, seats]``, bool.

        Returns:
            ``[texts, tokens, H]``.
        """
        states = F.rms_norm(hidden.float(), hidden.shape[-1:])
        there = torch.cat([self.sentinel.expand(len(entities), 1, -1), entities], 1)
        gate, inner = self.into(there).chunk(2, -1)
        keys = self.key(F.silu(gate) * inner)
        scores = (states @ keys.mT).float() * hidden.shape[-1] ** -0.5
        visible = F.pad(seen, (1, 0), value=True)
        weights = scores.masked_fill(~visible, torch.finfo(scores.dtype).min).softmax(-1)
        mixed = F.silu(self.state(states) + self.entity(weights @ there))
        added = (self.gate * self.out(mixed)).to(hidden.dtype)
        return torch.where(seen.any(2, keepdim=True), hidden + added, hidden)


@final
class KnowlaPlug(Plug):
    """The mixtures after two layers.

    Args:
        knowledge: gives the vectors.
        lm: the network.
    """

    def __init__(self, knowledge: KnowledgeBase, lm: LanguageModel) -> None:
        super().__init__()
        self.knowledge = knowledge
        self.places = fused_layers(len(lm.layers))
        width = vector_width(knowledge)
        self.mixtures = nn.ModuleList(Mixture(lm.width, width) for _ in self.places)

    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        linked = _Linked(self)
        with ExitStack() as stack:
            stack.enter_context(lm.preparing(linked.prepare))
            for place, mixture in zip(self.places, self.mixtures, strict=True):
                change = partial(linked.mixed, mixture, lm)
                stack.enter_context(rewritten(lm.layers[place], change))
            yield


class _Linked:
    """The vectors of those whom a batch speaks of, and from which token on they are known.

    Args:
        plug: gives the vectors.
    """

    def __init__(self, plug: KnowlaPlug) -> None:
        self._plug = plug
        self._entities: Tensor | None = None
        self._first = torch.empty(0)

    def prepare(self, batch: Batch) -> None:
        """Gathers the vectors of a batch, once for both layers."""
        told, texts = batch.entities, len(batch.ids)
        if not len(told.rows):
            self._entities = None
            return
        vectors = self._plug.vectors_of(told.rows)
        vectors = F.layer_norm(vectors, vectors.shape[1:])
        self._entities, taken = told.seated(vectors, texts)
        first, _ = told.seated(_first_tokens(batch).to(vectors.device), texts)
        # No token comes so late as one that sees what is not there.
        self._first = first.masked_fill(~taken, torch.iinfo(first.dtype).max)

    def mixed(self, mixture: nn.Module, lm: LanguageModel, hidden: Tensor) -> Tensor:
        """Adds to the states after a layer. ``[texts, tokens, H]``."""
        if self._entities is None:
            return hidden
        entities, first = self._entities.to(hidden.device), self._first.to(hidden.device)
        tokens = torch.arange(hidden.shape[1], device=hidden.device)
        if not lm.left_to_right:
            tokens = torch.full_like(tokens, hidden.shape[1])
        added: Tensor = mixture(hidden, entities, tokens[:, None] >= first[:, None])
        return added


def _first_tokens(batch: Batch) -> Tensor:
    """At which token of its row each of a batch's entities is first spoken of. ``[entities]``."""
    told, device = batch.entities, batch.ids.device
    if batch.before is not None:  # of what is gone on with all was spoken of before
        return torch.zeros(len(told.rows), dtype=torch.int64, device=device)
    linked = torch.nonzero(batch.mention_rows >= 0)[:, 0]
    pairs = torch.stack([batch.mention_owners[linked], batch.mention_rows[linked]], 1).numpy()
    at = np.sort(np.unique(pairs, axis=0, return_index=True)[1])
    starts = batch.mentions[sent(linked[torch.from_numpy(at)], device), 0]
    return starts - sent(told.owners * batch.ids.shape[1], device)


@final
class Knowla(CorpusTrained):
    """KnowLA with the network frozen: a mixture of entity vectors in two of the layers."""

    card = MethodCard(
        title="KnowLA (frozen)",
        paper="KnowLA: Enhancing Parameter-efficient Finetuning with Knowledgeable Adaptation "
        "(NAACL 2024)",
        year=2024,
        needs="entity vectors; general: linked sentences",
        citation="arXiv:2403.14950",
        authors="Xindi Luo, Zequn Sun, Jing Zhao, Zhe Zhao and Wei Hu",
        trains="2 (i (2 d + H) + i (2 H + d + 1) + d + 1), i = min(64, d)",
    )
    revision = "1"
    left_to_right = True
    defaults: ClassVar[Mapping[str, Any]] = {**CorpusTrained.defaults, "max_length": 64}
    general = _PUBLISHED
    fixed = _PUBLISHED
    families = dict.fromkeys(Family, _PUBLISHED)

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns a plug that changes nothing yet.

        Raises:
            Unsupported: the knowledge base has no vectors.
        """
        self.check(lm, knowledge)
        return KnowlaPlug(knowledge, lm)

    def pretrain(self, plug: Plug, fit: Fit, max_length: int) -> History:
        lm, knowledge = fit.lm, fit.knowledge
        data = (
            next_tokens(lm, knowledge, max_length)
            if lm.left_to_right
            else masked_tokens(lm, knowledge, max_length, fit.seed)
        )
        history = fit.train(plug, partial(mention_loss, lm), data)
        history.counts = data.corpus.dropped
        return history
