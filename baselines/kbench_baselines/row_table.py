"""What is made of entities when they are first asked for, and held from then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from torch import Tensor

from kbench.encoding import sent
from kbench.knowledge import Rows

__all__ = ["RowTable"]


@final
class RowTable:
    """One tensor of a fixed shape for each row that was asked for.

    Args:
        rows: of the knowledge base.
        make: gives them of rows, each once and rising: ``[n] -> [n, …]``; without gradients.
    """

    def __init__(self, rows: int, make: Callable[[Rows], Tensor]) -> None:
        self._make = make
        self._place = np.full(rows, -1, dtype=np.int64)
        self._count = 0
        self._held: Tensor | None = None

    def of(self, rows: Rows) -> Tensor:
        """Returns those of rows. ``[n] -> [n, …]``."""
        new = np.unique(rows[self._place[rows] < 0])
        if len(new) or self._held is None:
            with torch.inference_mode(False), torch.no_grad():
                self._hold(new, self._make(new))
        assert self._held is not None
        places = torch.from_numpy(self._place[rows])
        return self._held[sent(places, self._held.device)]

    def _hold(self, rows: Rows, made: Tensor) -> None:
        """Puts them behind those that are there; the room doubles where it ends."""
        held, end = self._held, self._count + len(rows)
        if held is None or end > len(held):
            room = max(end, 2 * self._count)
            larger = made.new_zeros(room, *made.shape[1:])
            if held is not None:
                larger[: self._count] = held[: self._count]
            self._held = held = larger
        held[self._count : end] = made
        self._place[rows] = np.arange(self._count, end)
        self._count = end
