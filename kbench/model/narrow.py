"""Frozen weights held in bfloat16: half the memory, and the output map computed in float32.

A body whose weights are narrow computes in their precision. What is put into it (vectors of slots,
states of a plug) is made narrow on the way in, and what comes out is float32 again. The logits of
tokens are a special case: in bfloat16 those near 20 are an eighth apart, so that many answers tie
that are not equal. The last map is therefore computed in float32, a part of the vocabulary at a
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["NARROW", "hold", "in_float32"]

NARROW = frozenset({torch.bfloat16, torch.float16})
_PART = 1 << 26
"""Numbers of a map that are in float32 at once: 256 MiB."""


def hold(network: nn.Module, dtype: torch.dtype) -> None:
    """Holds the weights of a network in another precision.

    Buffers that are not stored with them stay: frequencies of rotary positions need float32.
    """
    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    stored = network.state_dict()
    for name, buffer in network.named_buffers():
        if name in stored and buffer.is_floating_point():
            buffer.data = buffer.data.to(dtype)


@contextmanager
def in_float32(output: Any) -> Iterator[None]:
    """Lets a map that is held in a narrow precision compute in float32 inside the block.

    Args:
        output: the map from states to tokens; nothing happens where it is none, or not narrow.
    """
    if not isinstance(output, nn.Linear) or output.weight.dtype not in NARROW:
        yield
        return
    own = vars(output).get("forward")
    output.forward = partial(_mapped, output)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del output.forward
        if own is not None:
            output.forward = own  # type: ignore[method-assign]


def _mapped(output: nn.Linear, states: Tensor) -> Tensor:
    here, weight = states.device, output.weight.detach()
    said: Tensor = _Map.apply(states.float().to(weight.device), weight)  # type: ignore[no-untyped-call]
    return (said if output.bias is None else said + output.bias.float()).to(here)


class _Map(torch.autograd.Function):
    """``x W^T`` of a narrow W that is frozen, without W in float32 as a whole."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        ctx.weight = weight
        return torch.cat([states @ part.float().T for part in _parts(weight)], -1)

    @staticmethod
    def backward(ctx: Any, *said: Tensor) -> tuple[Tensor, None]:
        parts = _parts(ctx.weight)
        moved = zip(_split(said[0], [len(part) for part in parts], -1), parts, strict=True)
        # Under autocast what was said is narrow, and so are its gradients.
        first, *others = (gradient.float() @ part.float() for gradient, part in moved)
        for other in others:
            first = first + other
        return first, None


def _split(values: Tensor, sizes: int | list[int], dim: int = 0) -> tuple[Tensor, ...]:
    return tuple(torch.split(values, sizes, dim))


def _parts(weight: Tensor) -> tuple[Tensor, ...]:
    return _split(weight, max(1, _PART // weight.shape[1]))
