"""What keeps a network as it is: no gradients, no traces, and the digest that proves it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kbench.errors import FrozenError
from kbench.model.narrow import NARROW
from kbench.model.placing import HOME

__all__ = ["at_home", "digest", "dropout", "frozen", "rewritten", "watched"]


@contextmanager
def rewritten(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replaces a module's output, or the first of its outputs, by ``change`` of it in the block.

    Where a network's weights are held in a narrow precision, ``change`` works in float32; where
    its layers are spread over GPUs, on the one that has its word embeddings.
    """

    def changed(states: Tensor) -> Tensor:
        given = at_home(module, states)
        return change(given) if given is states else change(given).to(states)

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (changed(output[0]), *output[1:])
        return changed(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def watched(module: nn.Module, see: Callable[[Tensor], object]) -> Iterator[None]:
    """Shows ``see`` the hidden states that a layer is given, inside the block.

    They are in float32 and at home where :func:`rewritten` would have them there.
    """

    def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        see(at_home(module, given[0] if given else named["hidden_states"]))

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def at_home(module: nn.Module, states: Tensor) -> Tensor:
    """Returns a module's states in float32, where the word embeddings of its network are."""
    home = getattr(module, HOME, None)
    given = states if home is None else states.to(home)
    if given.dtype in NARROW and not torch.is_autocast_enabled(given.device.type):
        given = given.float()
    return given


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Keeps every parameter of a module from collecting gradients inside the block.

    Raises:
        FrozenError: a parameter has a gradient at the end all the same.
    """
    before = [(p, p.requires_grad) for p in module.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
        touched = [n for n, p in module.named_parameters() if p.grad is not None]
        if touched:
            raise FrozenError(f"frozen weights collected gradients: {', '.join(touched[:3])}")
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


@contextmanager
def dropout(module: nn.Module, rate: float | None) -> Iterator[None]:
    """Puts a module in train mode with all its dropout at ``rate``; None means eval mode.

    Hidden and attention dropout alike: a plug trained through a noisy frozen network is
    regularised by it (methods specification 2a).
    """
    before = list(_rates(module))
    mode = {m: m.training for m in module.modules()}
    if rate is not None:
        for part, name, _ in before:
            setattr(part, name, rate)
    module.train(rate is not None)
    try:
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)
        for part, training in mode.items():
            part.training = training


def _rates(module: nn.Module) -> Iterator[tuple[nn.Module, str, float]]:
    """Yields every rate of dropout: of layers, and numbers that attention hands to a function."""
    for part in module.modules():
        for name, value in vars(part).items():
            rate = name == "p" if isinstance(part, nn.Dropout) else "dropout" in name
            if rate and isinstance(value, int | float) and not isinstance(value, bool):
                yield part, name, value


def digest(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """SHA-256 of every parameter and buffer: names, types, shapes and bytes.

    Two tensors that share storage count once each, under both names. Buffers that are not saved
    with the weights (frequencies of rotary positions) count too.
    """
    if isinstance(weights, nn.Module):
        weights = {**dict(weights.named_buffers()), **weights.state_dict()}
    value = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        value.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        value.update(tensor.flatten().view(torch.uint8).numpy().data)
    return value.hexdigest()
