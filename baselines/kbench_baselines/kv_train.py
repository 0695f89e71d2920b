"""A text's keys and values compressed to a few slots, by distillation.

:mod:`kbench_baselines.kv_text` puts the keys and values of an entity's text before those of the
input, ``T`` of them in every layer. Here ``P`` slots stand for them. Slot ``p`` of layer ``l`` and
head ``h`` is a mean of what that head has of the text, of the places ``r_t = (t + 1/2) / T``::

    a_t  = softmax_t( u_lhp K_lht / sqrt(size) - (z_lhp (r_t - c_lhp))^2 )
    K'_lhp = Σ_t a_t K_lht + δ_lhp            V'_lhp = Σ_t a_t V_lht + ε_lhp

At first ``u``, ``δ`` and ``ε`` are zero, ``c_p = (p + 1/2) / P`` and ``z = 2 P``: each slot is
about the mean of its part of the text. An entity that nothing was trained on has its slots too.

Without a task it is distilled: with ``p_T`` what the network says with the whole text
(``kv-text``), ``p_S`` what it says with the slots, at each token of the tails of its facts
(:func:`~kbench_baselines.facts.told_facts`)::

    loss = KL( p_T || p_S )

Positions of the input are those that it has behind the whole text, for teacher and student alike.

Eyuboglu et al., "Cartridges: Lightweight and general-purpose long context representations via
self-study" train the slots themselves, for one corpus (release: Apache-2.0), on dialogues that the
model makes up, with the 20 likeliest tokens of the teacher, not normalised; another text needs
another training. A map that makes slots of any text, and is all that trains, is kbench's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.encoding import Batch
from kbench.knowledge import KnowledgeBase, Rows
from kbench.method import Fit, MethodCard, Plug
from kbench.model import LanguageModel
from kbench.spec import OptionType, Setting
from kbench.task import Family
from kbench.training import History, Recipe
from kbench_baselines.facts import told_facts
from kbench_baselines.kv_text import KvText, TextStates
from kbench_baselines.read_facts import FactReader

__all__ = ["KvTrain", "KvTrainPlug"]

# Of the release: 2 epochs of batches of 64 at 2e-2, where the slots themselves are trained.
_PUBLISHED = Recipe(learning_rate=2e-2, batch_size=64, epochs=2, optimizer="adam", decay="constant")


@final
class KvTrainPlug(Plug):
    """Which parts of a text its slots are means of.

    ``L P n_kv (3 size + 2)`` parameters.

    Args:
        method: says what is told of an entity, and in how many slots.
        knowledge: whose texts they are.
        lm: the network.
    """

    def __init__(self, method: KvTrain, knowledge: KnowledgeBase, lm: LanguageModel) -> None:
        super().__init__()
        self.method, self.knowledge = method, knowledge
        of, slots = lm.attention(0), int(method.options["slots"])
        shape = len(lm.layers), of.key_heads, slots
        self.look = nn.Parameter(torch.zeros(*shape, of.size))
        self.more = nn.Parameter(torch.zeros(shape[0], 2, slots, of.key_heads, of.size))
        self.centre = nn.Parameter(((torch.arange(slots) + 0.5) / slots).expand(shape).clone())
        self.sharp = nn.Parameter(torch.full(shape, 2.0 * slots))
        self._texts: _Slots | None = None

    def forward(self, states: Tensor, there: Tensor) -> Tensor:
        """Compresses texts.

        Args:
            states: keys and values. ``[entities, layers, 2, T, n_kv, size]``.
            there: tokens that are no padding. ``[entities, T]``, bool.

        Returns:
            ``[entities, layers, 2, P, n_kv, size]``.
        """
        scores = torch.einsum("elths,lhps->elhpt", states[:, :, 0], self.look)
        scores = scores * self.look.shape[-1] ** -0.5
        tokens = torch.arange(there.shape[1], device=there.device) + 0.5
        places = tokens / there.sum(1, keepdim=True).clamp(min=1)  # [entities, T]
        apart = places[:, None, None, None] - self.centre.unsqueeze(-1)
        scores = scores - (self.sharp.unsqueeze(-1) * apart).square()
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(~there[:, None, None, None], lowest).softmax(-1)
        return torch.einsum("elhpt,elcths->elcphs", weights, states) + self.more

    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        self._texts = _Slots(self, lm)
        try:
            with self._texts.before_inputs():
                yield
        finally:
            self._texts = None

    def distilled(self, lm: LanguageModel, batch: Batch) -> Tensor:
        """Returns ``KL(p_T || p_S)`` at the blanks of a batch, a scalar; the plug is attached."""
        assert self._texts is not None
        with torch.no_grad(), self._texts.whole():
            taught = _said(lm, batch)
        return F.kl_div(_said(lm, batch), taught, reduction="batchmean", log_target=True)


def _said(lm: LanguageModel, batch: Batch) -> Tensor:
    """The logarithms of what is said at the blanks. ``[blanks, V]``."""
    hidden = lm(batch, batch.blank_index).flatten(0, 1)[batch.blank_index]
    return lm.predict_tokens(hidden).float().log_softmax(-1)


class _Slots(TextStates):
    """The slots that a plug makes of texts; or the texts themselves, to learn from.

    Args:
        plug: makes them.
        lm: the network.
    """

    def __init__(self, plug: KvTrainPlug, lm: LanguageModel) -> None:
        method = plug.method
        super().__init__(lm, method.told, plug.knowledge, int(method.options["room"]))
        self._plug, self._whole = plug, False

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Puts whole texts before inputs inside the block."""
        self._whole, self._laid_out = True, None
        try:
            yield
        finally:
            self._whole, self._laid_out = False, None

    def made(self, states: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        if self._whole:
            return states, there
        slots = self._plug(states, there)
        return slots, there.new_ones(len(slots), slots.shape[3])


@final
class KvTrain(FactReader):
    """kv-train: ``slots`` keys and values in the place of an entity's text, in every layer.

    Options: ``slots`` (``P``); ``text`` and ``room`` as of ``kv-text``; and those of
    :class:`~kbench_baselines.read_facts.FactReader`. As of ``kv-text`` there is no fine-tuning.
    """

    card = MethodCard(
        title="kv-train",
        paper="kbench's own: kv-text compressed (after Cartridges: Lightweight and general-purpose "
        "long context representations via self-study, 2025)",
        year=2025,
        needs="descriptions or facts; general: facts; attention that asks a registered function",
        citation="arXiv:2506.06266",
        authors="Sabri Eyuboglu, Ryan Ehrlich, Simran Arora, Neel Guha, Dylan Zinsley, Emily "
        "Liu, Will Tennien, Atri Rudra, James Zou, Azalia Mirhoseini and Christopher "
        "Ré",
        trains="L P n_kv (3 size + 2), P slots",
    )
    revision = "1"
    reads_text = True
    settings: ClassVar[frozenset[Setting]] = frozenset({Setting.GENERAL, Setting.TASK_SPECIFIC})
    defaults: ClassVar[Mapping[str, Any]] = {
        **FactReader.defaults,
        "lessons": 4096,
        "slots": 8,
        "room": 128,
        "text": "description",
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        **FactReader.option_types,
        "slots": OptionType("whole number", least=1),
        "room": OptionType("whole number", least=1),
        "text": OptionType("text", words=("description", "facts", "both")),
    }
    general = _PUBLISHED
    fixed = _PUBLISHED
    families = dict.fromkeys(Family, _PUBLISHED)

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self.told = KvText({name: self.options[name] for name in ("room", "text")})

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        return self.told.covers(knowledge, rows)

    def check(self, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        self.told.check(lm, knowledge)

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns an untrained plug: each slot is about the mean of its part of a text.

        Raises:
            Unsupported: attention asks no registered function, or there is nothing to tell.
        """
        self.told.build(lm, knowledge)
        return KvTrainPlug(self, knowledge, lm)

    def pretrain(self, plug: Plug, fit: Fit, max_length: int) -> History:
        assert isinstance(plug, KvTrainPlug)
        most, seed = int(fit.options["lessons"]), fit.seed
        data = told_facts(fit.lm, fit.knowledge, None, max_length, most=most, seed=seed)
        history = fit.train(plug, lambda batch: plug.distilled(fit.lm, batch), data)
        history.counts = data.dropped
        return history
