"""The linked mentions of a batch, seated by example: for methods that work inside the layers.

Each example has as many seats as the one with the most linked mentions, so that attention among
an example's entities is one padded product, and examples without any are left out altogether.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kbench.encoding import Batch, sent
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase

__all__ = ["Linked", "linked", "vector_width"]


@dataclass(frozen=True)
class Linked:
    """The linked mentions of a batch.

    Attributes:
        rows: knowledge-base row of each, on the host. ``[mentions]``.
        spans: first token of each and the token after its last, in the flattened
            ``[batch * tokens]``. ``[mentions, 2]``.
        examples: place in the batch of each example that has a linked mention. ``[examples]``.
        seats: of each mention in the flattened ``[examples * seats]``. ``[mentions]``.
        taken: which seats a mention has. ``[examples, seats]``, bool.
    """

    rows: Tensor
    spans: Tensor
    examples: Tensor
    seats: Tensor
    taken: Tensor

    def seated(self, values: Tensor) -> Tensor:
        """Seats values of mentions: ``[mentions, …]`` to ``[examples, seats, …]``, else zeros."""
        empty = values.new_zeros(self.taken.numel(), *values.shape[1:])
        filled = empty.index_copy(0, self.seats, values)
        return filled.view(*self.taken.shape, *values.shape[1:])

    def unseated(self, values: Tensor) -> Tensor:
        """Undoes :meth:`seated`: ``[examples, seats, …]`` to ``[mentions, …]``."""
        return values.flatten(0, 1)[self.seats]


def vector_width(knowledge: KnowledgeBase) -> int:
    """Returns the width of a knowledge base's entity vectors.

    Raises:
        Unsupported: it has none.
    """
    if not knowledge.dimension:
        raise Unsupported(
            f"knowledge base {knowledge.name} has no entity vectors: see `kbench knowledge train`"
        )
    return knowledge.dimension


def linked(batch: Batch) -> Linked | None:
    """Returns the linked mentions of a batch; None if it has none.

    Seats are counted on the host, where rows are, so that a device is never waited for.
    """
    which = torch.nonzero(batch.mention_rows >= 0)[:, 0]
    if not len(which):
        return None
    examples, owner, counts = torch.unique_consecutive(
        batch.mention_owners[which], return_inverse=True, return_counts=True
    )
    first = counts.cumsum(0) - counts
    most = int(counts.max())
    seats = owner * most + torch.arange(len(which)) - first[owner]
    device = batch.ids.device
    return Linked(
        rows=batch.mention_rows[which],
        spans=batch.mentions[sent(which, device)],
        examples=sent(examples, device),
        seats=sent(seats, device),
        taken=sent(torch.arange(most) < counts[:, None], device),
    )
