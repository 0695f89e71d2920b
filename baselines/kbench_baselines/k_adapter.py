"""K-Adapter (Wang et al., "K-Adapter: Infusing Knowledge into Pre-Trained Models with Adapters").

Beside a frozen model of ``L`` layers with hidden states ``h^(0..L)`` (``h^(0)`` is what the
embeddings give) runs a chain of three adapter modules, ``z_0 = 0``::

    u_i = h^(tap_i) + z_{i-1}                                taps 0, (L - 1) // 2, L - 2
    U_i = P_up T(P_down u_i)                                 T: two transformer layers
    z_i = u_i + U_i                                          P_down: [w, H], P_up: [H, w]

so that ``z_3 = h^(tap_1) + h^(tap_2) + h^(tap_3) + sum U_i``. The width ``w`` of ``T`` is 768, as
published, or ``H`` where that is less; its feed-forward width is ``4 w``, and it has a head for
each 64 of ``w``. Padding is masked in it (in the release it is attended to, so that outputs
depend on how a batch is padded).

In a backbone that reads from left to right so do the modules: a token sees what it sees in the
network (:meth:`~kbench.model.LanguageModel.seen`). ``h^(0)`` is what its first layer is given, and
mentions are read where they have been seen, at their second markers.

General: the factual adapter. Through the frozen backbone it learns to tell the relation of two
marked mentions (:mod:`kbench_baselines.spelled_facts`) from ``c = C [h^(L); z_3]``; ``C`` and the
classifier are thrown away. The release then fine-tunes the whole model on a map of
``[h^(L); z_3]``, which plugs into nothing as it is. In kbench a frozen model reads instead::

    general, fine-tuning     h^(L) + s sum U_i               s: one number, chosen on dev
    task-specific            h^(L) + M [h^(L); sum U_i]      M: [H, 2 H] with bias, at first zero

``sum U_i`` and not ``z_3``, which holds the raw taps and is no small change. Task-specific: ``M``
trains on the task; the adapter is the general one and stays as it is. Fine-tuning: adapter and
``s`` are fixed and the model is tuned with them in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kbench.encoding import Batch
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase, Rows
from kbench.method import Fit, InjectionMethod, MethodCard, Plug
from kbench.model import LanguageModel, Reading, digest, rewritten, watched
from kbench.spec import OptionType, Setting
from kbench.task import Family
from kbench.training import History, Recipe
from kbench_baselines.spelled_facts import FactHead, fact_counts, spelled_facts

__all__ = ["Adapter", "FactualPretraining", "KAdapter", "KnowledgeAdapter", "tapped", "taps"]

_MODULES = 3
_LAYERS = 2
"""Of each module."""
_WIDTH = 768
_HEAD = 64
_DEVIATION = 0.0002
_DROPOUT = 0.1
_QUICK = 100_000
"""Sentences whose facts are counted while a grid is planned."""

# Four devices with 64 examples each; 1,200 steps warm up, of some 100,000 on 5.5 million sentences.
_PUBLISHED = Recipe(learning_rate=5e-5, batch_size=256, epochs=5, warmup=0.012, clip=1.0)
# kbench's own, for M alone: the release fine-tunes all (OpenEntity's script at this rate).
_MAP = Recipe(learning_rate=1e-4, batch_size=64, epochs=10, warmup=0.1)

Before = Callable[[Sequence[Tensor], Tensor], Sequence[Tensor]]
"""States at the taps (``[batch, tokens, H]``) and what may be seen to what is wanted of them."""
After = Callable[[Tensor, Sequence[Tensor], Tensor], Tensor]
"""Last hidden states, what was wanted of the taps, and what may be seen to new last states."""
Remembered = Callable[[int, Tensor], Tensor]
"""What a layer reads of the tokens that are read now, by its number, to that of all so far."""


def taps(layers: int) -> tuple[int, ...]:
    """Returns which hidden states the modules read: 0, 5, 10 of 12 layers; 0, 11, 22 of 24."""
    return 0, (layers - 1) // 2, max(0, layers - 2)


@contextmanager
def tapped(lm: LanguageModel, before: Before, after: After) -> Iterator[None]:
    """Replaces last hidden states by what is read from them and the taps inside the block.

    What ``before`` wants of the taps may be known of a batch; then the network is not read.
    """
    layers = lm.layers
    places = taps(len(layers))
    states: dict[int, Tensor] = {}

    def keeping(place: int) -> Callable[[Tensor], Tensor]:
        def keep(hidden: Tensor) -> Tensor:
            states[place] = hidden
            return hidden

        return keep

    def end(_: nn.Module, given: tuple[Batch, ...], last: Tensor) -> Tensor:
        seen, known = lm.seen(given[0]), given[0].states
        wanted = known.beside if known else before([states[place] for place in places], seen)
        states.clear()
        return after(last, wanted, seen)

    with ExitStack() as stack:
        if lm.left_to_right:  # no module of a decoder does all that comes before its layers
            stack.enter_context(watched(layers[0], keeping(0)))
        else:
            stack.enter_context(rewritten(lm.embeddings, keeping(0)))
        for place in sorted({*places} - {0}):
            stack.enter_context(rewritten(layers[place - 1], keeping(place)))
        stack.callback(lm.register_forward_hook(end).remove)
        yield


def _read(lm: LanguageModel, title: str, of: Any, before: Before, count: int) -> Reading:
    """Reads the last hidden states and ``count`` things of the same width from the taps."""

    def read(batch: Batch, positions: Tensor) -> Sequence[Tensor]:
        states: list[Tensor] = []

        def keep(last: Tensor, wanted: Sequence[Tensor], seen: Tensor) -> Tensor:
            states.extend((last, *wanted))
            return last

        with tapped(lm, before, keep):
            lm(batch)
        return [state.flatten(0, 1)[positions] for state in states]

    known = {"title": title, "taps": list(taps(len(lm.layers))), "adapter": of}
    return Reading(known, (lm.width,) * (1 + count), read)


def _raw(states: Sequence[Tensor], seen: Tensor) -> Sequence[Tensor]:
    return states


@final
class AdapterModule(nn.Module):
    """One module: ``u`` to ``U = P_up T(P_down u)``.

    Args:
        hidden: ``H``, of the model.
        width: ``w``, of ``T``.
    """

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        heads = next(n for n in range(max(1, width // _HEAD), 0, -1) if width % n == 0)
        self.heads = heads
        self.down = nn.Linear(hidden, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, _DROPOUT, activation="gelu", batch_first=True
            )
            for _ in range(_LAYERS)
        )
        self.up = nn.Linear(width, hidden)
        for projection in (self.down, self.up):
            nn.init.normal_(projection.weight, std=_DEVIATION)
            nn.init.zeros_(projection.bias)

    def forward(self, hidden: Tensor, seen: Tensor, remembered: Remembered) -> Tensor:
        """``[batch, tokens, H]`` and what may be seen to ``[batch, tokens, H]``."""
        inner = self.down(hidden)
        if seen.dim() == 2:
            padding = seen == 0
            for layer in self.layers:
                inner = layer(inner, src_key_padding_mask=padding)
        else:
            blocked = (~seen).repeat_interleave(self.heads, 0)
            for number, layer in enumerate(self.layers):
                inner = _looking_back(layer, inner, remembered(number, inner), blocked)
        change: Tensor = self.up(inner)
        return change


def _looking_back(layer: Any, inner: Tensor, known: Tensor, blocked: Tensor) -> Tensor:
    """What a transformer layer makes of tokens that look at more than each other.

    Args:
        layer: a ``TransformerEncoderLayer``, whose own pass has every token look at these alone.
        inner: of the tokens that are read now. ``[batch, tokens, w]``.
        known: of those that were read before too. ``[batch, known, w]``.
        blocked: which of them each may not look at, for each head.
            ``[batch * heads, tokens, known]``.
    """
    found, _ = layer.self_attn(inner, known, known, attn_mask=blocked, need_weights=False)
    inner = layer.norm1(inner + layer.dropout1(found))
    change = layer.linear2(layer.dropout(layer.activation(layer.linear1(inner))))
    moved: Tensor = layer.norm2(inner + layer.dropout2(change))
    return moved


@final
class Adapter(nn.Module):
    """The chain of modules; 47.25 million parameters beside RoBERTa-large, as published.

    Args:
        hidden: ``H``, of the model.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        width = min(_WIDTH, hidden)
        self.modules_in_turn = nn.ModuleList(AdapterModule(hidden, width) for _ in range(_MODULES))

    def forward(
        self, states: Sequence[Tensor], seen: Tensor, remembered: Remembered | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns ``sum U_i`` and ``z_3``.

        Args:
            states: at the taps, ``[batch, tokens, H]`` each.
            seen: what tokens may look at, as :meth:`~kbench.model.LanguageModel.seen` says.
            remembered: what layers read of the tokens before too, where a text is gone on with.
        """
        output = total = torch.zeros_like(states[0])
        for number, (state, module) in enumerate(zip(states, self.modules_in_turn, strict=True)):
            given = state + output
            change = module(given, seen, partial(_behind, remembered, _LAYERS * number))
            output, total = given + change, total + change
        return total, output


def _behind(remembered: Remembered | None, first: int, number: int, inner: Tensor) -> Tensor:
    """What a module's layer reads of all tokens so far; ``first`` is its module's first layer."""
    return inner if remembered is None else remembered(first + number, inner)


@final
class KnowledgeAdapter(Plug):
    """The adapter, and how the last hidden states read it.

    Args:
        hidden: ``H``, of the model.
        scale: ``s`` until another is chosen.
    """

    mapped: Tensor
    """Whether the states read it through ``M``: it began to train."""

    def __init__(self, hidden: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.adapter = Adapter(hidden)
        self.map = nn.Linear(2 * hidden, hidden)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)
        self.register_buffer("mapped", torch.tensor(False))

    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        # Asked once a block: the answer lies on the device.
        after = self._mapped if bool(self.mapped) else self._scaled
        with lm.token_by_token(), tapped(lm, partial(self._increments, lm.remembered), after):
            yield

    def reading(self, lm: LanguageModel) -> Reading:
        """Reads ``h^(L)`` and ``sum U_i``: neither ``M`` nor ``s`` comes before them."""
        self.adapter.eval()
        title = "last hidden states and increments of an adapter"
        increments = partial(self._increments, lm.remembered)
        return _read(lm, title, digest(self.adapter), increments, 1)

    def choose(self, value: float) -> None:
        self.scale = value

    def train(self, mode: bool = True) -> Self:
        """Keeps the adapter in eval mode: here it is read, and learns elsewhere."""
        super().train(mode)
        self.adapter.eval()
        return self

    def _increments(
        self, remembered: Remembered, states: Sequence[Tensor], seen: Tensor
    ) -> Sequence[Tensor]:
        return self.adapter(states, seen, remembered)[:1]  # type: ignore[no-any-return]

    def _scaled(self, last: Tensor, total: Sequence[Tensor], seen: Tensor) -> Tensor:
        return last + self.scale * total[0]

    def _mapped(self, last: Tensor, total: Sequence[Tensor], seen: Tensor) -> Tensor:
        moved: Tensor = last + self.map(torch.cat([last, total[0]], dim=-1))
        return moved


@final
class FactualPretraining(Plug):
    """An adapter while it learns facts: the last hidden states become ``C [h^(L); z_3]``.

    Args:
        adapter: what is kept.
        hidden: ``H``, of the model.
        relations: to tell apart.
    """

    def __init__(self, adapter: Adapter, hidden: int, relations: int) -> None:
        super().__init__()
        self.adapter = adapter
        self.features = nn.Linear(2 * hidden, hidden)
        self.head = FactHead(hidden, relations, _DROPOUT)

    def attach(self, lm: LanguageModel) -> AbstractContextManager[None]:
        return tapped(lm, _raw, self._read)

    def reading(self, lm: LanguageModel) -> Reading:
        """Reads ``h^(L)`` and the taps."""
        return _read(lm, "last hidden states and taps", None, _raw, _MODULES)

    def _read(self, last: Tensor, states: Sequence[Tensor], seen: Tensor) -> Tensor:
        _, output = self.adapter(states, seen)
        features: Tensor = self.features(torch.cat([last, output], dim=-1))
        return features

    def loss(self, lm: LanguageModel, batch: Batch) -> Tensor:
        """Returns the loss of a batch of facts, the network being attached to; a scalar."""
        return self.head.loss(lm, lm(batch), batch)


@final
class KAdapter(InjectionMethod):
    """K-Adapter's factual adapter beside a frozen model.

    There is no switch for each entity: the adapter answers to every input, whether an entity is
    linked in it or not. The switch is ``s = 0`` (or ``M = 0``), which gives the base model.

    Options: ``min_examples``, below which a relation is dropped (see
    :func:`~kbench_baselines.spelled_facts.spelled_facts`); ``without``, ids of relations that are
    dropped in any case, as published "instance of"; ``max_length`` of a sentence in tokens.
    """

    card = MethodCard(
        title="K-Adapter",
        paper="K-Adapter: Infusing Knowledge into Pre-Trained Models with Adapters (Findings of "
        "ACL 2021)",
        year=2021,
        needs="triples, and sentences with linked mentions that spell them out",
        citation="2021.findings-acl.121",
        authors="Ruize Wang, Duyu Tang, Nan Duan, Zhongyu Wei, Xuanjing Huang, Jianshu Ji, "
        "Guihong Cao, Daxin Jiang and Ming Zhou",
        trains="adapter: 3 (2 H w + w + H) + 6 (12 w^2 + 13 w), w = min(768, H); task-specific: "
        "2 H^2 + H",
    )
    revision = "4"
    settings = frozenset(Setting)
    switched = False
    defaults: ClassVar[Mapping[str, Any]] = {
        "min_examples": 50,
        "without": ["P31"],
        "max_length": 64,
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "min_examples": OptionType("whole number", least=0),
        "max_length": OptionType("whole number", least=1),
    }

    def recipe(self, setting: Setting, family: Family | None, task: str | None) -> Recipe:
        """The factual adapter's of the release; for ``M`` kbench's own, as none is published."""
        return _MAP if setting == Setting.TASK_SPECIFIC else _PUBLISHED

    def corpus_readings(self) -> float | None:
        """A sentence that spells out one fact is one instance."""
        return 1

    def may_start_general(self) -> bool:
        return True

    def starts_general(self, lm: LanguageModel, knowledge: KnowledgeBase) -> bool:
        return True

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        """Whether an entity has a fact at all, in truth; the adapter itself has no entities."""
        told: NDArray[np.bool_] = np.isin(rows, knowledge.unbroken.triples[:, [0, 2]])
        return told & (rows >= 0)

    def choices(self) -> Sequence[float]:
        """Values of ``s``. Nothing chooses in fine-tuning: the model gets used to the whole sum."""
        return (1.0, 0.3, 0.1, 0.03, 0.01, 0.0)

    def check_training(self, setting: Setting, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        """Counts the facts, where there are not too many sentences to do so quickly."""
        if len(knowledge.sentences) <= _QUICK:
            fact_counts(knowledge, self.options["without"])

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        if lm.slot_width != lm.width:
            raise Unsupported(
                "K-Adapter adds embeddings to hidden states; in this backbone they are "
                f"{lm.slot_width} and {lm.width} wide"
            )
        return KnowledgeAdapter(lm.width, self.choices()[0])

    def fit(self, plug: Plug, fit: Fit) -> History:
        assert isinstance(plug, KnowledgeAdapter)
        if fit.setting == Setting.TASK_SPECIFIC:
            plug.adapter.requires_grad_(False)
            plug.mapped.fill_(True)
            assert fit.model is not None
            assert fit.examples is not None
            reading = plug.reading(fit.lm)
            return fit.train(plug, fit.model.loss, fit.examples, reading=reading)
        plug.map.requires_grad_(False)
        facts = spelled_facts(
            fit.lm,
            fit.knowledge,
            max_length=min(int(fit.options["max_length"]), fit.lm.max_length),
            least=int(fit.options["min_examples"]),
            without=fit.options["without"],
        )
        torch.manual_seed(fit.seed)
        teacher = FactualPretraining(plug.adapter, fit.lm.width, facts.relations)
        teacher = teacher.to(fit.device)
        reading = teacher.reading(fit.lm)
        history = fit.train(
            teacher, lambda batch: teacher.loss(fit.lm, batch), facts, reading=reading
        )
        history.counts = facts.counts
        return history
