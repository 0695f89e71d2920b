"""What can be trained on: batches of chosen items, with targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kbench.encoding.batch import Batch
from kbench.encoding.inputs import Encoded

__all__ = ["Data", "Examples"]


class Data(Protocol):
    """What can be trained on: batches of chosen items."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each item. ``[items]``."""

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a batch with targets, on the host.

        On a GPU it is called in a thread of its own, ahead of the steps, in their order.
        """


@dataclass(frozen=True)
class Examples:
    """A task's examples: inputs and the head's targets."""

    inputs: Encoded
    targets: NDArray[Any]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example. ``[examples]``."""
        return self.inputs.lengths

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a padded batch with targets."""
        return self.inputs.collate(chosen, self.targets)
