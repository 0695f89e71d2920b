"""The frozen path: a network with entity slots, whichever way it reads.

A :class:`LanguageModel` wraps a Hugging Face network and says what it can do. Slot vectors are
written straight into the word-embedding input, so position and segment embeddings, normalisation
and dropout treat them as any token (map-tuning, section 3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from kbench.encoding import Batch, sent
from kbench.errors import Unsupported
from kbench.model.attention import LayerAttention, attention_of, untold
from kbench.model.last_layer import only_at
from kbench.model.linear_maps import LinearMap, maps_of
from kbench.model.narrow import NARROW, in_float32

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from kbench.model.beginnings import Beginning

__all__ = ["LanguageModel", "SlotSource", "attention_mask"]

_HELD = 65536
_LAYERS = ("encoder.layer", "transformer.layer", "encoder.layers", "layers", "h")

SlotSource = Callable[[Tensor], Tensor]
"""Knowledge-base rows ``[n]`` to input vectors ``[n, width]``; of ``k`` slots an entity to
``[n, k, width]``."""


class LanguageModel(nn.Module, ABC):
    """A pre-trained network that reads token embeddings.

    It reads both ways (:class:`~kbench.model.encoder.Encoder`) or from left to right
    (:class:`~kbench.model.decoder.Decoder`); all else is common to both.

    Args:
        network: a base model, or a model with a head that predicts tokens and its base inside.
        tokenizer: its fast tokenizer.
        max_length: tokens it can read.
        unread: modules whose weights came with it and are not read: heads of other purposes.

    Attributes:
        left_to_right: whether a token sees only those before it. What is asked for is then said
            after the last token, not at a mask.
        width: size of a hidden state.
        slot_width: size of a word embedding, and so of a slot vector.
        max_length: see above.
        unread: see above.
        rounding: how far its states move where only the batch differs, as a share of the largest;
            0 where nobody has tried.
        settled: whether weights have places of their own, as of a model that is spread over GPUs.
        beginnings: the one that was read last, where such are read once; else None
            (:func:`kbench.model.beginnings.sharing`).
    """

    left_to_right: ClassVar[bool]
    rounding: float = 0.0
    settled: bool = False

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_length: int,
        unread: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.config: Any = network.config
        self.width = int(self.config.hidden_size)
        self.slot_width = int(self.word_embeddings.embedding_dim)
        self.max_length = max_length
        self.unread = unread
        self._token_head = _token_head(network)
        self._slots: SlotSource | None = None
        self._batch: Batch | None = None
        self.beginnings: list[Beginning] | None = None
        self._by_token = False
        self._preparing: tuple[Callable[[Batch], object], ...] = ()

    @property
    def base(self) -> Any:
        """The network without the head that predicts tokens."""
        return self.network.base_model

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table of wordpiece vectors, ``[vocabulary, slot_width]``."""
        table: nn.Embedding = self.network.get_input_embeddings()
        return table

    @property
    def word_vectors(self) -> Tensor:
        """What the network reads of each token. ``[vocabulary, slot_width]``.

        It is the table of word embeddings, but where that scales what is looked up (Gemma).
        """
        table = self.word_embeddings
        if type(table) is nn.Embedding:
            return self._outward(table.weight)
        looked_up: Tensor = table(torch.arange(table.num_embeddings, device=table.weight.device))
        return self._outward(looked_up)

    @property
    def dtype(self) -> torch.dtype:
        """The precision that its weights are held in: float32, unless it is to take less memory."""
        return self.word_embeddings.weight.dtype

    def _inward(self, states: Tensor) -> Tensor:
        """States in the precision that the network computes in."""
        return states.to(self.dtype) if self.dtype in NARROW else states

    def _outward(self, states: Tensor) -> Tensor:
        """What the network says, in float32 where its weights are narrow."""
        return states.float() if self.dtype in NARROW else states

    @property
    def has_lm_head(self) -> bool:
        """Whether it predicts tokens: at ``[MASK]``, or the one that comes next."""
        return self._token_head is not None

    @property
    @abstractmethod
    def has_pooler(self) -> bool:
        """Whether :meth:`pool` applies a trained pooler."""

    @property
    @abstractmethod
    def has_segments(self) -> bool:
        """Whether it is told the segment of each token."""

    @contextmanager
    def slots(self, source: SlotSource) -> Iterator[None]:
        """Fills entity slots from ``source`` inside the block; outside there are none."""
        if self._slots is not None:
            raise RuntimeError("another plug already fills the slots of this network")
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

    @contextmanager
    def token_by_token(self) -> Iterator[None]:
        """Says that what is hung in inside the block looks at no token that comes later.

        For plugs with hooks, at a token of which nothing hangs on what stands behind it, nor on
        whom the text speaks of there. What texts begin with alike is then read once for all of them
        (:mod:`kbench.model.beginnings`); with hooks of which nothing is said, each is read whole.
        """
        before, self._by_token = self._by_token, True
        try:
            yield
        finally:
            self._by_token = before

    @property
    def looks_ahead(self) -> bool:
        """Whether what is attached may make of a token what stands behind it says."""
        hooks = (vars(module) for module in self.modules())
        hung = any(own["_forward_hooks"] or own["_forward_pre_hooks"] for own in hooks)
        return (hung or bool(self._preparing)) and not self._by_token

    @contextmanager
    def bare(self) -> Iterator[None]:
        """Takes all hooks away inside the block: the network says what it does without a plug.

        What is prepared, shifted or done in attention is left out with them. Slots are left; a
        batch without any is not changed by them.
        """
        hung = [
            (module, name, vars(module)[name])
            for module in self.modules()
            for name in ("_forward_hooks", "_forward_pre_hooks")
            if vars(module)[name]
        ]
        try:
            for module, name, _ in hung:
                setattr(module, name, OrderedDict())
            with untold(self), self._apart():
                yield
        finally:
            for module, name, hooks in hung:
                setattr(module, name, hooks)

    def embed(self, batch: Batch) -> Tensor:
        """Returns the input vectors: word embeddings, slots filled. ``[batch, tokens, width]``."""
        vectors: Tensor = self.word_embeddings(batch.ids)
        if not len(batch.slot_index):
            return vectors
        if self._slots is None:
            raise RuntimeError("the inputs have entity slots, but no plug is attached")
        each = batch.slots_each
        filled = self._slots(batch.slot_rows[::each].contiguous()).to(vectors)
        given = filled.shape[1] if filled.dim() == 3 else 1
        if given != each:
            raise RuntimeError(
                f"the inputs have {each} slots an entity, and the plug gives {given} vectors; "
                "expected as many: the method's `slot_count`, and `slot_vectors` of its plug"
            )
        # A view: no copy.
        vectors.flatten(0, 1).index_copy_(0, batch.slot_index, filled.reshape(-1, self.slot_width))
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
        if self._preparing:
            preparing = self._preparing
            with self._apart():
                for prepare in preparing:
                    prepare(batch)
        given = self.given(batch, self.embed(batch))
        self._batch = batch
        # A hook on the network may look at every position.
        wanted = None if self._forward_hooks else wanted
        try:
            with only_at([] if wanted is None else self._found_layers(), wanted):
                hidden = self._outward(self.base(**given).last_hidden_state)
                # A spread model ends elsewhere than it began.
                hidden = hidden.to(batch.ids.device)
        finally:
            self._batch = None
        return hidden

    @contextmanager
    def preparing(self, prepare: Callable[[Batch], object]) -> Iterator[None]:
        """Calls ``prepare`` with each batch before it is read, inside the block.

        Other texts may be read there, by the network as it stands: they are no part of the text
        that is being read, nor of its cache, and are not prepared. What plugs hang into layers
        works on them too; a plug tells by :attr:`batch` what is being read.

        Args:
            prepare: what is to be done, at each step of an answer too.
        """
        self._preparing = (*self._preparing, prepare)
        try:
            yield
        finally:
            self._preparing = self._preparing[:-1]

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Reads inside the block what has nothing to do with what is being read."""
        held, self._preparing = (self._preparing, self._batch), ()
        try:
            yield
        finally:
            self._preparing, self._batch = held

    @abstractmethod
    def given(self, batch: Batch, vectors: Tensor) -> dict[str, Any]:
        """Returns what the network is given to read: vectors, mask, and what else it wants.

        Args:
            batch: what is read.
            vectors: its input vectors. ``[batch, tokens, width]``.

        Raises:
            Unsupported: the batch has something that the network cannot be told.
        """

    @contextmanager
    def cached(self) -> Iterator[Any]:
        """Keeps what is read inside the block, so that what is read next goes on after it.

        The mask of a batch that goes on is over what was read before too; its positions are given.

        Yields:
            The cache, of the library's kind.

        Raises:
            Unsupported: the network reads both ways.
        """
        raise Unsupported(
            f"{type(self.base).__name__} reads both ways and goes on with no text; answers of "
            "several words need a model that reads from left to right"
        )
        yield

    @contextmanager
    def shifted(self, shift: Callable[[Batch], Tensor]) -> Iterator[None]:
        """Lets texts stand further on inside the block, as behind something that is not in them.

        Args:
            shift: of each text that is read, or of each of its tokens, by how many places; at the
                steps of an answer too. ``[batch]`` or ``[batch, tokens]``. There must be so many
                places: :attr:`max_length` tells how many there are.

        Raises:
            Unsupported: the network reads both ways.
        """
        raise Unsupported(
            f"{type(self.base).__name__} reads both ways; texts are shifted in models that read "
            "from left to right"
        )
        yield

    def remembered(self, place: int, states: Tensor) -> Tensor:
        """Returns states behind those of the tokens that were read before, in a cached block.

        For plugs with layers of their own in which tokens look at others: they are kept, and leave
        with the texts that end, as the network's own are. Elsewhere it returns what it is given.

        Args:
            place: of the plug's layers, which of them reads these, from 0.
            states: of the tokens that are read now. ``[batch, tokens, width]``.

        Returns:
            ``[batch, known, width]``.
        """
        return states

    def seen(self, batch: Batch) -> Tensor:
        """Returns what tokens may look at, for plugs with layers in which they look at others.

        Args:
            batch: what is read.

        Returns:
            1 for each token that all may look at (``[batch, tokens]``) where the network reads both
            ways; else whether each token may look at each (``[batch, tokens, known]``, bool), of
            which every one may look at itself, padding too.
        """
        return batch.mask

    def telling_markers(self, mentions: Tensor) -> Tensor:
        """Returns the marker of each mention at which the network knows the mention.

        Args:
            mentions: with a marker of one token before and behind each, as in a batch.
                ``[mentions, 2]``.

        Returns:
            Positions, flattened likewise. ``[mentions]``.
        """
        return mentions[:, 0] - 1

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
    def runs_compiled(self) -> bool:
        """Whether layers run as compiled code."""
        return any("forward" in vars(layer) for layer in self._found_layers())

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

    def attention(self, layer: int) -> LayerAttention:
        """Returns the attention of a layer, for plugs that work inside it.

        It says how many heads there are, and lets a plug see queries, keys and values, and change
        what attention gives: ``with lm.attention(2).changed(change): …``.

        Args:
            layer: its place among :attr:`layers`; -1 is the last.

        Raises:
            Unsupported: it asks no registered function of ``transformers``, as attention does in
                nearly all of its networks.
        """
        return attention_of(self.layers[layer], lambda: self.batch)

    def linear_maps(self, layer: int) -> dict[str, LinearMap]:
        """Returns the linear maps of a layer by their names, for plugs that change weights.

        ``with maps["mlp.down_proj"].with_low_rank(factors): …`` adds a product of low rank, another
        one for each row of a batch.

        Args:
            layer: its place among :attr:`layers`; -1 is the last.
        """
        return maps_of(self.layers[layer], lambda: self.batch)

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

    @abstractmethod
    def pooled(self, batch: Batch) -> Tensor | None:
        """Returns the positions that :meth:`pool` reads, flattened; None for all. ``[batch]``."""

    @abstractmethod
    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Returns one vector an example.

        Args:
            hidden: the last hidden states. ``[batch, tokens, width]``.
            mask: 1 for tokens, 0 for padding. ``[batch, tokens]``.

        Returns:
            ``[batch, width]``.
        """

    def predict_tokens(self, hidden: Tensor) -> Tensor:
        """Applies the head that predicts tokens to chosen states. ``[n, width] -> [n, V]``.

        The states are those at masks, or those of the tokens after which the next is asked for.

        Raises:
            Unsupported: the backbone has no such head.
        """
        if self._token_head is None:
            kind = "head that predicts the next token" if self.left_to_right else "masked-LM head"
            raise Unsupported(f"the backbone has no {kind}")
        with in_float32(self.network.get_output_embeddings()):
            said = self._outward(self._token_head(self._inward(hidden)))
        return said.to(hidden.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves it as any module; but where its weights have their places, these stay."""
        return self if self.settled else super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


def attention_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns what is added to attention so that tokens see only what they may.

    Args:
        visible: which token (second) each token (first) may attend to. ``[batch, tokens, tokens]``.
        dtype: of the result.

    Returns:
        0 where it may, else the lowest number. ``[batch, 1, tokens, tokens]``.
    """
    blocked = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return blocked.masked_fill(~visible, torch.finfo(dtype).min).unsqueeze(1)


def _token_head(network: PreTrainedModel) -> Callable[[Tensor], Tensor] | None:
    """Returns the network's own head as a function of hidden states at chosen positions.

    It is what the network does with the states of its base, whatever its modules are called: the
    network is run on a base that says nothing but these states.
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
    """What a base says that says its last hidden states, and nothing else that is asked."""

    @property
    def last_hidden_state(self) -> Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)
