"""A padded batch of tensors, what may be asked of it, and orders in which batches are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kbench.encoding.computing import asynchronous, pinned, sent

__all__ = [
    "BATCH",
    "TOKENS",
    "Batch",
    "BatchStates",
    "Choices",
    "Entities",
    "TreeBatch",
    "picked",
    "ragged",
    "shuffled_batches",
    "sorted_batches",
]

_HOST = frozenset({"slot_rows", "mention_rows", "mention_owners", "examples", "shared"})
_BUCKET = 32
"""Batches whose examples are sorted by length together while training."""
BATCH = 128
"""Examples, or pairs of texts, that a frozen model reads at once, at most."""
TOKENS = 2048
"""Of a batch, padding included: what of it a layer works on then stays in a CPU's cache."""


@dataclass(frozen=True)
class Choices:
    """What the pairs of a batch decide between, where an example is compared with candidates.

    Attributes:
        cells: of each pair, its place in the flattened ``[examples * ways]``. ``[pairs]``.
        examples: how many.
        ways: candidates of an example at most.
    """

    cells: Tensor
    examples: int
    ways: int

    def changed(self, change: Callable[[Tensor], Tensor]) -> Choices:
        """Returns them with the cells changed."""
        return replace(self, cells=change(self.cells))


@dataclass(frozen=True)
class BatchStates:
    """What a frozen network says of a batch, where it was read before.

    Attributes:
        last: hidden states. ``[batch, tokens, width]``.
        beside: whatever else was read of it. ``[batch, tokens, …]`` each.
    """

    last: Tensor
    beside: tuple[Tensor, ...] = ()

    def changed(self, change: Callable[[Tensor], Tensor]) -> BatchStates:
        """Returns it with all tensors changed."""
        return BatchStates(change(self.last), tuple(map(change, self.beside)))


@dataclass(frozen=True)
class TreeBatch:
    """The candidates of a batch, whose tokens stand in the rows of their texts as trees.

    Attributes:
        states: flattened places of the tokens after which one of a candidate is said, by rows of
            the batch. ``[states]``.
        places: for each token of each candidate, which of ``states`` it follows. ``[steps]``.
        targets: these tokens. ``[steps]``.
        cells: place of each one's candidate in the flattened ``[examples * candidates]``.
            ``[steps]``.
        examples: how many.
        candidates: of an example at most.
    """

    states: Tensor
    places: Tensor
    targets: Tensor
    cells: Tensor
    examples: int
    candidates: int

    @property
    def lengths(self) -> Tensor:
        """Tokens of each candidate, 0 for one that an example lacks. ``[examples, candidates]``."""
        ones = torch.ones_like(self.cells)
        count = ones.new_zeros(self.examples * self.candidates).index_add(0, self.cells, ones)
        return count.view(self.examples, self.candidates)

    def changed(self, change: Callable[[Tensor], Tensor]) -> TreeBatch:
        """Returns it with all tensors changed."""
        return replace(
            self,
            states=change(self.states),
            places=change(self.places),
            targets=change(self.targets),
            cells=change(self.cells),
        )

    def picked(self, rows: Tensor, width: int) -> TreeBatch:
        """Returns the candidates of some examples, in rising order, on the host.

        Args:
            rows: which. ``[n]``.
            width: tokens of a row.
        """
        place = torch.full((self.examples,), -1)
        place[rows] = torch.arange(len(rows))
        owners, holders = self.states // width, self.cells // self.candidates
        kept, steps = place[owners] >= 0, place[holders] >= 0
        moved = torch.cumsum(kept, 0) - 1
        own, held = owners[kept], holders[steps]
        return TreeBatch(
            self.states[kept] + (place[own] - own) * width,
            moved[self.places[steps]],
            self.targets[steps],
            self.cells[steps] + (place[held] - held) * self.candidates,
            examples=len(rows),
            candidates=self.candidates,
        )


@dataclass(frozen=True)
class Entities:
    """Whom the texts of a batch speak of, each entity once a text, in the order of its mentions.

    Attributes:
        rows: of the knowledge base, on the host. ``[entities]``.
        owners: place in the batch of each one's text, rising, on the host. ``[entities]``.
    """

    rows: Tensor
    owners: Tensor

    def picked(self, kept: Tensor) -> Entities:
        """Returns those of some texts, in their order. ``[n]``, on the host."""
        place = torch.full((int(torch.cat([self.owners, kept]).max()) + 1,), -1)
        place[kept] = torch.arange(len(kept))
        owners = place[self.owners]
        order = torch.argsort(owners, stable=True)
        order = order[owners[order] >= 0]
        return Entities(self.rows[order], owners[order])

    def seated(self, values: Tensor, texts: int) -> tuple[Tensor, Tensor]:
        """Returns values of entities by their text, with a seat for each.

        Every text has as many seats as the one with the most entities.

        Args:
            values: whatever is said of each of the entities. ``[entities, …]``.
            texts: of the batch.

        Returns:
            ``[texts, seats, …]``, zeros where a seat is empty; and which are taken,
            ``[texts, seats]``, bool. Both where the values are.
        """
        counts = torch.bincount(self.owners, minlength=texts)
        most = int(counts.max()) if len(self.rows) else 0
        first = counts.cumsum(0) - counts
        seats = self.owners * most + torch.arange(len(self.rows)) - first[self.owners]
        empty = values.new_zeros(texts * most, *values.shape[1:])
        filled = empty.index_copy(0, sent(seats, values.device), values)
        taken = sent(torch.arange(most) < counts[:, None], values.device)
        return filled.view(texts, most, *values.shape[1:]), taken


@dataclass(frozen=True)
class Batch:
    """A padded batch.

    Attributes:
        ids: ``[batch, tokens]``.
        mask: 1 for tokens, 0 for padding. ``[batch, tokens]``.
        slot_index: position of each slot in the flattened ``[batch * tokens]``, those of an entity
            one after another. ``[slots]``.
        slot_rows: knowledge-base row of each slot, on the host. ``[slots]``.
        mentions: first token of each mention and the token after its last, flattened likewise;
            mentions without a token are left out. ``[mentions, 2]``.
        mention_rows: knowledge-base row of each, -1 if unlinked, on the host. ``[mentions]``.
        mention_owners: place in the batch of each one's example, rising, on the host.
            ``[mentions]``.
        blank_index: flattened position of each example's blank; empty if the task has none.
            ``[batch]``.
        examples: index of each example in its :class:`~kbench.encoding.Inputs`. ``[batch]``.
        targets: what the head's loss wants, or None.
        segments: 1 for tokens of passages; None without. ``[batch, tokens]``.
        positions: position ids counted from 0 where they are not those of the places; else None.
            ``[batch, tokens]``.
        visible: which token (second) each token (first) may attend to, where that is not simply
            ``mask``; else None. ``[batch, tokens, tokens]``, bool.
        choices: what is decided between, where the batch is of pairs of texts; else None.
        states: what the network says, where it need not be asked again; else None.
        tree: candidates of each example that stand in its row, where it has such; else None.
        shared: how many tokens all inputs begin with alike, slots and mentions among them, and the
            number of those that do; None where they do not.
        more: the same inputs with the rest of their candidates, where one row has no room for all.
        slots_each: slots of an entity.
        before: whom the texts spoke of before what is in this batch, where a text is gone on with.
        reach: what all position ids are below, where the host knows it to be less than there are
            columns in ``mask``; else None.
    """

    ids: Tensor
    mask: Tensor
    slot_index: Tensor
    slot_rows: Tensor
    mentions: Tensor
    mention_rows: Tensor
    mention_owners: Tensor
    blank_index: Tensor
    examples: Tensor
    targets: Tensor | None = None
    segments: Tensor | None = None
    positions: Tensor | None = None
    visible: Tensor | None = None
    choices: Choices | None = None
    states: BatchStates | None = None
    tree: TreeBatch | None = None
    shared: tuple[int, int] | None = None
    more: tuple[Batch, ...] = ()
    slots_each: int = 1
    before: Entities | None = None
    reach: int | None = None

    @property
    def parts(self) -> tuple[Batch, ...]:
        """The same inputs once for each part of their candidates."""
        return (replace(self, more=()), *self.more) if self.more else (self,)

    @property
    def entities(self) -> Entities:
        """Whom the texts speak of, at the steps of an answer too; for plugs without slots."""
        if self.before is not None:
            return self.before
        linked = self.mention_rows >= 0
        pairs = torch.stack([self.mention_owners[linked], self.mention_rows[linked]], 1).numpy()
        first = np.sort(np.unique(pairs, axis=0, return_index=True)[1])
        owners, rows = torch.from_numpy(pairs[first]).unbind(1)
        return Entities(rows, owners)

    def to(self, device: torch.device) -> Batch:
        """Moves what the model reads; rows stay on the host, where the knowledge base is."""
        return self if device.type == "cpu" else self._changed(lambda value: sent(value, device))

    def ready(self, device: torch.device) -> Batch:
        """Puts what will be moved into memory that a GPU copies from by itself."""
        if not asynchronous(device):
            return self
        return self._changed(lambda value: pinned(value, device))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Changes all tensors but those of the host."""
        changed: dict[str, Any] = {}
        for name in (field.name for field in fields(self) if field.name not in _HOST):
            value = getattr(self, name)
            if name == "more":
                changed[name] = tuple(part._changed(change) for part in self.more)
            elif isinstance(value, Choices | BatchStates | TreeBatch):
                changed[name] = value.changed(change)
            elif isinstance(value, Tensor):
                changed[name] = change(value)
        return replace(self, **changed)


def ragged(
    bounds: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flat indices of the chosen examples' items, and the place in ``chosen`` of each one's owner.

    An example with items 5..7 at place 2 gives indices 5, 6, 7 and owners 2, 2, 2.
    """
    counts = (bounds[1:] - bounds[:-1])[chosen]
    owner = np.repeat(np.arange(len(chosen)), counts)
    first = np.cumsum(counts) - counts
    within = np.arange(len(owner)) - first[owner]
    return bounds[chosen][owner] + within, owner


def picked(batch: Batch, rows: Tensor, width: int) -> Batch:
    """Returns some inputs of a batch, cut to ``width`` tokens; without targets, choices, states.

    Args:
        batch: on the host.
        rows: which, in this order; a rising one where they have trees of candidates. ``[n]``.
        width: no less than the tokens of the longest of them; with trees that of the batch.
    """
    size, before = batch.ids.shape
    place = torch.full((size,), -1)
    place[rows] = torch.arange(len(rows))

    def moved(positions: Tensor) -> tuple[Tensor, Tensor]:
        """Which of some positions are kept, and where those are now."""
        first = positions if positions.dim() == 1 else positions[:, 0]
        owner = place[first // before]
        kept = torch.nonzero(owner >= 0).flatten()
        kept = kept[torch.argsort(owner[kept], stable=True)]
        shift = owner[kept] * width - first[kept] // before * before
        return kept, positions[kept] + (shift if positions.dim() == 1 else shift[:, None])

    slots, slot_index = moved(batch.slot_index)
    spans, mentions = moved(batch.mentions)
    cut: dict[str, Any] = {
        name: None if (value := getattr(batch, name)) is None else value[rows, :width]
        for name in ("ids", "mask", "segments", "positions", "visible")
    }
    if batch.visible is not None:
        cut["visible"] = batch.visible[rows, :width, :width]
    return replace(
        batch,
        **cut,
        slot_index=slot_index,
        slot_rows=batch.slot_rows[slots],
        mentions=mentions,
        mention_rows=batch.mention_rows[spans],
        mention_owners=place[batch.mention_owners[spans]],
        blank_index=moved(batch.blank_index)[1],
        examples=batch.examples[rows],
        targets=None,
        choices=None,
        tree=batch.tree and batch.tree.picked(rows, before),
        more=tuple(picked(part, rows, part.ids.shape[1]) for part in batch.more),
        states=batch.states and batch.states.changed(lambda hidden: hidden[rows, :width]),
        before=batch.before and batch.before.picked(rows),
    )


def sorted_batches(
    lengths: NDArray[np.int64],
    size: int,
    tokens: int | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Iterator[NDArray[np.int64]]:
    """Yields indices by falling length, so that padding is least and memory peaks first.

    Args:
        lengths: tokens of each. ``[n]``.
        size: of a batch at most.
        tokens: of a batch at most, padding included, but for a single one that is longer.
        groups: of which number each is, where no batch may be of several; one group after the
            other, that of the longest first. ``[n]``.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.array([len(order)])
    if groups is not None:
        first = np.zeros(int(groups.max(initial=0)) + 1, dtype=np.int64)
        first[groups[order[::-1]]] = np.arange(len(order))[::-1]
        order = order[np.argsort(first[groups[order]], kind="stable")]
        ends = np.append(np.flatnonzero(np.diff(groups[order])) + 1, len(order))
    start = 0
    while start < len(order):
        room = size if tokens is None else tokens // max(1, int(lengths[order[start]]))
        end = start + max(1, min(size, room))
        end = min(end, int(ends[np.searchsorted(ends, start, "right")]))
        yield order[start:end]
        start = end


def shuffled_batches(
    lengths: NDArray[np.int64], size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yields every index once, in random batches of similar length, in random order."""
    order = rng.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), size * _BUCKET):
        bucket = order[start : start + size * _BUCKET]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [bucket[at : at + size] for at in range(0, len(bucket), size)]
    for number in rng.permutation(len(batches)):
        yield batches[number]
