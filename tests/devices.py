"""A stand-in for a GPU on the CPU: which tensors would lie there, and what would wait for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from kbench.encoding import Batch, computing

TRAINED = [
    ("map-tuning", "general"),
    ("map-tuning", "task-specific"),
    ("map-tuning-mlp", "general"),
    ("ernie", "general"),
    ("ernie", "task-specific"),
    ("kar", "general"),
    ("kar", "task-specific"),
    ("k-adapter", "general"),
    ("k-adapter", "task-specific"),
    ("adapter-no-knowledge", "task-specific"),
    ("kblam", "general"),
    ("kblam", "task-specific"),
    ("concept", "general"),
    ("kv-train", "general"),
    ("kv-train", "task-specific"),
    ("knowla", "general"),
    ("xrag", "general"),
]
"""Methods that train, in the settings in which they do so differently."""

_WAIT = frozenset(
    {
        "_local_scalar_dense",
        "_unique2",
        "bincount",
        "equal",
        "masked_select",
        "nonzero",
        "repeat_interleave",
        "unique_consecutive",
        "unique_dim",
    }
)
"""Operations whose answer, or its shape, the host needs before it can go on."""
_READ = ("cpu", "item", "numpy", "tolist", "__bool__", "__float__", "__int__")


class Device(TorchDispatchMode):
    """Follows what would lie on a device: what is sent there, weights, and what comes of both.

    Attributes:
        waits: what would have waited for the device, while it was looked at.
    """

    def __init__(self) -> None:
        super().__init__()
        self._there = WeakTensorKeyDictionary()
        self._seen = False
        self.waits: list[str] = []

    def sent(self, value: Tensor, device: torch.device) -> Tensor:
        """Stands for :func:`kbench.encoding.sent`."""
        copy = value.clone()
        self._there[copy] = True
        return copy

    def there(self, value: object) -> bool:
        """Whether a tensor would lie on the device."""
        if not isinstance(value, Tensor):
            return False
        return isinstance(value, nn.Parameter) or value.grad_fn is not None or value in self._there

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """Notes what waits inside the block."""
        self._seen = True
        try:
            yield
        finally:
            self._seen = False

    def read(self, name: str, value: Tensor) -> None:
        """Notes that the host reads a tensor."""
        if self._seen and self.there(value):
            self.waits.append(name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        device = any(map(self.there, given)) or torch._C._current_graph_task_id() != -1
        name = func.__name__.partition(".")[0]
        by_index = name == "index" or name.startswith("index_put")
        masked = by_index and any(t.dtype == torch.bool for t in given[1:])
        if self._seen and device and (name in _WAIT or masked):
            self.waits.append(name)
        found = func(*args, **(kwargs or {}))
        if device:
            for value in tree_leaves(found):
                if isinstance(value, Tensor):
                    self._there[value] = True
        return found


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """Work on the CPU goes the way of a GPU: batches are made ahead, pinned and sent."""
    stand_in = Device()
    _everywhere(monkeypatch, "asynchronous", lambda device: True)
    _everywhere(monkeypatch, "pinned", lambda value, device: value.clone())
    _everywhere(monkeypatch, "sent", stand_in.sent)
    monkeypatch.setattr(
        Batch, "to", lambda batch, there: batch._changed(lambda v: stand_in.sent(v, there))
    )
    for name in _READ:
        _watched(monkeypatch, stand_in, name)
    return stand_in


def _watched(monkeypatch: pytest.MonkeyPatch, stand_in: Device, name: str) -> None:
    method = getattr(Tensor, name)

    def reading(value: Tensor, *args: Any, **kwargs: Any) -> Any:
        stand_in.read(name, value)
        return method(value, *args, **kwargs)

    monkeypatch.setattr(Tensor, name, reading)


def _everywhere(monkeypatch: pytest.MonkeyPatch, name: str, put: Any) -> None:
    """Replaces a function of :mod:`kbench.encoding.computing` wherever it was imported."""
    known = getattr(computing, name)
    for module in [*sys.modules.values()]:
        if getattr(module, "__name__", "").startswith("kbench") and vars(module).get(name) is known:
            monkeypatch.setattr(module, name, put)
