"""A transformer's parts at the width of entity vectors, normalised after the sum as in BERT."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

__all__ = ["DROPOUT", "Attention", "Block", "heads_for"]

DROPOUT = 0.1
"""Of attention and of what is added to a stream, as in BERT."""


def heads_for(width: int) -> int:
    """Returns 4, or the most heads below that divide the width."""
    return next(heads for heads in (4, 3, 2, 1) if width % heads == 0)


@final
class Attention(nn.Module):
    """``LN(x + Dropout(W_o A + b_o))``, ``A`` the attention of ``x`` over others.

    ``4 d^2 + 6 d`` parameters.

    Args:
        width: ``d``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = heads_for(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, states: Tensor, others: Tensor, taken: Tensor) -> Tensor:
        """Attends.

        Args:
            states: ``x``, the queries. ``[n, queries, d]``.
            others: keys and values. ``[n, others, d]``.
            taken: which others are there, at least one for each of ``n``. ``[n, others]``, bool.
        """
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(states), self.key(others), self.value(others))
        )
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=taken[:, None, None, :],
            dropout_p=DROPOUT if self.training else 0.0,
        )
        added = self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        result: Tensor = self.norm(states + added)
        return result


@final
class Block(nn.Module):
    """A transformer layer: attention, then ``LN(x + Dropout(W_2 GELU(W_1 x + b_1) + b_2))``.

    Args:
        width: ``d``.
        inner: ``f``, the width between ``W_1`` and ``W_2``; ``2 d f + f + 3 d`` parameters more.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.attention = Attention(width)
        self.feed = nn.Sequential(
            nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width), nn.Dropout(DROPOUT)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, states: Tensor, others: Tensor, taken: Tensor) -> Tensor:
        """Attends and transforms; arguments as :meth:`Attention.forward`."""
        attended = self.attention(states, others, taken)
        result: Tensor = self.norm(attended + self.feed(attended))
        return result
