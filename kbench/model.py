"""The frozen path: an encoder with entity slots, a head on it, and the digest that proves it.

An :class:`Encoder` wraps a Hugging Face network and says what it can do; a
:class:`DownstreamModel` is an encoder and a head. Slot vectors are written straight into the
word-embedding input, so position and segment embeddings, normalisation and dropout treat them
as any token (map-tuning, section 3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbench.errors import FrozenError, Unsupported

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from kbench.batching import Batch
    from kbench.heads import Head

__all__ = ["DownstreamModel", "Encoder", "SlotSource", "digest", "dropout", "frozen"]

_HELD = 65536

SlotSource = Callable[[Tensor], Tensor]
"""Knowledge-base rows ``[slots]`` to input vectors ``[slots, width]``."""


class Encoder(nn.Module):
    """A pre-trained network that reads token embeddings.

    Args:
        network: a base model, or a masked-LM model with its base model inside.
        tokenizer: its fast tokenizer.
        pooler: whether the network came with a trained pooler.

    Attributes:
        width: size of a hidden state.
        slot_width: size of a word embedding, and so of a slot vector.
        max_length: tokens it can read.
    """

    def __init__(
        self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, pooler: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.config: Any = network.config
        self.width = int(self.config.hidden_size)
        self.slot_width = int(self.word_embeddings.embedding_dim)
        self.max_length = _max_length(network, tokenizer)
        self._pooler = pooler
        self._lm = _masked_lm_head(network)
        self._segments = int(getattr(self.config, "type_vocab_size", 0) or 0) > 0
        self._slots: SlotSource | None = None

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
        self._slots = lambda asked: table[torch.searchsorted(known, asked).to(table.device)]
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
        flat = vectors.flatten(0, 1).index_copy(0, batch.slot_index, filled)
        return flat.view_as(vectors)

    def forward(self, batch: Batch) -> Tensor:
        """Returns the last hidden states. ``[batch, tokens, width]``."""
        given: dict[str, Tensor] = {
            "inputs_embeds": self.embed(batch),
            "attention_mask": batch.mask,
        }
        if self._segments:
            given["token_type_ids"] = torch.zeros_like(batch.ids)
        hidden: Tensor = self.base(**given).last_hidden_state
        return hidden

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Returns one vector an example, ``[batch, width]``.

        The trained pooler where the network has one, else the first token's state where the
        tokenizer puts a special token there, else the mean over tokens.
        """
        if self._pooler:
            pooled: Tensor
            if isinstance(self.base.pooler, nn.Linear):  # ALBERT's, which is but a part of it
                pooled = self.base.pooler_activation(self.base.pooler(hidden[:, 0]))
            else:
                pooled = self.base.pooler(hidden)
            return pooled
        if self.tokenizer.cls_token_id is not None:
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


class DownstreamModel(nn.Module):
    """An encoder and a head: what a tuning makes for a task, frozen afterwards."""

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: Batch) -> Tensor:
        """Returns the head's logits. ``[batch, classes]``."""
        logits: Tensor = self.head(self.encoder, self.encoder(batch), batch)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Returns the task loss of a batch with targets, a scalar."""
        assert batch.targets is not None
        return self.head.loss(self(batch), batch.targets)


def _max_length(network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    positions = int(getattr(network.config, "max_position_embeddings", 512) or 512)
    embeddings = getattr(network.base_model, "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    # RoBERTa's kin (CamemBERT, MPNet, …) count positions from the padding index on and lose some.
    offset = 0 if padding is None else int(padding) + 1
    return int(min(positions - offset, tokenizer.model_max_length))


def _masked_lm_head(network: PreTrainedModel) -> Callable[[Tensor], Tensor] | None:
    """Returns the network's own head as a function of hidden states at chosen positions."""
    if network.base_model is network:
        return None
    for names in (
        ("cls",),
        ("lm_head",),
        ("predictions",),
        ("head", "decoder"),
        ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
        ("generator_predictions", "generator_lm_head"),
    ):
        if all(hasattr(network, name) for name in names):
            steps = [getattr(network, name) for name in names]

            def head(hidden: Tensor, steps: list[Any] = steps) -> Tensor:
                for step in steps:
                    hidden = step(hidden)
                return hidden

            return head
    raise Unsupported(
        f"the masked-LM head of {type(network).__name__} is of a form kbench does not know"
    )


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Keeps every parameter of a module from collecting gradients inside the block.

    Raises:
        FrozenError: a parameter has a gradient at the end all the same.
    """
    before = [(p, p.requires_grad) for p in module.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
        touched = [n for n, p in module.named_parameters() if p.grad is not None]
        if touched:
            raise FrozenError(f"frozen weights collected gradients: {', '.join(touched[:3])}")
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


@contextmanager
def dropout(module: nn.Module, rate: float | None) -> Iterator[None]:
    """Puts a module in train mode with all its dropout at ``rate``; None means eval mode.

    Hidden and attention dropout alike: a plug trained through a noisy frozen network is
    regularised by it (methods specification 2a).
    """
    before = list(_rates(module))
    mode = {m: m.training for m in module.modules()}
    if rate is not None:
        for part, name, _ in before:
            setattr(part, name, rate)
    module.train(rate is not None)
    try:
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)
        for part, training in mode.items():
            part.training = training


def _rates(module: nn.Module) -> Iterator[tuple[nn.Module, str, float]]:
    """Yields every rate of dropout: of layers, and numbers that attention hands to a function."""
    for part in module.modules():
        for name, value in vars(part).items():
            rate = name == "p" if isinstance(part, nn.Dropout) else "dropout" in name
            if rate and isinstance(value, int | float) and not isinstance(value, bool):
                yield part, name, value


def digest(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """SHA-256 of every parameter and buffer: names, types, shapes and bytes.

    Two tensors that share storage count once each, under both names. Buffers that are not saved
    with the weights (frequencies of rotary positions) count too.
    """
    if isinstance(weights, nn.Module):
        weights = {**dict(weights.named_buffers()), **weights.state_dict()}
    value = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        value.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        value.update(tensor.flatten().view(torch.uint8).numpy().data)
    return value.hexdigest()
