"""Inputs to padded tensors: length-bucketed orders and the gathers of one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kbench.encoding import Inputs

__all__ = ["Batch", "collate", "ragged", "shuffled_batches", "sorted_batches"]

_BUCKET = 32
"""Batches whose examples are sorted by length together while training."""


@dataclass(frozen=True)
class Batch:
    """A padded batch.

    Attributes:
        ids: ``[batch, tokens]``.
        mask: 1 for tokens, 0 for padding. ``[batch, tokens]``.
        slot_index: position of each slot in the flattened ``[batch * tokens]``. ``[slots]``.
        slot_rows: knowledge-base row of each slot, on the host. ``[slots]``.
        blank_index: flattened position of each example's blank; empty if the task has none.
            ``[batch]``.
        examples: index of each example in its :class:`~kbench.encoding.Inputs`. ``[batch]``.
        targets: what the head's loss wants, or None.
    """

    ids: Tensor
    mask: Tensor
    slot_index: Tensor
    slot_rows: Tensor
    blank_index: Tensor
    examples: Tensor
    targets: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Moves what the model reads; rows stay on the host, where the knowledge base is."""
        if device.type == "cpu":
            return self
        moved = {}
        for field in fields(self):
            value = getattr(self, field.name)
            host = value is None or field.name in {"slot_rows", "examples"}
            moved[field.name] = value if host else value.to(device, non_blocking=True)
        return Batch(**moved)


def collate(
    inputs: Inputs, chosen: NDArray[np.int64], targets: NDArray[np.generic] | None = None
) -> Batch:
    """Gathers examples into a batch padded to its own longest."""
    lengths = inputs.lengths[chosen]
    width = int(lengths.max())
    steps = np.arange(width)
    mask = steps < lengths[:, None]
    at = np.minimum(inputs.bounds[chosen][:, None] + steps, len(inputs.ids) - 1)
    ids = np.where(mask, inputs.ids[at], inputs.pad)
    slots, owner = ragged(inputs.slot_bounds, chosen)
    blanks = inputs.blanks[chosen]
    places = np.arange(len(chosen)) * width + blanks
    return Batch(
        ids=torch.from_numpy(ids),
        mask=torch.from_numpy(mask.astype(np.int64)),
        slot_index=torch.from_numpy(owner * width + inputs.slots[slots]),
        slot_rows=torch.from_numpy(inputs.slot_rows[slots]),
        blank_index=torch.from_numpy(places if (blanks >= 0).all() else places[:0]),
        examples=torch.from_numpy(chosen),
        targets=None if targets is None else torch.from_numpy(targets[chosen]),
    )


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


def sorted_batches(lengths: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Yields indices by falling length, so that padding is least and memory peaks first."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


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
