"""`torch.compile` for the layers of a frozen network.

Layer by layer: all layers are the same code, so it is compiled once, and what a plug hangs onto a
layer stays outside. A layer that it hangs something *into* runs as it is: compiled code is shared
by layers and would not see it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from kbench.errors import Unsupported, first_line
from kbench.model.language_model import LanguageModel

__all__ = ["CompilerWarning", "can_compile", "compiled"]


class CompilerWarning(UserWarning):
    """Something runs as it is, though it was to be compiled."""


def can_compile(device: torch.device) -> bool:
    """Tries to compile a line for a device; warns and returns False where there is no compiler."""
    try:
        torch.compile(lambda value: value + 1)(torch.ones(2, device=device))
    except Exception as error:  # every backend lacks something else, and says so in its own way
        warnings.warn(
            f"--compile: nothing can be compiled for {device} here ({first_line(error)}); the "
            "network runs as it is",
            CompilerWarning,
            stacklevel=2,
        )
        return False
    return True


@contextmanager
def compiled(lm: LanguageModel, wanted: bool = True, backend: str = "inductor") -> Iterator[None]:
    """Runs the layers of a network as compiled code inside the block.

    Enter it after a plug is attached: what is hung into a layer later would not be seen.

    Args:
        lm: the network.
        wanted: if False, nothing happens.
        backend: of ``torch.compile``.
    """
    layers = [layer for layer in _layers(lm) if not _hung(layer)] if wanted else []
    if layers:
        torch.compiler.reset()  # else old code of other models and modes would use up its room
    try:
        for layer in layers:
            layer.forward = torch.compile(layer.forward, dynamic=True, backend=backend)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _layers(lm: LanguageModel) -> list[Any]:
    try:
        return [*lm.layers]
    except Unsupported as reason:
        warnings.warn(f"--compile: {reason}; it runs as it is", CompilerWarning, stacklevel=4)
        return []


def _hung(layer: nn.Module) -> bool:
    """Whether something is hung into a layer."""
    return any(
        part._forward_hooks or part._forward_pre_hooks
        for part in layer.modules()
        if part is not layer
    )
