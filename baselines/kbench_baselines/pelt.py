"""PELT (Ye et al., "A Simple but Effective Pluggable Entity Lookup Table for Pre-trained LMs").

An entity's input vector is made of the frozen model's own outputs where the entity was masked
(section 2). In each of up to 256 sentences that mention it the whole mention becomes *one*
``[MASK]``; ``r_i`` is what the masked-LM head compares with the output embeddings there, the
vector just before them and not the last hidden state::

    r_i  = LN(GELU(W h_mask + b))                        [H]
    E(e) = C * sum_i r_i / || sum_i r_i ||_2             [H], of norm C
    input = ... m_1 ... m_n "(" E(e) ")" ...             for a linked mention m_1 ... m_n

There are no entity vectors to begin with and nothing trains; ``C`` is taken from 1 to 10, on the
dev split of each task. The release marks the place with ``[MASK]`` and appends ``E(e)`` at the
end with that position, which gives the same numbers as writing it into its place.

Unlike the release: padding is not attended to while the vectors are built, an entity without any
occurrence counts as unlinked, and a sentence that recurs counts once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kbench.encoding import Batch, Inputs, Layout, affixes, encode
from kbench.errors import Unsupported, UsageError
from kbench.knowledge import KnowledgeBase, Rows
from kbench.method import Fit, MethodCard, Plug
from kbench.model import FrozenReader, LanguageModel, Reading
from kbench.spec import OptionType
from kbench.store import hidden_bytes
from kbench.training import History
from kbench_baselines.occurrences import Occurrences, Wanted, draw, occurrences
from kbench_baselines.untrained import Untrained

__all__ = ["EntityTable", "Pelt", "before_output"]

_SCALES = (7.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0, 10.0)
"""Values of ``C``; the first is the one published for RoBERTa."""
_FOUND: WeakKeyDictionary[KnowledgeBase, dict[bool, Occurrences]] = WeakKeyDictionary()
"""By knowledge base and by whether its descriptions count."""
_BLOCK = 1 << 13
_PIECE = 4 * _BLOCK
"""Occurrences that are read together at most; of few entities has a block more than its size."""


@final
class EntityTable(Plug):
    """The table of ``E(e) / C``: two buffers, no parameters.

    Args:
        knowledge: gives the control.
        rows: the entities that have a vector, rising. ``[n]``.
        width: ``H``, the size of a word embedding.

    Attributes:
        scale: ``C``.
    """

    rows: Tensor
    vectors: Tensor

    def __init__(self, knowledge: KnowledgeBase, rows: Rows, width: int) -> None:
        super().__init__()
        self.knowledge = knowledge
        self.scale = _SCALES[0]
        self.register_buffer("rows", torch.from_numpy(rows))
        self.register_buffer("vectors", torch.zeros(len(rows), width))
        self._seen: KnowledgeBase | None = None

    def choose(self, value: float) -> None:
        self.scale = value

    def attach(self, lm: LanguageModel) -> AbstractContextManager[None]:
        self._seen = None  # the table may have been computed or loaded since
        return super().attach(lm)

    def slot_vectors(self, rows: Tensor) -> Tensor:
        """Looks entities up, through the control. ``[slots] -> [slots, H]``."""
        if self._seen is None:
            self._seen = self.knowledge.over(self.rows.cpu().numpy(), self.vectors.cpu().numpy())
        return self.scale * self.vectors_of(rows, self._seen)


class _Sums:
    """Sums of ``r`` by entity, in host memory: there they do not change with the threads' order.

    What the network says of a sentence depends neither on the control nor on the seed, so that
    it is read once for all plugs that draw the same occurrences.

    Args:
        fit: gives the frozen network and the device.
        rows: the entities, rising. ``[n]``.
        width: of ``r``.
        most: occurrences that will be read in all, at most.

    Attributes:
        total: ``[n, H]``.
        tokens: read so far.
    """

    def __init__(self, fit: Fit, rows: Rows, width: int, most: int) -> None:
        self.lm = fit.lm
        self.total = torch.zeros(len(rows), width)
        self.tokens = 0
        self._rows = rows
        self._frozen = FrozenReader(fit.lm, fit.device)
        self._keep = self.total.element_size() * most * width <= hidden_bytes()
        title = {"title": "occurrences of entities"}
        self._reading = Reading(title, (width,), self._read, lambda batch: batch.blank_index)

    def add(self, inputs: Inputs, chosen: NDArray[np.int64], rows: Rows) -> None:
        """Adds the chosen ones of some inputs, whose entities are ``rows``."""
        places = np.searchsorted(self._rows, rows)
        self.tokens += int(inputs.lengths[chosen].sum())
        for start in range(0, len(chosen), _PIECE):
            piece = chosen[start : start + _PIECE]
            kept = self._frozen.read(inputs, self._reading, piece, keep=self._keep)
            assert kept is not None, "a piece fits into memory"
            order = np.argsort(kept.states.places[:, 0])  # added as they were read, so as they lie
            result = torch.from_numpy(np.array(kept.states.arrays[0]))
            self.total.index_add_(0, torch.from_numpy(places[piece[order]]), result)

    def _read(self, batch: Batch, positions: Tensor) -> list[Tensor]:
        hidden = self.lm(batch, positions).flatten(0, 1)[positions]
        return [before_output(self.lm, hidden)]


def _encoded(
    lm: LanguageModel, mentions: Occurrences, chosen: NDArray[np.int64], limit: int | None = None
) -> Inputs:
    layout = Layout({}, truncate=False) if limit is None else Layout({}, max_length=limit)
    examples = [mentions.masked(at) for at in chosen.tolist()]
    return encode(lm.tokenizer, examples, [()] * len(examples), layout)


def before_output(lm: LanguageModel, hidden: Tensor) -> Tensor:
    """Returns what the masked-LM head compares with output embeddings. ``[n, width] -> [n, H]``.

    It is read off at the output embedding itself, so that it does not matter how the head is made.

    Raises:
        Unsupported: the head has no output embedding of the size of a word embedding.
    """
    seen: list[Tensor] = []
    output, table = lm.network.get_output_embeddings(), lm.word_embeddings
    # Some say so of a map inside the head (DeBERTa): an output embedding is one of each token.
    if output is not None and len(output.weight) == len(table.weight):
        handle = output.register_forward_pre_hook(
            lambda _, given: seen.append(given[0].flatten(0, -2))
        )
        try:
            lm.predict_tokens(hidden)
        finally:
            handle.remove()
    if not seen or seen[0].shape[-1] != lm.slot_width:
        name = type(lm.network).__name__
        raise Unsupported(f"{name} has no output embeddings of the size of its word embeddings")
    return seen[0]


@final
class Pelt(Untrained):
    """PELT: entity vectors from the frozen model's own outputs at masked mentions.

    Options: ``occurrences`` of an entity at most; ``min_length`` and ``max_length`` of a sentence
    in wordpieces without specials, the mention counting as one (an entity that has no sentence of
    such length keeps those it has, shortened around the mention); ``descriptions``, whether an
    entity's own description counts as a sentence; ``scale``, a ``C`` to use instead of the best.
    """

    card = MethodCard(
        title="PELT",
        paper="A Simple but Effective Pluggable Entity Lookup Table for Pre-trained Language "
        "Models (ACL 2022)",
        year=2022,
        needs="linked sentences or descriptions; a masked-LM head",
        citation="2022.acl-short.57",
        authors="Deming Ye, Yankai Lin, Peng Li, Maosong Sun and Zhiyuan Liu",
        trains="0 (H numbers an entity in closed form)",
    )
    revision = "3"
    slot = "{mention} ( {slot} )"
    defaults: ClassVar[Mapping[str, Any]] = {
        "occurrences": 256,
        "min_length": 8,
        "max_length": 62,
        "descriptions": True,
        "scale": None,
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "occurrences": OptionType("whole number", least=1),
        "min_length": OptionType("whole number", least=0),
        "max_length": OptionType("whole number", least=1),
        "scale": OptionType("number", above=0, null=True),
    }

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        if self.options["min_length"] > self.options["max_length"]:
            raise UsageError(
                f"PELT: min_length is {self.options['min_length']} and max_length "
                f"{self.options['max_length']}; expected a least length up to the greatest"
            )

    def corpus_readings(self) -> float | None:
        """Cannot be said: each entity's occurrences are read, up to so many."""
        return None

    def choices(self) -> Sequence[float]:
        return _SCALES if self.options["scale"] is None else (float(self.options["scale"]),)

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        """Returns whether each entity occurs anywhere."""
        known: NDArray[np.bool_] = np.isin(rows, self._occurrences(knowledge).rows)
        return known

    def check(self, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        if lm.left_to_right or not lm.has_lm_head or lm.tokenizer.mask_token_id is None:
            raise Unsupported("PELT needs a backbone with a masked-LM head")

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns a table of zeros for the entities that occur.

        Raises:
            Unsupported: the backbone has no masked-LM head, or no entity occurs.
        """
        self.check(lm, knowledge)
        rows = np.unique(self._occurrences(knowledge).rows)
        if not len(rows):
            raise Unsupported(
                f"knowledge base {knowledge.name} mentions none of its entities: it has no "
                "linked sentence, and no description that holds a name of its entity"
            )
        plug = EntityTable(knowledge, rows, lm.slot_width)
        plug.choose(self.choices()[0])
        return plug

    def fit(self, plug: Plug, fit: Fit) -> History:
        """Computes the table, block by block; counts what was read and left out."""
        assert isinstance(plug, EntityTable)
        started = time.perf_counter()
        mentions = self._occurrences(fit.knowledge)
        priority = np.random.default_rng(fit.seed).permutation(len(mentions.rows))
        _, often = np.unique(mentions.rows, return_counts=True)
        most = int(np.minimum(often, int(self.options["occurrences"])).sum())
        sums = _Sums(fit, plug.rows.cpu().numpy(), plug.vectors.shape[1], most)
        counts = Counter(
            corpus_occurrences=len(mentions.rows), corpus_occurrences_repeated=mentions.repeated
        )
        if mentions.unnamed:
            counts["corpus_descriptions_without_name"] = mentions.unnamed
        for block in mentions.blocks(_BLOCK):
            counts.update(self._read(sums, mentions, block, priority[block]))
            if fit.progress:
                fit.progress(int(block[-1]) + 1, len(mentions.rows))
        plug.vectors.copy_(F.normalize(sums.total, dim=1))
        return History(
            seconds=time.perf_counter() - started, tokens=sums.tokens, counts=dict(counts)
        )

    def _read(
        self,
        sums: _Sums,
        mentions: Occurrences,
        block: NDArray[np.int64],
        priority: NDArray[np.int64],
    ) -> dict[str, int]:
        """Reads what is drawn of a block of occurrences; returns what was not."""
        lm = sums.lm
        special = affixes(lm.tokenizer)
        around = len(special.before) + len(special.after)
        longest = min(int(self.options["max_length"]), lm.max_length - around)
        wanted = Wanted(int(self.options["occurrences"]), int(self.options["min_length"]), longest)
        whole = _encoded(lm, mentions, block)
        rows, lengths = mentions.rows[block], whole.lengths - around
        drawn = draw(rows, lengths, priority, wanted)
        long = lengths[drawn.chosen] > longest
        sums.add(whole, drawn.chosen[~long], rows)
        if long.any():
            rest = drawn.chosen[long]
            shortened = _encoded(lm, mentions, block[rest], longest + around)
            sums.add(shortened, np.arange(len(rest)), rows[rest])
        return drawn.counts

    def _occurrences(self, knowledge: KnowledgeBase) -> Occurrences:
        """Returns the occurrences in a knowledge base, found once for all that ask alike."""
        true, wanted = knowledge.unbroken, bool(self.options["descriptions"])
        found = _FOUND.setdefault(true, {})
        if wanted not in found:
            found[wanted] = occurrences(true, descriptions=wanted)
        return found[wanted]
