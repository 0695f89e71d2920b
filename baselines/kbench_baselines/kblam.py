"""KBLaM's knowledge tokens: facts as keys and values beside the attention of a frozen model.

Wang et al., "KBLaM: Knowledge Base augmented Language Model". Fact ``m`` is a head, a relation and
a tail. At every ``f``-th layer ``l`` (0, f, 2 f, …) it has a key and a value, which no position
is told of::

    k_ml = LN( P_l [ x_head ; w_relation ] + p_l )         P_l: [n_kv size, s + W]
    v_ml = V_l x_tail + u_l                                V_l: [n_kv size, s]
    q_l  = Q_l h + D_l h                                   D_l: [heads size, H], at first zero
    a_l  = softmax( [ q_l k_l' / sqrt(size) - log M + c_l ; Q K' / sqrt(size) + mask ] ) [ v_l ; V ]

``h`` is what the layer's attention reads, ``Q_l h`` its own queries before they are rotated:
rotated ones would meet keys that are not. ``M`` is how many facts a text looks at. ``c_l`` starts
at -4, so that the untrained plug is next to silent. The softmax over both is put together from one
over the facts and the layer's own (:meth:`~kbench.model.AttentionCall.beside`), so that a text that
looks at no fact has the layer's own output, bit for bit.

**What a fact is made of** says the option ``source``. ``kge``: ``x`` is the entity's vector
(``s = d``); ``words``: the mean input vector of the tokens of its name (``s = W``, the width of
word embeddings). ``w_relation`` is that of the relation's label in either case, for a knowledge
base has no vectors of relations. Each of these is brought to mean 0 and variance 1.

**Which facts a text looks at** says ``mode``. ``linked``: those of the entities that it speaks of,
``facts`` at most; of more, entities take turns, so that each has its share. ``global``: always
``facts`` (``M``) of them, in the order of the knowledge base one in so many; those of its own
entities are among them, in the place of the last ones, so that the answer is there for it to be
found. With as many as there are, no linker is needed. There every text looks at facts, one that
speaks of nobody too.

**How it learns to find them among many.** KBLaM shows few facts while it learns, another number for
each batch, and many later: with the option ``shown`` each batch of the mode ``global`` has its own
block, of 1 to ``shown`` facts drawn from all. And it may be told which are a text's own (``S_i`` of
text ``i``)::

    loss += pointing * mean_t -log( mean_heads  sum_{m in S_i} softmax_m( q_t k_m' / sqrt(size) ) )

over the tokens ``t`` from the last one of the text's last linked mention on, in the layer half way
up of those that look at facts: the ones after it make use of what is found. "SR-KI" (2025)
supervises the attention of one layer so; there it is the fact that holds the answer, here all of
the entity's, for a text says whom it is about and not which fact answers it. Only in training is a
link needed for that.

KBLaM encodes sentences with a frozen encoder (``the property of name``, value), has keys and values
of as many heads as queries, and normalises keys over all layers together. Vectors of the knowledge
base, shared heads and a normalisation in each layer are kbench's. The release (MIT) counts padding
among its labels, tests on knowledge drawn with replacement, makes "not found" examples without
looking whether the fact is absent, and concatenates expanded keys and values in each layer at each
step; here each fact is projected once in evaluation.

Without a task it learns to tell the tails of facts (:func:`~kbench_baselines.facts.told_facts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.encoding import Batch, Data, sent, targets_in
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase, Rows
from kbench.method import Fit, MethodCard, Plug
from kbench.model import AttentionCall, LanguageModel, Reading
from kbench.spec import OptionType
from kbench.task import Family
from kbench.training import History, Recipe, Weigh
from kbench_baselines.facts import FactVectors, entity_width, has_facts, seats
from kbench_baselines.read_facts import FactReader
from kbench_baselines.row_table import version

__all__ = ["Kblam", "KblamPlug"]

_BYTES = 1 << 30
"""Of projected facts that are held."""
_SILENT = -4.0
"""``c_l`` at first: facts together weigh e^-4 of a token that fits as well."""

# 20,000 steps of 10 to 20 texts, 20 of which are added up; an epoch of ours has some 100 steps.
_PUBLISHED = Recipe(learning_rate=1e-4, batch_size=256, epochs=20, decay="constant")


@dataclass(frozen=True)
class _Form:
    """What a plug's maps are between.

    Attributes:
        layers: which have keys and values.
        heads: of queries.
        key_heads: of keys and values.
        size: of a head.
    """

    layers: tuple[int, ...]
    heads: int
    key_heads: int
    size: int

    @classmethod
    def of(cls, lm: LanguageModel, every: int) -> _Form:
        layers = tuple(range(0, len(lm.layers), every))
        found = {(of.heads, of.key_heads, of.size) for of in map(lm.attention, layers)}
        if len(found) > 1:
            raise Unsupported("KBLaM needs layers with the same heads; these have not")
        return cls(layers, *found.pop())


@final
class KblamPlug(Plug):
    """The maps of facts to keys and values, and what queries them.

    ``L' ((s + W + 1 + s + 1) n_kv size + H heads size + 1)`` parameters, in ``L'`` layers.

    Args:
        method: says which facts, and what they are made of.
        knowledge: has them.
        lm: the network.
    """

    def __init__(self, method: Kblam, knowledge: KnowledgeBase, lm: LanguageModel) -> None:
        super().__init__()
        self.method, self.knowledge = method, knowledge
        self.form = form = _Form.of(lm, int(method.options["every"]))
        width = entity_width(lm, knowledge, method.options["source"])
        out = len(form.layers) * form.key_heads * form.size
        self.key = nn.Linear(width + lm.slot_width, out)
        self.value = nn.Linear(width, out)
        shape = len(form.layers), form.heads * form.size, lm.width
        self.query = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.full((len(form.layers),), _SILENT))
        self.missed: Tensor | None = None
        """What ``pointing`` weighs, of the batch that was read last; None without linked texts."""

    def project(self, told: tuple[Tensor, Tensor]) -> Tensor:
        """Makes keys and values of facts for all layers, in two products.

        Args:
            told: ``[x_head ; w_relation]`` and ``x_tail``. ``[facts, s + W]``, ``[facts, s]``.

        Returns:
            ``[facts, layers, 2, n_kv size]``, in float32.
        """
        keys, values = (
            of(given).float().view(len(given), len(self.form.layers), -1)
            for of, given in zip((self.key, self.value), told, strict=True)
        )
        return torch.stack([F.layer_norm(keys, keys.shape[2:]), values], 2)

    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        looking = _Looking(self, lm)
        with ExitStack() as stack:
            for number, layer in enumerate(self.form.layers):
                change = partial(looking.looked_up, number)
                stack.enter_context(lm.attention(layer).changed(change))
            stack.enter_context(lm.preparing(looking.prepare))
            yield


@dataclass(frozen=True)
class _Seen:
    """What the texts of a batch look at.

    Attributes:
        held: keys and values, for each text or one for all.
            ``[layers, 2, texts or 1, n_kv, facts, size]``.
        visible: which of these each text sees. ``[texts, facts]``, bool.
        less: ``log M`` of each. ``[texts, 1, 1, 1]``.
        own: which of these are of its own entities. ``[texts, facts]``, bool.
    """

    held: Tensor
    visible: Tensor
    less: Tensor
    own: Tensor


class _Looking:
    """The facts of a knowledge base, as one network and its texts look at them.

    Args:
        plug: projects them.
        lm: the network.
    """

    def __init__(self, plug: KblamPlug, lm: LanguageModel) -> None:
        self._plug, self._device = plug, plug.bias.device
        options = plug.method.options
        self._most, self._global = int(options["facts"]), options["mode"] == "global"
        self._vectors = FactVectors(lm, plug.knowledge, options["source"], self._device)
        self._table = self._vectors.table
        self._block = _spaced(len(self._table), self._most)
        self._shown, self._points = int(options["shown"]), float(options["pointing"]) > 0
        self._words = lm.word_embeddings
        self._version = (-1, -1)
        self._known = np.zeros(0, dtype=bool)
        self._projected = torch.empty(0)
        self._asked: Any = None
        self._seen: _Seen | None = None

    def prepare(self, batch: Batch) -> None:
        """Gathers what the texts of a batch look at, where that is not what the last ones did."""
        told = batch.entities
        learns = torch.is_grad_enabled()
        asked = told.rows.tolist(), told.owners.tolist(), len(batch.ids), self._versions()
        if learns or asked != self._asked:
            owners = told.owners.numpy()
            if self._global:
                self._seen = self._globally(told.rows.numpy(), owners, len(batch.ids))
            else:
                self._seen = self._linked(told.rows.numpy(), owners, len(batch.ids))
        self._asked = None if learns else asked
        self._plug.missed = None

    def looked_up(self, number: int, call: AttentionCall) -> Tensor:
        """What attention gives in one of the layers, the facts beside the text."""
        seen = self._seen
        if seen is None:
            return call.output()
        keys, values = seen.held[number].to(call.hidden.device)
        own, form = call.unrotated(), self._plug.form
        change = F.linear(call.hidden, self._plug.query[number])
        change = change.view(*change.shape[:2], form.heads, form.size).transpose(1, 2)
        queries = own + change
        if self._points and torch.is_grad_enabled() and number == len(form.layers) // 2:
            scores = call.scores(queries, keys, seen.visible)
            self._plug.missed = _missed(scores, seen.own, _since_told(call.batch))
        bias = self._plug.bias[number] - seen.less
        return call.beside(queries, keys, values, seen.visible, bias)

    def _linked(self, rows: Rows, owners: Rows, texts: int) -> _Seen | None:
        """Each text looks at the facts of its own entities alone."""
        numbers, owner = self._own(rows, owners, texts)
        if not len(numbers):
            return None
        counts = np.bincount(owner, minlength=texts)
        there = np.arange(counts.max()) < counts[:, None]
        taken = np.zeros(there.shape, dtype=np.int64)  # an empty seat holds what is there anyhow
        taken[there] = np.arange(len(numbers))
        parts = self._of(numbers)[sent(torch.from_numpy(taken), self._device)]
        return self._laid_out(parts, there, there)

    def _globally(self, rows: Rows, owners: Rows, texts: int) -> _Seen | None:
        """All look at one block of facts, in which the last ones make room for a text's own."""
        block = self._shown_facts() if self._shown and torch.is_grad_enabled() else self._block
        if not len(block):
            return None
        numbers, owner = self._own(rows, owners, texts)
        others = np.setdiff1d(numbers, block)
        columns = np.concatenate([block, others])
        own = np.zeros((texts, len(columns)), dtype=bool)
        order = np.argsort(columns, kind="stable")
        own[owner, order[np.searchsorted(columns, numbers, sorter=order)]] = True
        free = ~own
        free[:, len(block) :] = False
        room = len(block) - own.sum(1, keepdims=True)
        visible = own | (free & (free.cumsum(1) <= room))
        return self._laid_out(self._of(columns)[None], visible, own)

    def _shown_facts(self) -> Rows:
        """The block of a batch of training: some of all facts, by torch's generator."""
        total = len(self._table)
        count = int(torch.randint(1, 1 + self._shown, ()))
        rng = np.random.default_rng(int(torch.randint(1 << 62, ())))
        drawn = rng.choice(total, size=min(count, total), replace=False, shuffle=False)
        return np.sort(drawn.astype(np.int64))

    def _own(self, rows: Rows, owners: Rows, texts: int) -> tuple[Rows, Rows]:
        """The numbers of the facts of each text's entities, and their texts: ``M`` at most.

        Where there are more, entities take turns: each has one, then each a second one.
        """
        numbers, place = self._table.of(rows)
        owner = owners[place]
        turn, _ = seats(place, len(rows))
        order = np.lexsort((place, turn, owner))
        within, _ = seats(owner[order], texts)
        kept = np.sort(order[within < self._most])
        return numbers[kept], owner[kept]

    def _laid_out(self, parts: Tensor, visible: NDArray[np.bool_], own: NDArray[np.bool_]) -> _Seen:
        """From ``[texts or 1, facts, layers, 2, n_kv size]``."""
        by_head = parts.view(*parts.shape[:4], self._plug.form.key_heads, self._plug.form.size)
        held = by_head.permute(2, 3, 0, 4, 1, 5)
        seen, owned = (sent(torch.from_numpy(of), self._device) for of in (visible, own))
        less = seen.sum(1).clamp(min=1).float().log()[:, None, None, None]
        return _Seen(held, seen, less, owned)

    def _of(self, numbers: Rows) -> Tensor:
        """Keys and values of facts. ``[facts, layers, 2, n_kv size]``.

        While the plug learns they are made anew; else each is made once.
        """
        form, total = self._plug.form, len(self._table)
        shape = (len(form.layers), 2, form.key_heads * form.size)
        if torch.is_grad_enabled() or 4 * total * int(np.prod(shape)) > _BYTES:
            return self._plug.project(self._told(numbers))
        with torch.inference_mode(False), torch.no_grad():
            if self._version != (now := self._versions()):
                self._version, self._known = now, np.zeros(total, dtype=bool)
                self._projected = torch.empty(total, *shape, device=self._device)
            new = np.unique(numbers[~self._known[numbers]])
            if len(new):
                made = self._plug.project(self._told(new))
                self._projected[sent(torch.from_numpy(new), self._device)] = made
                self._known[new] = True
            return self._projected[sent(torch.from_numpy(numbers), self._device)]

    def _versions(self) -> tuple[int, int]:
        """Of what facts are projected by, and of the words that relations are made of."""
        return version(self._plug), version(self._words)

    def _told(self, numbers: Rows) -> tuple[Tensor, Tensor]:
        """What facts are made of: ``[x_head ; w_relation]`` and ``x_tail``."""
        heads, kinds, tails = self._table.facts[numbers].astype(np.int64).T
        given = self._vectors
        keys = torch.cat([given.heads(heads), given.relations(kinds)], 1)
        return keys, given.tails(tails)


def _missed(scores: Tensor, own: Tensor, at: Tensor) -> Tensor:
    """What texts give to facts that are not their own: the mean of ``-log`` of the others' share.

    Args:
        scores: of facts. ``[texts, heads, tokens, facts]``.
        own: which are a text's own. ``[texts, facts]``, bool.
        at: at which tokens. ``[texts, tokens]``, bool.

    Returns:
        a scalar.
    """
    share = scores.softmax(-1).masked_fill(~own[:, None, None], 0).sum(-1).mean(1)
    lost: Tensor = -share[at].clamp(min=torch.finfo(share.dtype).tiny).log()
    return lost.sum() / max(1, len(lost))


def _since_told(batch: Batch) -> Tensor:
    """The tokens that know whom their text is about: from its last linked mention's last one on.

    Returns:
        ``[texts, tokens]``, bool.
    """
    texts, tokens = batch.ids.shape
    linked = batch.mention_rows >= 0
    owners = sent(batch.mention_owners[linked], batch.ids.device)
    ends = batch.mentions[sent(linked, batch.ids.device), 1] - owners * tokens
    last = torch.full((texts,), tokens, dtype=ends.dtype, device=ends.device)
    last = last.scatter_reduce(0, owners, ends - 1, "amax", include_self=False)
    there = torch.arange(tokens, device=ends.device) >= last[:, None]
    return there & batch.mask.bool()


class _Pointed(Fit):
    """A training, with or without a task, that is told which facts are a text's own."""

    def train(
        self,
        plug: Plug,
        loss: Callable[[Batch], Tensor],
        data: Data,
        beside: nn.Module | None = None,
        reading: Reading | None = None,
        weigh: Weigh | None = targets_in,
    ) -> History:
        """Trains as any, with one more term of the loss."""
        weight, own = float(self.options["pointing"]), cast("KblamPlug", plug)

        def both(batch: Batch) -> Tensor:
            told, missed = loss(batch), own.missed
            return torch.stack([told, told.new_zeros(()) if missed is None else weight * missed])

        def weighed(batch: Batch) -> tuple[int, int]:
            return targets_in(batch), int(_since_told(batch).sum())

        history = super().train(plug, both, data, beside, reading, weighed)
        own.missed = None  # which holds all that it was computed from
        return history


def _spaced(total: int, most: int) -> Rows:
    """``most`` of so many numbers, all as far apart."""
    count = min(total, most)
    return np.arange(count, dtype=np.int64) * total // max(1, count)


@final
class Kblam(FactReader):
    """KBLaM: facts as keys and values that every ``every``-th layer may look at.

    Options: ``mode``, ``facts`` (``M``; 0 leaves the model as it is), ``source``, ``every``
    (``f``), and of the mode ``global`` ``shown`` (0: while it learns as many as later) and
    ``pointing``; and those of :class:`~kbench_baselines.read_facts.FactReader`. In the mode
    ``global`` a text without a known entity is not left as it is.
    """

    card = MethodCard(
        title="KBLaM",
        paper="KBLaM: Knowledge Base augmented Language Model (ICLR 2025)",
        year=2025,
        needs="facts, entity vectors or names; attention that asks a registered function",
        citation="arXiv:2410.10450",
        authors="Xi Wang, Taketomo Isazawa, Liana Mikaelyan and James Hensman",
        trains="L' ((2 s + W + 2) n_kv size + H heads size + 1) in L' layers",
    )
    revision = "2"
    defaults: ClassVar[Mapping[str, Any]] = {
        **FactReader.defaults,
        "mode": "linked",
        "facts": 64,
        "source": "kge",
        "every": 3,
        "shown": 0,
        "pointing": 0.0,
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        **FactReader.option_types,
        "mode": OptionType("text", words=("linked", "global")),
        "facts": OptionType("whole number", least=0),
        "source": OptionType("text", words=("kge", "words")),
        "every": OptionType("whole number", least=1),
        "shown": OptionType("whole number", least=0),
        "pointing": OptionType("number", least=0),
    }
    later_options = frozenset({"shown", "pointing"})
    general = _PUBLISHED
    fixed = _PUBLISHED
    families = dict.fromkeys(Family, _PUBLISHED)

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        """Whether an entity is the head of a fact; none where no fact is looked at."""
        return has_facts(knowledge, rows) & (int(self.options["facts"]) > 0)

    def check(self, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        self.check_facts(knowledge, vectors=self.options["source"] == "kge")
        if self.options["mode"] != "global" and (self.options["shown"] or self.options["pointing"]):
            raise Unsupported("the options shown and pointing of KBLaM are of its mode global")
        _Form.of(lm, int(self.options["every"]))

    def fit(self, plug: Plug, fit: Fit) -> History:
        return super().fit(plug, _Pointed(**vars(fit)) if float(self.options["pointing"]) else fit)

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns an untrained plug.

        Raises:
            Unsupported: there are no facts or no vectors, or attention asks no registered function.
        """
        self.check(lm, knowledge)
        return KblamPlug(self, knowledge, lm)
