"""Networks that read both ways: BERT and its kin."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbench.encoding import Batch, affixes
from kbench.encoding.computing import asynchronous
from kbench.errors import Unsupported
from kbench.model.language_model import LanguageModel, attention_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["Encoder"]

_LENGTH = 512
"""Tokens of a text at most, where the network does not say."""


class Encoder(LanguageModel):
    """A network that reads both ways, and predicts tokens at ``[MASK]`` if it has the head.

    Args:
        network: a base model, or a masked-LM model with its base model inside.
        tokenizer: its fast tokenizer.
        pooler: whether the network came with a trained pooler.
        segments: how many segments it was trained with; None for as many as it has.
        unread: modules whose weights came with it and are not read: heads of other purposes.
    """

    left_to_right = False

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        *,
        pooler: bool,
        segments: int | None = None,
        unread: tuple[str, ...] = (),
    ) -> None:
        longest = _max_length(network, tokenizer)
        super().__init__(network, tokenizer, max_length=longest, unread=unread)
        # What is put before a text, not what the tokenizer could put there.
        self._first = bool(affixes(tokenizer).before)
        self._pooler = pooler
        self._blanks_padding = bool(getattr(self.config, "trigram_input", False))
        self._takes_masks = _takes_masks(network)
        known = int(getattr(self.config, "type_vocab_size", 0) or 0)
        self._segments = known if segments is None else min(known, segments)

    @property
    def has_pooler(self) -> bool:
        """Whether a trained pooler reads the special token that the tokenizer puts first."""
        return self._pooler and self._first

    @property
    def has_segments(self) -> bool:
        return self._segments > 0

    def given(self, batch: Batch, vectors: Tensor) -> dict[str, Any]:
        if self._blanks_padding:  # MobileBERT joins each token's vector with its neighbours'
            vectors = vectors * batch.mask.unsqueeze(-1).to(vectors.dtype)
        given = {"inputs_embeds": vectors, "attention_mask": self._mask(batch.mask)}
        if self._segments:
            given["token_type_ids"] = torch.zeros_like(batch.ids)
            if batch.segments is not None and self._segments > 1:
                given["token_type_ids"] = batch.segments
        if batch.visible is not None:
            given |= self._branching(batch, vectors.dtype)
        return given

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
        return {
            "attention_mask": attention_mask(batch.visible, dtype),
            "position_ids": batch.positions + _first_position(self.network),
        }

    def pooled(self, batch: Batch) -> Tensor | None:
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
            hidden = self._inward(hidden)
            if isinstance(self.base.pooler, nn.Linear):  # ALBERT's and BigBird's: a part of it
                act = getattr(self.base, "pooler_activation", None) or self.base.activation
                pooled = act(self.base.pooler(hidden[:, 0]))
            else:
                pooled = self.base.pooler(hidden)
            return self._outward(pooled)
        if self._first:
            return hidden[:, 0]
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)


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
