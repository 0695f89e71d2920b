"""Batches in parts: as many examples at once as the memory of a device holds.

A batch that does not fit is halved and tried again, until it fits. What comes out is that of the
whole batch but for rounding; what was tried in vain leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from kbench.encoding.batch import Batch, Choices, picked
from kbench.encoding.computing import random_state, release, restore_random
from kbench.errors import KbenchError

__all__ = ["MicroBatches", "examples_in", "split", "targets_in"]

T = TypeVar("T")


class MicroBatches:
    """How many examples are computed at once.

    Args:
        size: at most; None for whole batches, as long as they fit.
        device: where; what it draws at random is drawn again for what is tried again.
    """

    def __init__(self, size: int | None, device: torch.device) -> None:
        self.size = size
        self._device = device

    def compute(self, batch: Batch, attempt: Callable[[Sequence[Batch]], T]) -> T:
        """Computes a batch in one part or several; parts stay smaller once memory was short.

        Args:
            batch: on the host.
            attempt: computes from the parts, on the host, in order.

        Raises:
            KbenchError: a single example is too large, or the batch cannot be parted.
        """
        drawn = random_state(self._device)
        while True:
            parts = [batch] if self.size is None else split(batch, self.size)
            try:
                return attempt(parts)
            except torch.OutOfMemoryError as error:
                reason = str(error).split(". ")[0]
            # Only here, where the error no longer holds the tensors of what was tried.
            self._shrink(max(map(examples_in, parts)), reason)
            release(self._device)
            restore_random(drawn, self._device)

    def _shrink(self, tried: int, reason: str) -> None:
        if tried == 1:
            raise KbenchError(
                f"one example at a time is still too much for the memory of {self._device} "
                f"({reason}); use a smaller backbone, shorter inputs or --dtype bfloat16, or "
                "see who else uses the device"
            )
        self.size = (tried + 1) // 2


def examples_in(batch: Batch) -> int:
    """Returns the number of examples of a batch; the pairs of one example are one."""
    return len(batch.ids) if batch.choices is None else batch.choices.examples


def targets_in(batch: Batch) -> int:
    """Returns what the loss of a batch is the mean over: its targets, ignored ones (-1) left out.

    Args:
        batch: on the host.
    """
    targets = batch.targets
    if targets is None:
        return examples_in(batch)
    if targets.is_floating_point():
        return len(targets)
    return int((targets >= 0).sum())


def split(batch: Batch, size: int) -> list[Batch]:
    """Parts a batch by examples; padding stays as it is.

    Args:
        batch: on the host.
        size: examples of a part at most.

    Raises:
        KbenchError: its targets are neither one an example nor one a blank.
    """
    count = examples_in(batch)
    if size >= count:
        return [batch]
    return [_part(batch, start, min(start + size, count)) for start in range(0, count, size)]


def _part(batch: Batch, start: int, end: int) -> Batch:
    """Returns the examples from ``start`` to before ``end``."""
    choices, first, last = _rows(batch, start, end)
    width = batch.ids.shape[1]
    blanks = (batch.blank_index >= first * width) & (batch.blank_index < last * width)
    return replace(
        picked(batch, torch.arange(first, last), width),
        targets=_targets(batch, blanks, slice(start, end)),
        choices=choices,
    )


def _rows(batch: Batch, start: int, end: int) -> tuple[Choices | None, int, int]:
    """Returns the choices of some examples, and the rows of the batch that are theirs."""
    choices = batch.choices
    if choices is None:
        return None, start, end
    owners = choices.cells // choices.ways  # rising: the pairs of an example are side by side
    first, last = torch.searchsorted(owners, torch.tensor([start, end])).tolist()
    cells = choices.cells[first:last] - start * choices.ways
    return Choices(cells, end - start, choices.ways), first, last


def _targets(batch: Batch, blanks: Tensor, examples: slice) -> Tensor | None:
    if batch.targets is None:
        return None
    if len(batch.targets) == len(blanks):
        return batch.targets[blanks]
    if len(batch.targets) == examples_in(batch):
        return batch.targets[examples]
    raise KbenchError(
        f"a batch of {examples_in(batch)} examples does not fit into memory, and its "
        f"{len(batch.targets)} targets cannot be parted; lower batch_size"
    )
