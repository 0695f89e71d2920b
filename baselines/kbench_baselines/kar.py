"""KnowBert's knowledge attention and recontextualization (KAR) on a frozen model.

Peters et al., "Knowledge Enhanced Contextual Word Representations", sections 3.2 and 3.3.

Between two layers, for an example with linked mentions ``k`` (spans of tokens)::

    t     = W_1 h + b_1                                                 W_1: [d, H]
    s_k   = SpanEncoder( LN( Σ_i softmax_i(v t_i + c) t_i ) )           i over the span's tokens
    ψ_kj  = MLP_{2→100→1}[ p_kj , s_k · LN(e_kj) / √d ]                 j over its candidates
    ẽ_k   = Σ_j softmax_j(ψ_kj) LN(e_kj)
    s'_k  = LN( s_k + Dropout(ẽ_k) )
    t'    = TransformerBlock( queries t, keys and values {s'_k} )
    h     ← h + W_2 t' + b_2                                            W_2: [H, d]

``d`` is the width of the entity vectors ``e``; the span encoder is one transformer layer over the
spans of the example; layers are normalised after the sum as in BERT, of 4 heads, with KnowBert's
ratio of inner to outer width, 1024 to 300. Candidates are entities that share a name with the
linked one, see :mod:`kbench_baselines.namesakes`. The module stands where KnowBert's does, ten of
twelve layers below it (after ``⌊10 L / 12⌋``, at least one).

KnowBert trains the whole network. Here the network is frozen and the module alone trains, a
definition of ours: ``W_2`` and ``b_2`` start at zero, and there is no normalisation of the sum,
so that the model is itself at first, and always on a text without a linked entity. The option
``init: inverse`` starts ``W_2`` as the right inverse of ``W_1`` instead, as KnowBert means to;
that start is not the frozen model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.corpus import CorpusTrained, masked_tokens, mention_loss
from kbench.encoding import Batch, sent, targets_in
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase
from kbench.method import Fit, MethodCard, Plug
from kbench.model import LanguageModel, rewritten
from kbench.spec import OptionType
from kbench.task import Family
from kbench.training import History, Recipe
from kbench_baselines.attention import DROPOUT, Block
from kbench_baselines.linked import Linked, linked, vector_width
from kbench_baselines.namesakes import Namesakes

__all__ = ["Kar", "KarPlug", "right_inverse"]

# The release's pre-training: 1e-4 is its rate for the module, beside 2e-5 for BERT.
_GENERAL = Recipe(
    learning_rate=1e-4, batch_size=32, epochs=1, warmup=0.01, weight_decay=0.01, clip=1, dropout=0.1
)
# Of the release's fine-tuning on OpenEntity and TACRED all but the rate, which is 3e-5 there for
# the whole model. It has no question answering; that recipe is ours.
_TYPING = _GENERAL.updated({"epochs": 10, "warmup": 0.1})
_FAMILIES = {
    Family.TYPING: _TYPING,
    Family.RELATION: _TYPING.updated({"epochs": 3}),
    Family.QUESTION: _TYPING,
}
_JUDGE = 100


@final
class KarPlug(Plug):
    """The module between two layers.

    ``(d H + d) + (d + 1) + 2 B + 401 + 6 d + (d H + H)`` parameters, ``B`` those of a
    :class:`~kbench_baselines.attention.Block` of inner width ``⌊1024 d / 300⌋``.

    Args:
        knowledge: gives ``e``, names and priors.
        hidden: ``H``.
        depth: layers of the network.
        candidates: of a mention at most.

    Attributes:
        after: number of the layer whose output is rewritten.
        linking: the entity-linking loss of the last forward pass while training: the mean
            ``-log softmax_j(ψ_kj)`` of the linked entity over mentions with several candidates.
            None outside training and where there is no such mention.
    """

    def __init__(self, knowledge: KnowledgeBase, hidden: int, depth: int, candidates: int) -> None:
        super().__init__()
        width = vector_width(knowledge)
        inner = max(1, width * 1024 // 300)
        self.knowledge = knowledge
        self.namesakes = Namesakes(knowledge, candidates)
        self.after = max(1, depth * 10 // 12) - 1
        self.linking: Tensor | None = None
        self.down = nn.Linear(hidden, width)
        self.weigh = nn.Linear(width, 1)
        self.span_norm = nn.LayerNorm(width)
        self.span_encoder = Block(width, inner)
        self.entity_norm = nn.LayerNorm(width)
        self.judge = nn.Sequential(nn.Linear(2, _JUDGE), nn.ReLU(), nn.Linear(_JUDGE, 1))
        self.dropout = nn.Dropout(DROPOUT)
        self.told_norm = nn.LayerNorm(width)
        self.recontext = Block(width, inner)
        self.up = nn.Linear(width, hidden)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        def change(hidden: Tensor) -> Tensor:
            self.linking = None
            mentions = linked(lm.batch)
            return hidden if mentions is None else self.told(hidden, mentions)

        try:
            with rewritten(lm.layers[self.after], change):
                yield
        finally:
            self.linking = None

    def told(self, hidden: Tensor, mentions: Linked) -> Tensor:
        """Adds what is known to the examples that link something. ``[batch, tokens, H]``."""
        tokens = self.down(hidden[mentions.examples])
        pooled = self.pooled(tokens, mentions)
        spans = mentions.unseated(self.span_encoder(pooled, pooled, mentions.taken))
        informed = self.told_norm(spans + self.dropout(self.known(spans, mentions)))
        changed = self.recontext(tokens, mentions.seated(informed), mentions.taken)
        added = self.up(changed).to(hidden.dtype)
        return hidden.index_add(0, mentions.examples, added)

    def pooled(self, tokens: Tensor, mentions: Linked) -> Tensor:
        """Pools the tokens of each span by attention; an empty seat gets an average of all.

        Args:
            tokens: ``t``, of the examples that link something. ``[examples, tokens, d]``.
            mentions: the spans.

        Returns:
            ``[examples, seats, d]``.
        """
        length = tokens.shape[1]
        within = mentions.spans - mentions.spans[:, :1] // length * length
        start, end = mentions.seated(within).unsqueeze(2).unbind(-1)
        at = torch.arange(length, device=tokens.device)
        scores = self.weigh(tokens).transpose(1, 2)  # [examples, 1, tokens]
        outside = (at < start) | (at >= end)  # [examples, seats, tokens]
        scores = scores.masked_fill(outside, torch.finfo(scores.dtype).min)
        result: Tensor = self.span_norm(scores.softmax(-1).to(tokens.dtype) @ tokens)
        return result

    def known(self, spans: Tensor, mentions: Linked) -> Tensor:
        """Returns ``ẽ`` and keeps the linking loss. ``s [mentions, d] -> [mentions, d]``."""
        rows = mentions.rows.numpy()
        candidates, priors = self.namesakes.of(rows)
        missing = candidates < 0
        # A missing candidate is never heard; any vector will do.
        filled = np.where(missing, rows[:, None], candidates)
        vectors = self.vectors_of(torch.from_numpy(filled.ravel()))
        entities = self.entity_norm(vectors.view(*candidates.shape, -1))
        likeness = (entities @ spans.to(entities.dtype)[:, :, None])[..., 0]
        evidence = [sent(torch.from_numpy(priors), spans.device), likeness.float() / self._scale]
        scores = self.judge(torch.stack(evidence, dim=-1))[..., 0]
        absent = sent(torch.from_numpy(missing), spans.device)
        scores = scores.masked_fill(absent, torch.finfo(scores.dtype).min)
        self.linking = self._linking(scores, missing) if self.training else None
        weights = scores.softmax(-1).to(entities.dtype)
        mixed: Tensor = (weights[:, None] @ entities)[:, 0]
        return mixed

    @property
    def _scale(self) -> float:
        return math.sqrt(self.knowledge.dimension)

    def _linking(self, scores: Tensor, missing: NDArray[np.bool_]) -> Tensor | None:
        several = np.flatnonzero((~missing).sum(1) > 1)
        if not len(several):
            return None
        chosen: Tensor = scores[sent(torch.from_numpy(several), scores.device)].float()
        # The linked entity is the first of its candidates.
        first = torch.zeros(len(several), dtype=torch.int64, device=chosen.device)
        loss: Tensor = F.cross_entropy(chosen, first)
        return loss


def right_inverse(weight: Tensor) -> Tensor:
    """Returns ``W^T (W W^T)^-1``, for which ``W W' = 1``: ``[d, H]`` to ``[H, d]``, ``d <= H``.

    The release inverts ``W^T W`` instead, of rank ``d`` at most, which has no inverse.

    Raises:
        Unsupported: ``d > H``.
    """
    if weight.shape[0] > weight.shape[1]:
        raise Unsupported(
            f"init: inverse needs entity vectors no wider than the hidden states: "
            f"{weight.shape[0]} > {weight.shape[1]}"
        )
    wide = weight.double()
    inverse: Tensor = torch.linalg.solve(wide @ wide.T, wide).T.to(weight.dtype)
    return inverse


@final
class Kar(CorpusTrained):
    """KnowBert's module between two frozen layers; the model itself at first (``init: zero``).

    General: masked language modelling on linked sentences, plus the linking loss where a name is
    shared (KnowBert samples the two 0.8 to 0.2, from different corpora). Task-specific: the
    task's loss, starting from the general plug where there is one. Fine-tuning: the general plug
    is fixed and the model is tuned with it.
    """

    card = MethodCard(
        title="KnowBert-style recontextualization",
        paper="Knowledge Enhanced Contextual Word Representations (EMNLP 2019)",
        year=2019,
        needs="entity vectors; general: a masked-LM head and linked sentences",
        citation="D19-1005",
        authors="Matthew E. Peters, Mark Neumann, Robert Logan, Roy Schwartz, Vidur Joshi, "
        "Sameer Singh and Noah A. Smith",
        trains="2 d H + H + 8 d^2 + 4 d f + 2 f + 26 d + 402, f = 1024 d / 300",
    )
    revision = "2"
    defaults: ClassVar[Mapping[str, Any]] = {
        **CorpusTrained.defaults,
        "candidates": 8,
        "init": "zero",
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        **CorpusTrained.option_types,
        "candidates": OptionType("whole number", least=1),
        "init": OptionType("text", words=("zero", "inverse")),
    }

    general = _GENERAL
    fixed = _GENERAL
    families = _FAMILIES

    def check(self, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        super().check(lm, knowledge)
        if lm.left_to_right:
            raise Unsupported(
                "KnowBert's module has each token look at all mentions of a text, those behind it "
                "too; it needs a backbone that reads both ways"
            )

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns an untrained plug.

        Raises:
            Unsupported: the backbone reads from left to right, or there are no entity vectors.
        """
        self.check(lm, knowledge)
        candidates = int(self.options["candidates"])
        plug = KarPlug(knowledge, lm.width, len(lm.layers), candidates)
        if self.options["init"] == "inverse":
            with torch.no_grad():
                plug.up.weight.copy_(right_inverse(plug.down.weight))
                plug.up.bias.copy_(-plug.up.weight @ plug.down.bias)
        return plug

    def pretrain(self, plug: Plug, fit: Fit, max_length: int) -> History:
        assert isinstance(plug, KarPlug)
        data = masked_tokens(fit.lm, fit.knowledge, max_length, fit.seed)

        def loss(batch: Batch) -> Tensor:
            words = mention_loss(fit.lm, batch)
            linking = plug.linking
            return torch.stack([words, words.new_zeros(()) if linking is None else linking])

        def weigh(batch: Batch) -> tuple[int, ...]:
            rows = batch.mention_rows[batch.mention_rows >= 0].numpy()
            return targets_in(batch), plug.namesakes.shared(rows)

        history = fit.train(plug, loss, data, weigh=weigh)
        history.counts = data.corpus.dropped
        return history
