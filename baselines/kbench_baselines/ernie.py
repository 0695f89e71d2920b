"""ERNIE's fusion layers on a frozen model.

Zhang et al., "ERNIE: Enhanced Language Representation with Informative Entities", section 3.3.

A stream of entity states ``e_j`` (width ``d``, that of the entity vectors) runs beside the token
states of the upper layers. An entity sits at the first wordpiece ``j`` of its mention, and starts
as its vector. In each fused layer, after the token self-attention, whose output is ``w̄_j``::

    ē_j = LN( e_j + Dropout( attention among the entities of the example ) )    else ē_j = e_j
    h_j = act( W_t w̄_j + b_t + W_e ē_j + b_e )        W_e: [inner, d]; without an entity no W_e, b_e
    w_j = LN( w̄_j + Dropout(W_o h_j + b_o) )          the frozen layer's own
    e_j ← LN( ē_j + Dropout(W_oe h_j + b_oe) )        W_oe: [d, inner]

Of ``L`` layers the first ``⌊5 L / 12⌋`` stay plain, the next one fuses without attention among
entities (ERNIE's ``mix``), the others with it (``norm``, 4 heads): 5, 1 and 6 of 12. The last
layer's entity states would not be read, so it has no ``W_oe``.

ERNIE trains the whole network. Here the network is frozen and the entity side alone trains, a
definition of ours: ``W_e`` and ``b_e`` start at zero, and ``b_e`` is added only where an entity
is, so that the model is itself at first, and always on a text without a linked entity (the
release adds ``b_e`` to every token, and aligns a zero vector with ``[CLS]``). Where two linked
mentions begin at one token, both entities are added there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.corpus import CorpusTrained, MaskedTokens, masked_tokens
from kbench.encoding import Batch, ragged, sent
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase
from kbench.method import Fit, MethodCard, Plug
from kbench.model import LanguageModel, rewritten
from kbench.task import Family
from kbench.training import History, Recipe
from kbench_baselines.attention import DROPOUT, Attention
from kbench_baselines.linked import Linked, linked, vector_width

__all__ = ["Ernie", "ErniePlug", "Fusion", "NoisyLinks", "denoising_loss"]

# Pre-training of the release; its rate does not fall after the warm-up.
_GENERAL = Recipe(
    learning_rate=5e-5,
    batch_size=256,
    epochs=1,
    warmup=0.1,
    decay="constant",
    weight_decay=0.01,
    dropout=0.1,
)
# Fine-tuning of the release on OpenEntity and FewRel, where the whole model trains: the entity
# side alone may want a higher rate. It has no question answering; that recipe is ours.
_TYPING = _GENERAL.updated({"learning_rate": 2e-5, "batch_size": 16, "epochs": 10})
_RELATION = _TYPING.updated({"batch_size": 32})
_FAMILIES = {Family.TYPING: _TYPING, Family.RELATION: _RELATION, Family.QUESTION: _RELATION}
_REPLACED, _LOST = 0.05, 0.15


@final
class Fusion(nn.Module):
    """The entity side of one layer.

    ``mix`` has ``2 d inner + inner + 3 d`` parameters, ``norm`` ``4 d^2 + 6 d`` more, and a layer
    without an output ``d inner + 3 d`` fewer.

    Args:
        width: ``d``.
        inner: width of the layer's feed-forward network.
        attends: whether entities attend to each other (``norm``).
        goes_on: whether a later layer reads the entity states.
    """

    def __init__(self, width: int, inner: int, *, attends: bool, goes_on: bool) -> None:
        super().__init__()
        self.attention = Attention(width) if attends else None
        self.into = nn.Linear(width, inner)
        self.out = nn.Linear(inner, width) if goes_on else None
        self.norm = nn.LayerNorm(width) if goes_on else None
        self.dropout = nn.Dropout(DROPOUT)
        nn.init.zeros_(self.into.weight)
        nn.init.zeros_(self.into.bias)

    def among(self, entities: Tensor, mentions: Linked) -> Tensor:
        """Returns ``ē``. ``[mentions, d]``."""
        if self.attention is None:
            return entities
        seated = mentions.seated(entities)
        return mentions.unseated(self.attention(seated, seated, mentions.taken))

    def after(self, entities: Tensor, inner: Tensor) -> Tensor:
        """Returns the next ``e`` from ``ē`` and ``h`` at its places. ``[mentions, d]``."""
        assert self.out is not None
        assert self.norm is not None
        result: Tensor = self.norm(entities + self.dropout(self.out(inner)))
        return result


@final
class ErniePlug(Plug):
    """The entity side of the upper layers.

    Args:
        knowledge: gives the first ``e_j``.
        depth: ``L``, layers of the network.
        inner: width of their feed-forward networks.
    """

    def __init__(self, knowledge: KnowledgeBase, depth: int, inner: int) -> None:
        super().__init__()
        self.knowledge = knowledge
        self.first = depth * 5 // 12
        width = vector_width(knowledge)
        self.fusions = nn.ModuleList(
            Fusion(width, inner, attends=at > self.first, goes_on=at < depth - 1)
            for at in range(self.first, depth)
        )

    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        stream = _Stream(self, lm)
        layers = lm.layers[self.first :]
        with ExitStack() as hooks:
            for fusion, layer in zip(self.fusions, layers, strict=True):
                assert isinstance(fusion, Fusion)
                dense, inner = lm.feed_forward(layer)
                hooks.enter_context(rewritten(dense, partial(stream.enter, fusion)))
                if fusion.out is not None:
                    hooks.enter_context(rewritten(inner, partial(stream.leave, fusion)))
            yield


class _Stream:
    """The entity states of one forward pass; the first fused layer begins it anew."""

    def __init__(self, plug: ErniePlug, lm: LanguageModel) -> None:
        self._plug = plug
        self._lm = lm
        self._mentions: Linked | None = None
        self._entities = torch.empty(0)

    def enter(self, fusion: Fusion, before: Tensor) -> Tensor:
        """Adds ``W_e ē + b_e`` to what goes into the activation. ``[batch, tokens, inner]``."""
        if fusion is self._plug.fusions[0]:
            self._mentions = linked(self._lm.batch)
            if self._mentions is not None:
                self._entities = self._plug.vectors_of(self._mentions.rows)
        if self._mentions is None:
            return before
        self._entities = fusion.among(self._entities, self._mentions)
        added = fusion.into(self._entities).to(before.dtype)
        return before.flatten(0, 1).index_add(0, self._places, added).view_as(before)

    def leave(self, fusion: Fusion, inner: Tensor) -> Tensor:
        """Reads ``h``, which stays as it is, into the entity states."""
        if self._mentions is not None:
            self._entities = fusion.after(self._entities, inner.flatten(0, 1)[self._places])
        return inner

    @property
    def _places(self) -> Tensor:
        """Where the entities sit: the first wordpiece of each mention. ``[mentions]``."""
        assert self._mentions is not None
        return self._mentions.spans[:, 0]


@dataclass(frozen=True)
class NoisyLinks:
    """Masked sentences whose links are partly wrong or missing, for the denoising objective.

    Of the linked mentions 5% get an entity drawn from those of the batch and 15% lose theirs.

    Attributes:
        tokens: the masked sentences.
        rng: of the noise.
    """

    tokens: MaskedTokens
    rng: np.random.Generator

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sentence. ``[sentences]``."""
        return self.tokens.lengths

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a masked batch with noise in ``mention_rows``."""
        batch = self.tokens.batch(chosen)
        rows = batch.mention_rows.numpy().copy()
        at = np.flatnonzero(rows >= 0)
        fate = self.rng.random(len(at))
        drawn = self.rng.choice(np.unique(rows[at]), size=len(at)) if len(at) else at
        rows[at] = np.where(fate < _REPLACED, drawn, rows[at])
        rows[at[(fate >= _REPLACED) & (fate < _REPLACED + _LOST)]] = -1
        return replace(batch, mention_rows=torch.from_numpy(rows))

    def true(self, batch: Batch) -> Batch:
        """Returns a batch without the noise in its links."""
        inputs = self.tokens.corpus.inputs
        items, _ = ragged(inputs.span_bounds, batch.examples.numpy())
        kept = inputs.spans[items, 1] > 0  # as in a batch
        return replace(batch, mention_rows=torch.from_numpy(inputs.span_rows[items][kept]))


def denoising_loss(head: nn.Module, plug: ErniePlug, hidden: Tensor, batch: Batch) -> Tensor:
    """The denoising entity auto-encoder (ERNIE, section 3.4), a scalar.

    From the token state at a mention's first wordpiece its entity is told among those of the
    batch and none, a zero vector: ``logits = g(w_j) · K^T``.

    Args:
        head: ``g``, to the width of entity vectors.
        plug: gives ``K``, the frozen vectors.
        hidden: last hidden states. ``[batch, tokens, H]``.
        batch: with the true links.
    """
    mentions = linked(batch)
    if mentions is None:
        return hidden.new_zeros(())
    known, labels = torch.unique(mentions.rows, return_inverse=True)
    keys = F.pad(plug.vectors_of(known), (0, 0, 0, 1))
    told = head(hidden.flatten(0, 1)[mentions.spans[:, 0]])
    logits = (told @ keys.to(told.dtype).T).float()
    return F.cross_entropy(logits, sent(labels, told.device))


@final
class Ernie(CorpusTrained):
    """ERNIE's entity stream through a frozen model; the model itself at first.

    General: masked language modelling plus the denoising entity auto-encoder, unweighted, on
    linked sentences one by one; ERNIE's next-sentence loss and its windows of at least five
    entities need running text. Task-specific: the task's loss, starting from the general plug
    where there is one. Fine-tuning: the general plug is fixed and the model is tuned with it.
    """

    card = MethodCard(
        title="ERNIE-style fusion",
        paper="ERNIE: Enhanced Language Representation with Informative Entities (ACL 2019)",
        year=2019,
        needs="entity vectors, layers of BERT's form; general: masked-LM head, linked sentences",
        citation="P19-1139",
        authors="Zhengyan Zhang, Xu Han, Zhiyuan Liu, Xin Jiang, Maosong Sun and Qun Liu",
        trains=(
            "entity attention (4 d^2 + 6 d a layer), W_e (d inner + inner) and W_oe (d inner + "
            "3 d) of the upper layers; 4.26M for bert-base and d = 100"
        ),
    )
    revision = "1"
    defaults: ClassVar[Mapping[str, Any]] = {**CorpusTrained.defaults, "max_length": 256}

    general = _GENERAL
    fixed = _GENERAL
    families = _FAMILIES

    def check(self, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        super().check(lm, knowledge)
        if lm.left_to_right:
            raise Unsupported(
                "ERNIE's entities look at all others of a text, those behind them too, and stand "
                "beside layers of BERT's form; it needs a backbone that reads both ways"
            )
        lm.feed_forward(lm.layers[-1])  # refuses what is not of BERT's form

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns an untrained plug.

        Raises:
            Unsupported: the layers are not of BERT's form, or there are no entity vectors.
        """
        self.check(lm, knowledge)
        layers = lm.layers
        return ErniePlug(knowledge, len(layers), int(lm.config.intermediate_size))

    def pretrain(self, plug: Plug, fit: Fit, max_length: int) -> History:
        assert isinstance(plug, ErniePlug)
        tokens = masked_tokens(fit.lm, fit.knowledge, max_length, fit.seed)
        data = NoisyLinks(tokens, np.random.default_rng([fit.seed, 1]))
        width = fit.knowledge.dimension
        head = nn.Sequential(nn.Linear(fit.lm.width, width), nn.GELU(), nn.LayerNorm(width))
        head.to(fit.device)

        def loss(batch: Batch) -> Tensor:
            assert batch.targets is not None
            hidden = fit.lm(batch)
            masked = fit.lm.predict_tokens(hidden.flatten(0, 1)[batch.blank_index])
            words = F.cross_entropy(masked.float(), batch.targets)
            return words + denoising_loss(head, plug, hidden, data.true(batch))

        # Entities are told among those of the whole batch: it cannot be computed in parts.
        history = fit.train(plug, loss, data, beside=head, weigh=None)
        history.counts = tokens.corpus.dropped
        return history
