"""What a network makes of entities when they are first asked for, held until its weights change."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from kbench.encoding import sent
from kbench.knowledge import Rows

__all__ = ["RowTable", "version"]


def version(module: nn.Module) -> int:
    """Returns a number that rises whenever a weight of a module is changed in place."""
    return sum(weight._version for weight in module.parameters())


@final
class RowTable:
    """One tensor of a fixed shape for each row that was asked for.

    A network that is tuned around a plug makes others at each step: where a weight has changed,
    nothing is known any more, so that the network as it was tuned is asked in the end.

    Args:
        rows: of the knowledge base.
        make: gives them of rows, each once and rising: ``[n] -> [n, …]``; without gradients.
        network: by whose weights they are made.
    """

    def __init__(self, rows: int, make: Callable[[Rows], Tensor], network: nn.Module) -> None:
        self._make, self._network = make, network
        self._version = version(network)
        self._place = np.full(rows, -1, dtype=np.int64)
        self._count = 0
        self._held: Tensor | None = None

    def of(self, rows: Rows) -> Tensor:
        """Returns those of rows. ``[n] -> [n, …]``."""
        if self._version != (now := version(self._network)):
            self._version, self._count = now, 0
            self._place[:] = -1
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
