"""The last layer at the positions that are read, and at no others.

A head reads one position of a text or a few: the first token, the blank, the masked tokens. Up to
the last layer every position matters to them; in it only its keys and values do. Its closing map,
feed-forward network and normalisations are left out elsewhere: three quarters of the layer, and
so an eighth of the work of six layers. Of a decoder's layer the closing map of attention and the
feed-forward network are, which are as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


_CLOSING = {"self_attn": ("o_proj", "dense"), "attn": ("c_proj",), "attention": ("dense",)}
"""The closing map of attention in layers of decoders, by what attention is called there."""
_FEEDS = ("down_proj", "c_proj", "fc2", "dense_4h_to_h")
"""The closing map of a feed-forward network ``mlp`` that reads each position by itself."""


@contextmanager
def only_at(layers: list[nn.Module], wanted: Tensor | None) -> Iterator[None]:
    """Lets the last of ``layers`` compute what is wanted and give anything elsewhere in the block.

    Where it cannot (another architecture, or hooks that may look at every position) nothing
    changes.

    Args:
        layers: of a network, first to last.
        wanted: positions in the flattened ``[batch * tokens]``; None for all. ``[n]``.
    """
    last: Any = layers[-1] if layers else None
    if wanted is None or not _known(last):
        yield
        return
    if type(last).__name__ in _ALIKE:
        changed = {last: _encoding(last, wanted)}
    else:
        changed = {part: _apart(part, wanted) for part in _by_position(last)}
    compiled = {part: vars(part).get("forward") for part in changed}
    for part, forward in changed.items():
        part.forward = forward
    try:
        yield
    finally:
        for part, before in compiled.items():
            del part.forward
            if before is not None:
                part.forward = before


def _known(layer: Any) -> bool:
    of_library = type(layer).__module__.startswith("transformers.models.")
    return of_library and not any(_hooked(module) for module in layer.modules())


def _encoding(last: Any, wanted: Tensor) -> Callable[..., Any]:
    """A layer of BERT's form that computes all but keys and values where it is wanted alone."""

    def forward(hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, **more: Any) -> Any:
        context, *_ = last.attention.self(hidden, attention_mask=attention_mask, **_flags(more))
        own, seen = (states.flatten(0, 1).index_select(0, wanted) for states in (hidden, context))
        attended = last.attention.output(seen, own)
        closed = last.output(last.intermediate(attended), attended)
        nothing = closed.new_zeros(hidden.shape).flatten(0, 1)
        return nothing.index_copy(0, wanted, closed).view_as(hidden)

    return forward


def _by_position(layer: Any) -> list[nn.Module]:
    """The parts of a decoder's layer that read each position by itself, and cost the most."""
    parts = []
    for name, closing in _CLOSING.items():
        attention = getattr(layer, name, None)
        parts += [getattr(attention, own) for own in closing if hasattr(attention, own)]
    feed = getattr(layer, "mlp", None)
    # Experts are chosen for all positions together, and say more than their output.
    if feed is not None and any(hasattr(feed, own) for own in _FEEDS):
        parts.append(feed)
    return parts


def _apart(part: nn.Module, wanted: Tensor) -> Callable[[Tensor], Tensor]:
    """A part that is computed where it is wanted, and gives 0 elsewhere."""
    own = part.forward

    def forward(hidden: Tensor) -> Tensor:
        here = wanted.to(hidden.device)  # of a model that is spread, the last layers are elsewhere
        chosen: Tensor = own(hidden.flatten(0, 1).index_select(0, here))
        nothing = chosen.new_zeros(hidden.shape[0] * hidden.shape[1], chosen.shape[-1])
        placed = nothing.index_copy(0, here.to(chosen.device), chosen)
        return placed.view(*hidden.shape[:2], -1)

    return forward


def _hooked(module: nn.Module) -> bool:
    before = module._forward_pre_hooks.values()
    return bool(module._forward_hooks) or not all(
        getattr(hook, "changes_nothing", False) for hook in before
    )


def _flags(more: dict[str, Any]) -> dict[str, Any]:
    """What the layer hands to its attention: not what only a decoder's layer reads."""
    return {name: value for name, value in more.items() if not name.startswith("encoder_")}
