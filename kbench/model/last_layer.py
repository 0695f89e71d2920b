"""The last layer at the positions that are read, and at no others.

A head reads one position of a text or a few: the first token, the blank, the masked tokens. Up to
the last layer every position matters to them; in it only its keys and values do. Its closing map,
feed-forward network and normalisations are left out elsewhere: three quarters of the layer, and
so an eighth of the work of six layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["only_at"]

_ALIKE = frozenset(
    {
        "BertLayer",
        "CamembertLayer",
        "Data2VecTextLayer",
        "ElectraLayer",
        "ErnieLayer",
        "RobertaLayer",
        "XLMRobertaLayer",
    }
)
"""Layers of ``transformers`` whose forward pass is BERT's, line by line."""


@contextmanager
def only_at(layers: list[nn.Module], wanted: Tensor | None) -> Iterator[None]:
    """Lets the last of ``layers`` compute what is wanted and give 0 elsewhere inside the block.

    Where it cannot (another architecture, or hooks that may look at every position) nothing
    changes.

    Args:
        layers: of a network, first to last.
        wanted: positions in the flattened ``[batch * tokens]``; None for all. ``[n]``.
    """
    last: Any = layers[-1] if layers else None
    if wanted is None or not _can(last):
        yield
        return

    def forward(hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, **more: Any) -> Any:
        context, *_ = last.attention.self(hidden, attention_mask=attention_mask, **_flags(more))
        own, seen = (states.flatten(0, 1).index_select(0, wanted) for states in (hidden, context))
        attended = last.attention.output(seen, own)
        closed = last.output(last.intermediate(attended), attended)
        nothing = closed.new_zeros(hidden.shape).flatten(0, 1)
        return nothing.index_copy(0, wanted, closed).view_as(hidden)

    compiled = vars(last).get("forward")
    last.forward = forward
    try:
        yield
    finally:
        del last.forward
        if compiled is not None:
            last.forward = compiled


def _can(layer: Any) -> bool:
    kind = type(layer)
    alike = kind.__module__.startswith("transformers.models.") and kind.__name__ in _ALIKE
    return alike and not any(_hooked(module) for module in layer.modules())


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _flags(more: dict[str, Any]) -> dict[str, Any]:
    """What the layer hands to its attention: not what only a decoder's layer reads."""
    return {name: value for name, value in more.items() if not name.startswith("encoder_")}
