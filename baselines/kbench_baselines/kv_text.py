"""A text's keys and values in the place of the text: retrieval augmentation with a cache.

What a network makes of a text before another one is, to the other, nothing but the keys and values
that each layer ``l`` had for it. They are computed once an entity, by the frozen network itself,
and stand before those of the input in the attention of every layer::

    K_l(e), V_l(e) = what layer l compares and mixes when it reads  s d_e     [P, n_kv, size] each
    attention_l    = softmax( q [K_l(e) ; K]' / sqrt(size) ) [V_l(e) ; V]

``d_e`` is the text of entity ``e`` (:class:`~kbench_baselines.retrieval.Told`), ``s`` what begins
any text. Nothing trains.

**Left to right** a text that stands before another never sees it, so that this is the input with
``d_e`` before it, to rounding, at a fraction of the tokens: positions of what comes after ``s`` are
moved on by ``P``, and ``s`` itself sees none of it. Of several entities each one's text is read
apart, which is an approximation: none has seen another, all stand at the same places, and the
input behind the longest. Where demonstrations are shown, all texts stand before the first.

**Both ways** a text sees what comes after it too, and here it has not: keys and values are those of
``d_e`` alone, which the input may look at and which do not look back. That is another model of
the input than a second segment.

It is what a cache of a document's keys and values is to any server; a trained one of fixed size
is Eyuboglu et al., "Cartridges: Lightweight and general-purpose long context representations via
self-study", whose prefix begins as the text's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kbench.encoding import Batch, sent
from kbench.errors import InputError
from kbench.knowledge import KnowledgeBase
from kbench.method import MethodCard, Plug
from kbench.model import AttentionCall, LanguageModel
from kbench.spec import OptionType, Setting
from kbench_baselines.entity_texts import EntityTexts
from kbench_baselines.retrieval import Told

__all__ = ["KvText", "KvTextPlug", "TextStates"]

_BYTES = 1 << 30
"""Of keys and values that are held for entities that are not being read of."""


@final
class KvTextPlug(Plug):
    """Reads the texts of entities when they are first spoken of; it has no parameters.

    Args:
        method: says what is told of an entity.
        knowledge: whose they are.
        room: tokens of a text at most.
    """

    def __init__(self, method: KvText, knowledge: KnowledgeBase, room: int) -> None:
        super().__init__()
        self.method, self.knowledge, self.room = method, knowledge, room

    def attach(self, lm: LanguageModel) -> AbstractContextManager[None]:
        return TextStates(lm, self.method, self.knowledge, self.room).before_inputs()


class TextStates:
    """The keys and values of the texts of entities, as one network has them.

    Args:
        lm: the network.
        method: says what is told of an entity.
        knowledge: whose they are.
        room: tokens of a text at most.
    """

    def __init__(
        self, lm: LanguageModel, method: KvText, knowledge: KnowledgeBase, room: int
    ) -> None:
        self._lm, self._texts = lm, EntityTexts(lm, method, knowledge, room)
        self._first = self._texts.first
        self._known: dict[int, Tensor] = {}  # [layers, 2, P, n_kv, size] each
        self._read: list[Tensor] | None = None
        self._laid_out: tuple[Any, Tensor, Tensor, Tensor] | None = None
        self._longest = 0  # tokens of a text among them

    @contextmanager
    def before_inputs(self) -> Iterator[None]:
        """Has them stand before those of the input in every layer, inside the block."""
        lm = self._lm
        with ExitStack() as stack:
            for layer in range(len(lm.layers)):
                change = partial(self.attended, layer)
                stack.enter_context(lm.attention(layer).changed(change))
            stack.enter_context(lm.preparing(self.prepare))
            if lm.left_to_right:
                stack.enter_context(lm.shifted(self.shift))
            yield

    def made(self, states: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """What stands before inputs, of what was read; as it stands, that.

        Args:
            states: of the texts of entities. ``[entities, layers, 2, P, n_kv, size]``.
            there: their tokens, the others being padding. ``[entities, P]``, bool.

        Returns:
            The same, with any number for ``P``.
        """
        return states, there

    def prepare(self, batch: Batch) -> None:
        """Reads the texts of those whom a batch speaks of, where they are not known."""
        told = batch.entities
        key = told.rows.tolist(), told.owners.tolist(), len(batch.ids)
        if not key[0]:
            self._laid_out = None
        elif torch.is_grad_enabled() or self._laid_out is None or self._laid_out[0] != key:
            rows = list(dict.fromkeys(key[0]))
            self._learn([row for row in rows if row not in self._known])
            self._laid_out = (key, *self._seats(batch))
            self._forget(rows)

    def shift(self, batch: Batch) -> Tensor:
        """By how many places tokens stand further on: the longest text. ``[batch, tokens]``.

        Raises:
            InputError: there are not so many places.
        """
        places = self._places(batch)
        if self._laid_out is None:
            return torch.zeros_like(places)
        lengths = self._laid_out[3]
        tokens = batch.mask[:, -places.shape[1] :] > 0
        shift = torch.where(tokens & (places >= self._first), lengths[:, None], 0)
        last = self._longest + (batch.mask.shape[1] if batch.reach is None else batch.reach)
        if last > self._lm.max_length:  # padding may be why: only now it is worth waiting for
            last = int((places * tokens + shift).max()) + 1
        if last > self._lm.max_length:
            raise InputError(
                f"an input and the texts before it take {last} tokens, and the window is "
                f"{self._lm.max_length}; lower `room`, or use a backbone with a longer window"
            )
        return shift

    def attended(self, layer: int, call: AttentionCall) -> Tensor:
        """What a layer's attention gives; of a text that is being read what is to be kept."""
        if self._read is not None:
            self._read.append(torch.stack([call.keys, call.values], 1).transpose(2, 3))
            return call.output()
        if self._laid_out is None:
            return call.output()
        _, held, seen, _ = self._laid_out
        # [2, texts, n_kv, seats * P, size]
        keys, values = held[:, :, layer].permute(2, 0, 4, 1, 3, 5).flatten(3, 4)
        begun = self._places(call.batch) >= self._first
        return call.with_more(keys, values, begun[:, :, None] & seen.flatten(1)[:, None])

    def _places(self, batch: Batch) -> Tensor:
        """Where tokens stand in their texts. ``[batch, tokens]``."""
        if batch.positions is not None:
            return batch.positions
        return torch.arange(batch.ids.shape[1], device=batch.ids.device).expand_as(batch.ids)

    def _seats(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Lays keys and values out by text.

        Returns:
            ``[texts, seats, layers, 2, P, n_kv, size]``; which are there, ``[texts, seats, P]``;
            and the tokens of the longest text that was read for each, ``[texts]``.
        """
        told, texts = batch.entities, len(batch.ids)
        each = [self._known[row] for row in told.rows.tolist()]
        self._longest = most = max(part.shape[2] for part in each)
        padded = torch.stack([F.pad(part, (0, 0, 0, 0, 0, most - part.shape[2])) for part in each])
        lengths = torch.tensor([part.shape[2] for part in each])
        there = sent(torch.arange(most) < lengths[:, None], padded.device)
        longest = told.seated(sent(lengths, padded.device), texts)[0].amax(1)
        padded, there = self.made(padded, there)
        return told.seated(padded, texts)[0], told.seated(there, texts)[0], longest

    def _learn(self, rows: Sequence[int]) -> None:
        for at, own, first, end in self._texts.read(rows, self._states_of):
            self._known[rows[at]] = own[:, :, first:end].clone()

    def _states_of(self, batch: Batch) -> Tensor:
        """Keys and values of texts. ``[texts, layers, 2, tokens, n_kv, size]``."""
        self._read = []
        try:
            self._lm(batch)
            return torch.stack(self._read, 1)
        finally:
            self._read = None

    def _forget(self, rows: Sequence[int]) -> None:
        """Lets go of what is known of others, where that is too much."""
        if sum(part.nbytes for part in self._known.values()) > _BYTES:
            self._known = {row: self._known[row] for row in rows}


@final
class KvText(Told):
    """The keys and values of what is known of an entity, before those of the input.

    Options: ``text``, and ``room``, the tokens of an entity's text at most; beside a decoder no
    more than half its window. There is no fine-tuning: the keys and values are the model's own, and
    would move with it.
    """

    card = MethodCard(
        title="kv-text",
        paper="kbench's own: RA with the text's keys and values in its place (after Cartridges: "
        "Lightweight and general-purpose long context representations via self-study, 2025)",
        year=2025,
        needs="descriptions or facts; attention that asks a registered function",
        citation="arXiv:2506.06266",
        authors="Sabri Eyuboglu, Ryan Ehrlich, Simran Arora, Neel Guha, Dylan Zinsley, Emily "
        "Liu, Will Tennien, Atri Rudra, James Zou, Azalia Mirhoseini and Christopher "
        "Ré",
        trains="0",
    )
    revision = "1"
    reads_text = True
    settings: ClassVar[frozenset[Setting]] = frozenset({Setting.GENERAL})
    defaults: ClassVar[Mapping[str, Any]] = {"room": 128, "text": "description"}
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "room": OptionType("whole number", least=1),
        "text": OptionType("text", words=("description", "facts", "both")),
    }

    def check(self, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        for layer in range(len(lm.layers)):
            lm.attention(layer)

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns the plug.

        Raises:
            Unsupported: attention asks no registered function, or there is nothing to tell.
        """
        self.check(lm, knowledge)
        super().build(lm, knowledge)
        return KvTextPlug(self, knowledge, int(self.options["room"]))
