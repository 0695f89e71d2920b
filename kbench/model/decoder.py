"""Networks that read from left to right: Llama, Qwen, Mistral, Gemma, Phi, GPT-2 and their kin.

Two things that `transformers` does where it is told too little give wrong numbers without a word,
and so all is said here always: positions (a bare forward pass counts them from the first column,
padding too) and a mask (without one, positions that do not rise by one are taken for several texts
packed into a row, and attention is cut there).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kbench.encoding import Batch
from kbench.errors import KbenchError
from kbench.model.language_model import LanguageModel, attention_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["Decoder"]

_LENGTH = 2048
"""Tokens of a text at most, where the network does not say."""


class Decoder(LanguageModel):
    """A network that reads from left to right, and predicts the next token.

    It has no pooler: the state of the last token has seen all of a text.

    Args:
        network: a causal language model.
        tokenizer: its fast tokenizer.
        unread: modules whose weights came with it and are not read.

    Raises:
        KbenchError: the network takes no positions, or no head predicts its next token.
    """

    left_to_right = True

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        *,
        unread: tuple[str, ...] = (),
    ) -> None:
        longest = _max_length(network, tokenizer)
        super().__init__(network, tokenizer, max_length=longest, unread=unread)
        self._cache: Any = None
        self._shift: Callable[[Batch], Tensor] | None = None
        if "position_ids" not in inspect.signature(self.base.forward).parameters:
            raise KbenchError(
                f"{type(self.base).__name__} takes no position ids; kbench takes decoders that are "
                "told where each token stands"
            )
        if not self.has_lm_head:
            raise KbenchError(
                f"{type(self.base).__name__} has no head that predicts the next token; expected a "
                "causal language model"
            )

    @property
    def has_pooler(self) -> bool:
        """There is none."""
        return False

    @property
    def has_segments(self) -> bool:
        """There are none."""
        return False

    def given(self, batch: Batch, vectors: Tensor) -> dict[str, Any]:
        positions = batch.positions
        if positions is None:
            # Padding comes after the tokens, and no token sees it.
            places = torch.arange(batch.ids.shape[1], device=batch.ids.device)
            positions = places.expand_as(batch.ids)
        if self._shift is not None:
            shift = self._shift(batch).to(positions.device)
            positions = positions + (shift if shift.dim() == 2 else shift[:, None])
        given = {
            "inputs_embeds": vectors,
            "attention_mask": batch.mask,
            "position_ids": positions,
            "use_cache": self._cache is not None,
        }
        if self._cache is not None:
            given["past_key_values"] = self._cache
        if batch.visible is not None:
            given["attention_mask"] = attention_mask(batch.visible, vectors.dtype)
        return given

    @contextmanager
    def cached(self) -> Iterator[Any]:
        """Keeps keys and values of what is read inside the block."""
        from transformers import DynamicCache

        # Layers of one kind, whatever the network's own: within its window they see alike.
        self._cache = DynamicCache()
        try:
            yield self._cache
        finally:
            self._cache = None

    @contextmanager
    def shifted(self, shift: Callable[[Batch], Tensor]) -> Iterator[None]:
        """Adds to the positions of what is read inside the block.

        Raises:
            RuntimeError: another plug does so.
        """
        if self._shift is not None:
            raise RuntimeError("another plug already shifts the texts of this network")
        self._shift = lambda batch: shift(batch)
        try:
            yield
        finally:
            self._shift = None

    @property
    def looks_ahead(self) -> bool:
        """Whether what is attached may make of a token what stands behind it says."""
        return super().looks_ahead or self._shift is not None

    @contextmanager
    def _apart(self) -> Iterator[None]:
        held, self._cache, self._shift = (self._cache, self._shift), None, None
        try:
            with super()._apart():
                yield
        finally:
            self._cache, self._shift = held

    def remembered(self, place: int, states: Tensor) -> Tensor:
        if self._cache is None:
            return states
        # As one more layer of the network's, whose keys they are and which has no values: the cache
        # lets go of texts that end in all its layers alike.
        keys = states.unsqueeze(1)
        known: Tensor = self._cache.update(keys, keys[..., :0], len(self.layers) + place)[0]
        return known.squeeze(1)

    def seen(self, batch: Batch) -> Tensor:
        """Returns whether each token may look at each. ``[batch, tokens, known]``, bool."""
        size, known = batch.ids.shape[1], batch.mask.shape[1]
        before = torch.ones(size, known, dtype=torch.bool, device=batch.mask.device)
        before = before.tril(known - size)
        visible = batch.visible
        if visible is None:
            visible = before & (batch.mask[:, None] > 0)
        # Padding before a text sees nothing, and attention to nothing is not a number.
        return visible | before.triu(known - size)

    def telling_markers(self, mentions: Tensor) -> Tensor:
        """Returns those behind mentions: one before has not seen its mention. ``[mentions]``."""
        return mentions[:, 1]

    def pooled(self, batch: Batch) -> Tensor:
        """Returns the last token of each text, flattened. ``[batch]``."""
        size, width = batch.mask.shape
        starts = torch.arange(0, size * width, width, device=batch.mask.device)
        return starts + _last(batch.mask)

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Returns the state of the last token of each text. ``[batch, width]``."""
        return hidden[torch.arange(len(hidden), device=hidden.device), _last(mask)]


def _last(mask: Tensor) -> Tensor:
    """The place of the last token of each text, wherever its padding is. ``[batch]``."""
    return mask.shape[1] - 1 - mask.flip(1).argmax(1)


def _max_length(network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    config = network.config
    positions = int(getattr(config, "max_position_embeddings", 0) or 0) or _LENGTH
    # Within the window every layer sees the whole text, so that one mask is right for all.
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        positions = min(positions, int(window))
    return int(min(positions, tokenizer.model_max_length))
