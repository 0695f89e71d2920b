"""PRAG's document weights: a small LoRA for each text, many of them in one batch.

Su et al., "Parametric Retrieval Augmented Generation". For each linear map of a feed-forward
network, ``y = W x + b``, the text of an entity ``e`` has factors of its own::

    y = W x + b + (alpha / r) Σ_e U_e D_e x        D_e: [r, in], U_e: [out, r]

summed over the entities that an input speaks of. They are learned from the text alone, the network
frozen: ``D`` begins at random, the same of all texts, and ``U`` at zero. Lessons of a text are the
text itself and up to ``facts`` lines ``head relation tail .`` of its entity's facts, those of the
commonest relation first; the loss is the mean over all their tokens of what comes next::

    loss_e = mean_t -log p( w_t | w_1 … w_t-1 ; U_e D_e )

In a network that reads both ways a seventh of the tokens of each lesson is masked, another one at
each step. A step is taken over all lessons of a text (AdamW, a constant rate); the recipe's
``learning_rate``, ``epochs`` (steps) and ``batch_size`` (texts that learn side by side, each for
itself) are what it reads of the recipe.

**When.** A text is learned when it is first spoken of, by the network that the plug is attached to,
and its factors are kept: a knowledge base may have more entities than anybody asks about. The plug
itself holds where ``D`` begins, and the recipe. So the seconds of learning are those of evaluation.

Published lessons are three questions with answers and a rewriting that a language model makes of
the text, read one at a time (r = 2, alpha = 32, 3e-4, one or two epochs); here nothing is made up,
and the base's own facts stand for questions. The release (no licence; not copied) loads, merges and
takes out the factors of one question after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, ClassVar, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kbench.corpus import check_masked_lm
from kbench.data import Example
from kbench.encoding import (
    Batch,
    Entities,
    Inputs,
    Layout,
    TokenKind,
    affixes,
    encode,
    ragged,
    sent,
)
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase
from kbench.method import Fit, MethodCard, Plug
from kbench.model import LanguageModel, dropout
from kbench.spec import OptionType, Setting
from kbench.task import Family
from kbench.training import History, Recipe
from kbench_baselines.retrieval import Told, facts_in_order
from kbench_baselines.row_table import version

__all__ = ["Learned", "Prag", "PragPlug"]

_BYTES = 1 << 30
"""Of factors that are held for entities that are not being read of."""
_MASKED = 7
"""One in so many tokens is masked."""

# Of the release on PopQA: two epochs over some ten lessons, one at a time.
_PUBLISHED = Recipe(
    learning_rate=3e-4, batch_size=16, epochs=20, weight_decay=0.0, decay="constant"
)


@final
class PragPlug(Plug):
    """Where the factors of every text begin, and how they learn; it has no parameters.

    Args:
        method: says what is told of an entity, and the rank.
        knowledge: whose texts they are.
        lm: the network.
    """

    def __init__(self, method: Prag, knowledge: KnowledgeBase, lm: LanguageModel) -> None:
        super().__init__()
        self.method, self.knowledge = method, knowledge
        self.rank, self.scale = int(method.options["rank"]), _scale(method.options)
        self.maps = _feed_forward(lm)
        self.sizes = [
            (own.inputs, own.outputs)
            for layer, name in self.maps
            for own in [lm.linear_maps(layer)[name]]
        ]
        begins = [torch.rand(self.rank, given) * 2 - 1 for given, _ in self.sizes]
        flat = [own.flatten() * own.shape[1] ** -0.5 for own in begins]
        self.register_buffer("begin", torch.cat(flat))
        self.register_buffer("rate", torch.tensor(_PUBLISHED.learning_rate))
        self.register_buffer("steps", torch.tensor(_PUBLISHED.epochs))
        self.register_buffer("together", torch.tensor(_PUBLISHED.batch_size))
        self.begin: Tensor
        self.rate: Tensor
        self.steps: Tensor
        self.together: Tensor
        self._learned: WeakKeyDictionary[LanguageModel, Learned] = WeakKeyDictionary()

    def learn_by(self, recipe: Recipe) -> None:
        """Notes how texts are learned."""
        self.rate.fill_(recipe.learning_rate)
        self.steps.fill_(recipe.epochs)
        self.together.fill_(recipe.batch_size)

    def factors(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns ``D`` and ``U`` of each map: ``[texts, r, in]`` and ``[texts, out, r]``.

        Args:
            flat: of texts, one after another, all ``D`` before all ``U``. ``[texts, numbers]``.
        """
        rank, count = self.rank, len(flat)
        inner = [rank * given for given, _ in self.sizes]
        outer = [rank * made for _, made in self.sizes]
        parts = torch.split(flat, [*inner, *outer], 1)
        half = len(self.sizes)
        return [
            (down.view(count, rank, -1), up.view(count, -1, rank))
            for down, up in zip(parts[:half], parts[half:], strict=True)
        ]

    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        learned = self._learned.get(lm)
        if learned is None or not learned.of_now(lm):
            learned = self._learned[lm] = Learned(self, lm)
        with ExitStack() as stack:
            for number, (layer, name) in enumerate(self.maps):
                factors = partial(learned.factors, number)
                stack.enter_context(lm.linear_maps(layer)[name].with_low_rank(factors))
            stack.enter_context(lm.preparing(partial(learned.prepare, lm)))
            yield


class Learned:
    """The factors of the texts of entities, as one network has learned them.

    Args:
        plug: says how.
        lm: the network.
    """

    def __init__(self, plug: PragPlug, lm: LanguageModel) -> None:
        self._factors, self._scale = plug.factors, plug.scale
        self._lessons = partial(_Lessons.of, plug.method, plug.knowledge)
        self._begin, self._outputs = plug.begin, plug.rank * sum(made for _, made in plug.sizes)
        self._rate, self._steps = float(plug.rate), int(plug.steps)
        self._together = int(plug.together)
        self._version = version(lm)
        self._known: dict[int, Tensor] = {}
        self._asked: Any = None
        self._now: list[tuple[Tensor, Tensor]] | None = None

    def of_now(self, lm: LanguageModel) -> bool:
        """Whether the network's weights are still those that were learned beside."""
        return self._version == version(lm)

    def factors(self, number: int, _: Batch) -> tuple[Tensor, Tensor] | None:
        """What a map's output gets in each row of what is being read; None for nothing."""
        return None if self._now is None else self._now[number]

    def prepare(self, lm: LanguageModel, batch: Batch) -> None:
        """Lays out the factors of those whom a batch speaks of; learns what is not known."""
        told = batch.entities
        asked = told.rows.tolist(), told.owners.tolist(), len(batch.ids)
        if not asked[0]:
            self._asked = self._now = None
        elif asked != self._asked:
            rows = list(dict.fromkeys(asked[0]))
            self._now = None
            self.learn(lm, [row for row in rows if row not in self._known])
            flat = torch.stack([self._known[row] for row in asked[0]])
            self._now = [self._laid_out(told, asked[2], own) for own in self._factors(flat)]
            self._asked = asked
            self._forget(rows)

    def _laid_out(
        self, told: Entities, texts: int, own: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The factors of entities side by side in their texts: what they add is added up."""
        down, up = (told.seated(part, texts)[0] for part in own)
        return down.flatten(1, 2), up.transpose(1, 2).flatten(2)

    def learn(self, lm: LanguageModel, rows: Sequence[int]) -> None:
        """Learns the texts of entities, some side by side, each for itself."""
        if not rows:
            return
        device = self._begin.device
        quiet = torch.autocast(device.type, enabled=False)
        with torch.inference_mode(False), torch.enable_grad(), dropout(lm, None), quiet:
            lessons = self._lessons(lm, rows)
            for some in lessons.groups(self._together):
                for at, own in zip(some.tolist(), self._taught(lm, lessons, some), strict=True):
                    self._known[rows[at]] = own

    def _taught(self, lm: LanguageModel, lessons: _Lessons, some: NDArray[np.int64]) -> Tensor:
        """The factors of some texts after their lessons. ``[texts, numbers]``."""
        zeros = self._begin.new_zeros(self._outputs)
        flat = torch.cat([self._begin, zeros]).repeat(len(some), 1).requires_grad_()
        optimizer = torch.optim.AdamW([flat], lr=self._rate, weight_decay=0.0)
        try:
            for step in range(self._steps):
                batch, owner, weights = lessons.batch(some, step, flat.device)
                self._now = [
                    (down[owner], self._scale * up[owner]) for down, up in self._factors(flat)
                ]
                hidden = lm(batch, batch.blank_index).flatten(0, 1)[batch.blank_index]
                said = lm.predict_tokens(hidden).float()
                assert batch.targets is not None
                losses = F.cross_entropy(said, batch.targets, reduction="none")
                (flat.grad,) = torch.autograd.grad((weights * losses).sum(), [flat])
                optimizer.step()
        finally:
            self._now = None
        taught = flat.detach()
        taught[:, len(self._begin) :] *= self._scale
        return taught

    def _forget(self, rows: Sequence[int]) -> None:
        """Lets go of what is known of others, where that is too much."""
        if sum(own.nbytes for own in self._known.values()) > _BYTES:
            self._known = {row: self._known[row] for row in rows}


@dataclass(frozen=True)
class _Lessons:
    """Texts to learn, as tokens.

    Attributes:
        inputs: of all entities, one after the other.
        bounds: where those of each entity begin. ``[entities + 1]``.
        masked: the token that stands for another; None where what comes next is learned.
    """

    inputs: Inputs
    bounds: NDArray[np.int64]
    masked: int | None

    @classmethod
    def of(
        cls, method: Prag, knowledge: KnowledgeBase, lm: LanguageModel, rows: Sequence[int]
    ) -> _Lessons:
        """Encodes the lessons of entities."""
        texts = [method.lessons(knowledge, row) for row in rows]
        examples = [Example("", text, (), "") for several in texts for text in several]
        special = affixes(lm.tokenizer)
        most = int(method.options["room"]) + len(special.before) + len(special.after)
        layout = Layout({}, max_length=min(most, lm.max_length), left_to_right=lm.left_to_right)
        inputs = encode(lm.tokenizer, examples, [()] * len(examples), layout)
        bounds = np.array([0, *accumulate(map(len, texts))], dtype=np.int64)
        return cls(inputs, bounds, None if lm.left_to_right else int(lm.tokenizer.mask_token_id))

    def groups(self, together: int) -> Iterator[NDArray[np.int64]]:
        """Yields the numbers of entities that learn side by side, of like length."""
        longest = [int(self.inputs.lengths[a:b].max()) for a, b in pairwise(self.bounds.tolist())]
        order = np.argsort(longest, kind="stable")
        for start in range(0, len(order), together):
            yield order[start : start + together]

    def batch(
        self, some: NDArray[np.int64], step: int, device: torch.device
    ) -> tuple[Batch, Tensor, Tensor]:
        """Returns the lessons of some entities as one batch.

        Returns:
            The batch, with blanks and targets; the place of each row's entity, ``[rows]``; and the
            share of each blank in its entity's loss, ``[blanks]``.
        """
        chosen, owner = ragged(self.bounds, some)
        batch = self.inputs.collate(chosen)
        rows, places = self._asked(chosen, step)
        holder = owner[rows]
        weights = 1.0 / np.bincount(holder, minlength=len(some))[holder]
        flat = torch.from_numpy(rows * batch.ids.shape[1] + places)
        ids = batch.ids.flatten()
        targets = ids[flat]
        if self.masked is not None:
            ids[flat] = self.masked
        batch = replace(
            batch,
            ids=ids.view_as(batch.ids),
            blank_index=flat if self.masked is not None else flat - 1,
            targets=targets,
        )
        shares = torch.from_numpy(weights.astype(np.float32))
        return batch.to(device), sent(torch.from_numpy(owner), device), sent(shares, device)

    def _asked(
        self, chosen: NDArray[np.int64], step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The row and the place of each token that is asked for at a step. ``[asked]`` each."""
        rows, places = [], []
        for row, number in enumerate(chosen.tolist()):
            start, end = self.inputs.bounds[number : number + 2].tolist()
            own = np.flatnonzero(self.inputs.kinds[start:end] == TokenKind.TEXT)
            if self.masked is None:
                own = own[own > 0]  # nothing stands before the first
            elif len(own):
                own = own[step % min(_MASKED, len(own)) :: _MASKED]
            rows.append(np.full(len(own), row))
            places.append(own)
        return np.concatenate(rows), np.concatenate(places)


def _feed_forward(lm: LanguageModel) -> list[tuple[int, str]]:
    """The linear maps of feed-forward networks: layer and name of each."""
    return [
        (layer, name)
        for layer in range(len(lm.layers))
        for name, own in lm.linear_maps(layer).items()
        if not own.of_attention
    ]


def _scale(options: Mapping[str, Any]) -> float:
    return float(options["alpha"]) / int(options["rank"])


@final
class Prag(Told):
    """PRAG: the text of an entity as a change of low rank of the feed-forward networks.

    Options: ``rank`` and ``alpha``; ``facts``, lines of facts among a text's lessons at most;
    ``text`` and ``room``, the tokens of a lesson at most. As of ``kv-text`` there is no
    fine-tuning: what is learned is learned beside the model as it is.
    """

    card = MethodCard(
        title="PRAG",
        paper="Parametric Retrieval Augmented Generation (SIGIR 2025)",
        year=2025,
        needs="descriptions or facts; a head that predicts tokens",
        citation="arXiv:2501.15915",
        authors="Weihang Su, Yichen Tang, Qingyao Ai, Junxi Yan, Changyue Wang, Hongning Wang, "
        "Ziyi Ye, Yujia Zhou and Yiqun Liu",
        trains="r (in + out) of each feed-forward map, for each text; the plug itself 0",
    )
    revision = "1"
    settings: ClassVar[frozenset[Setting]] = frozenset({Setting.GENERAL})
    trains = True
    reads_text = True
    recipe_fields: ClassVar[frozenset[str]] = frozenset({"learning_rate", "epochs", "batch_size"})
    defaults: ClassVar[Mapping[str, Any]] = {
        "rank": 2,
        "alpha": 32.0,
        "facts": 3,
        "room": 128,
        "text": "description",
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        **Told.option_types,
        "rank": OptionType("whole number", least=1),
        "alpha": OptionType("number", above=0),
        "facts": OptionType("whole number", least=0),
    }

    def recipe(self, setting: Setting, family: Family | None, task: str | None) -> Recipe:
        """Returns how the text of an entity is learned."""
        return _PUBLISHED

    def check(self, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        if not lm.left_to_right:
            check_masked_lm(lm)
        if not _feed_forward(lm):
            raise Unsupported(
                f"the layers of {type(lm.base).__name__} have no linear maps beside attention"
            )

    def lessons(self, knowledge: KnowledgeBase, row: int) -> list[str]:
        """Returns what is learned of an entity: its text, and facts."""
        facts = facts_in_order(knowledge, row)[: int(self.options["facts"])]
        return knowledge.shown(row, [" ".join(self.passages(knowledge, row)), *facts])

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns a plug that has learned no text yet.

        Raises:
            Unsupported: the backbone does not predict tokens, or there is nothing to tell.
        """
        self.check(lm, knowledge)
        super().build(lm, knowledge)
        return PragPlug(self, knowledge, lm)

    def fit(self, plug: Plug, fit: Fit) -> History:
        assert isinstance(plug, PragPlug)
        plug.learn_by(fit.recipe)
        return super().fit(plug, fit)
