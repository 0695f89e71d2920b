"""The frozen path: an encoder with entity slots, and a head on it.

An :class:`Encoder` wraps a Hugging Face network and says what it can do; a
:class:`DownstreamModel` is an encoder and a head. Slot vectors are written straight into the
word-embedding input, so position and segment embeddings, normalisation and dropout treat them
as any token (map-tuning, section 3).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbench.encoding import Batch, affixes, sent
from kbench.encoding.computing import asynchronous
from kbench.errors import Unsupported
from kbench.model.last_layer import only_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


__all__ = ["Encoder", "SlotSource"]

_HELD = 65536
_LENGTH = 512
"""Tokens of a text at most, where the network does not say."""
_LAYERS = ("encoder.layer", "transformer.layer", "encoder.layers", "layers")

SlotSource = Callable[[Tensor], Tensor]
"""Knowledge-base rows ``[slots]`` to input vectors ``[slots, width]``."""


class Encoder(nn.Module):
    """A pre-trained network that reads token embeddings.

    Args:
        network: a base model, or a masked-LM model with its base model inside.
        tokenizer: its fast tokenizer.
        pooler: whether the network came with a trained pooler.
        segments: how many segments it was trained with; None for as many as it has.
        unread: modules whose weights came with it and are not read: heads of other purposes.

    Attributes:
        width: size of a hidden state.
        slot_width: size of a word embedding, and so of a slot vector.
        max_length: tokens it can read.
        unread: see above.
        rounding: how far its states move where only the batch differs, as a share of the largest;
            0 where nobody has tried.
    """

    rounding: float = 0.0

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        *,
        pooler: bool,
        segments: int | None = None,
        unread: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.config: Any = network.config
        self.width = int(self.config.hidden_size)
        self.slot_width = int(self.word_embeddings.embedding_dim)
        self.max_length = _max_length(network, tokenizer)
        # What is put before a text, not what the tokenizer could put there.
        self._first = bool(affixes(tokenizer).before)
        self._pooler = pooler
        self._lm = _masked_lm_head(network)
        self._blanks_padding = bool(getattr(self.config, "trigram_input", False))
        self._takes_masks = _takes_masks(network)
        known = int(getattr(self.config, "type_vocab_size", 0) or 0)
        self.unread = unread
        self._segments = known if segments is None else min(known, segments)
        self._slots: SlotSource | None = None
        self._batch: Batch | None = None

    @property
    def base(self) -> Any:
        """The network without a masked-LM head."""
        return self.network.base_model

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table of wordpiece vectors, ``[vocabulary, slot_width]``."""
        table: nn.Embedding = self.network.get_input_embeddings()
        return table

    @property
    def has_lm_head(self) -> bool:
        """Whether it predicts tokens at ``[MASK]``."""
        return self._lm is not None

    @property
    def has_pooler(self) -> bool:
        """Whether a trained pooler reads the special token that the tokenizer puts first."""
        return self._pooler and self._first

    @property
    def has_segments(self) -> bool:
        """Whether it is told the segment of each token."""
        return self._segments > 0

    @contextmanager
    def slots(self, source: SlotSource) -> Iterator[None]:
        """Fills entity slots from ``source`` inside the block; outside there are none."""
        if self._slots is not None:
            raise RuntimeError("another plug already fills the slots of this encoder")
        # Not the source itself: were it a module, it would become a part of this one.
        self._slots = lambda rows: source(rows)
        try:
            yield
        finally:
            self._slots = None

    @contextmanager
    def held(self, rows: Tensor) -> Iterator[None]:
        """Maps all ``rows`` once and serves slots from that table inside the block.

        For evaluation, where the vector of an entity does not change from batch to batch.
        """
        source = self._slots
        if source is None or not len(rows):
            yield
            return
        known = torch.unique(rows)
        table = torch.cat([source(part) for part in known.split(_HELD)])
        self._slots = lambda asked: table[sent(torch.searchsorted(known, asked), table.device)]
        try:
            yield
        finally:
            self._slots = source

    def embed(self, batch: Batch) -> Tensor:
        """Returns the input vectors: word embeddings, slots filled. ``[batch, tokens, width]``."""
        vectors: Tensor = self.word_embeddings(batch.ids)
        if not len(batch.slot_index):
            return vectors
        if self._slots is None:
            raise RuntimeError("the inputs have entity slots, but no plug is attached")
        filled = self._slots(batch.slot_rows).to(vectors.dtype)
        vectors.flatten(0, 1).index_copy_(0, batch.slot_index, filled)  # a view: no copy
        return vectors

    def forward(self, batch: Batch, wanted: Tensor | None = None) -> Tensor:
        """Returns the last hidden states. ``[batch, tokens, width]``.

        Args:
            batch: what to read.
            wanted: the positions in the flattened ``[batch * tokens]`` that are read of them, the
                others being anything; None for all. ``[n]``.
        """
        if batch.states is not None:
            return batch.states.last
        vectors = self.embed(batch)
        if self._blanks_padding:  # MobileBERT joins each token's vector with its neighbours'
            vectors = vectors * batch.mask.unsqueeze(-1).to(vectors.dtype)
        given: dict[str, Tensor] = {
            "inputs_embeds": vectors,
            "attention_mask": self._mask(batch.mask),
        }
        if self._segments:
            given["token_type_ids"] = torch.zeros_like(batch.ids)
            if batch.segments is not None and self._segments > 1:
                given["token_type_ids"] = batch.segments
        if batch.visible is not None:
            given |= self._branching(batch, given["inputs_embeds"].dtype)
        self._batch = batch
        # A hook on the encoder may look at every position.
        wanted = None if self._forward_hooks else wanted
        try:
            with only_at([] if wanted is None else self._found_layers(), wanted):
                hidden: Tensor = self.base(**given).last_hidden_state
        finally:
            self._batch = None
        return hidden

    def _mask(self, mask: Tensor) -> Tensor:
        """The mask as it is; on a GPU ready for attention, where the network takes it so.

        Else the network looks whether it masks anything, for which the host waits each time.
        """
        if self._takes_masks and asynchronous(mask.device):
            return mask[:, None, None, :].bool()
        return mask

    def _branching(self, batch: Batch, dtype: torch.dtype) -> dict[str, Tensor]:
        """Positions and the attention mask of a batch whose passages hang at mentions."""
        assert batch.visible is not None
        assert batch.positions is not None
        if "position_ids" not in inspect.signature(self.base.forward).parameters:
            raise Unsupported(
                f"{type(self.base).__name__} takes no position ids, which a visible matrix needs"
            )
        blocked = torch.zeros(batch.visible.shape, dtype=dtype, device=batch.ids.device)
        blocked = blocked.masked_fill(~batch.visible, torch.finfo(dtype).min)
        return {
            "attention_mask": blocked.unsqueeze(1),
            "position_ids": batch.positions + _first_position(self.network),
        }

    @property
    def batch(self) -> Batch:
        """The batch that is being read; for plugs that work inside the layers.

        Raises:
            RuntimeError: none is.
        """
        if self._batch is None:
            raise RuntimeError("no batch is being read")
        return self._batch

    @property
    def layers(self) -> list[nn.Module]:
        """The transformer layers, first to last; each returns hidden states.

        Raises:
            Unsupported: the network has none that kbench finds, or its layers share weights.
        """
        layers = self._found_layers()
        if not layers:
            raise Unsupported(f"{type(self.base).__name__} has no list of layers that kbench knows")
        return layers

    def _found_layers(self) -> list[nn.Module]:
        for path in _LAYERS:
            part = reduce(lambda of, name: getattr(of, name, None), path.split("."), self.base)
            if isinstance(part, nn.ModuleList):
                return list(part)
        return []

    def feed_forward(self, layer: nn.Module) -> tuple[nn.Module, nn.Module]:
        """Returns a layer's feed-forward network: its first linear map, and map and activation.

        The second module ends in the activation; its output ``[batch, tokens, inner width]`` is
        what the layer's closing map reads.

        Raises:
            Unsupported: the layer is not of BERT's form.
        """
        inner = getattr(layer, "intermediate", None)
        dense = getattr(inner, "dense", None)
        if not isinstance(inner, nn.Module) or not isinstance(dense, nn.Module):
            raise Unsupported(f"the layers of {type(self.base).__name__} are not of BERT's form")
        return dense, inner

    @property
    def embeddings(self) -> nn.Module:
        """The module that turns input vectors into the first hidden states.

        Raises:
            Unsupported: the network has none that kbench finds.
        """
        embeddings = getattr(self.base, "embeddings", None)
        if not isinstance(embeddings, nn.Module):
            raise Unsupported(f"{type(self.base).__name__} has no embeddings module")
        return embeddings

    def pooled(self, batch: Batch) -> Tensor | None:
        """Returns the positions that :meth:`pool` reads, flattened; None for all. ``[batch]``."""
        if not self._first:
            return None
        size, width = batch.ids.shape
        return torch.arange(0, size * width, width, device=batch.ids.device)

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Returns one vector an example, ``[batch, width]``.

        Where the tokenizer puts a special token first, the trained pooler's output, which reads
        that token, or its state where the network has no pooler; else the mean over tokens.
        """
        if self.has_pooler:
            pooled: Tensor
            if isinstance(self.base.pooler, nn.Linear):  # ALBERT's and BigBird's: a part of it
                act = getattr(self.base, "pooler_activation", None) or self.base.activation
                pooled = act(self.base.pooler(hidden[:, 0]))
            else:
                pooled = self.base.pooler(hidden)
            return pooled
        if self._first:
            return hidden[:, 0]
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)

    def predict_tokens(self, hidden: Tensor) -> Tensor:
        """Applies the masked-LM head to states at masked positions. ``[n, width] -> [n, V]``.

        Raises:
            Unsupported: the backbone has no masked-LM head.
        """
        if self._lm is None:
            raise Unsupported("the backbone has no masked-LM head")
        return self._lm(hidden)


def _takes_masks(network: PreTrainedModel) -> bool:
    """Whether a network takes a mask ``[batch, 1, 1, tokens]`` of what may be attended to."""
    if getattr(network.config, "_attn_implementation", None) != "sdpa":
        return False
    code = vars(sys.modules[type(network.base_model).__module__])
    # One mask for all layers: with sliding windows there are two.
    return "create_bidirectional_mask" in code and "sliding_window" not in " ".join(code)


def _max_length(network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    positions = int(getattr(network.config, "max_position_embeddings", 0) or 0)
    # -1 or nothing: the network has no longest text (XLNet).
    positions = positions - _first_position(network) if positions > 0 else _LENGTH
    whole = int(getattr(network.config, "kbench_max_length", positions))
    windows = getattr(network.config, "attention_window", None)
    if windows:  # Longformer fills a text up to whole windows, for which there must be positions
        widest = max(windows) if isinstance(windows, list) else int(windows)
        whole = min(whole, positions // widest * widest)
    return int(min(positions, whole, tokenizer.model_max_length))


def _first_position(network: PreTrainedModel) -> int:
    """The id of the first token's position: RoBERTa's kin count from after the padding index."""
    embeddings = getattr(network.base_model, "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


def _masked_lm_head(network: PreTrainedModel) -> Callable[[Tensor], Tensor] | None:
    """Returns the network's own head as a function of hidden states at chosen positions.

    It is what the network does with the states of its encoder, whatever its modules are called:
    the network is run on an encoder that says nothing but these states.
    """
    base: Any = network.base_model
    if base is network:
        return None

    def head(hidden: Tensor) -> Tensor:
        own = vars(base).get("forward")
        base.forward = lambda *_, **__: _Said((hidden.unsqueeze(0),))  # as one text
        try:
            logits: Tensor = network(inputs_embeds=None).logits
        finally:
            del base.forward
            if own is not None:
                base.forward = own
        return logits[0]

    return head


class _Said(tuple[Tensor]):
    """What an encoder says that says its last hidden states, and nothing else that is asked."""

    @property
    def last_hidden_state(self) -> Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)
