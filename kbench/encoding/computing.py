"""How a device computes: precision, copies that nobody waits for, memory, the same bits again.

None of this decides *what* is computed; it is recorded in results, and no part of any address.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = [
    "ahead",
    "asynchronous",
    "autocast",
    "described",
    "narrow",
    "peak_bytes",
    "pinned",
    "random_state",
    "release",
    "reset_peak",
    "restore_random",
    "sent",
    "set_up",
]

_AHEAD = 4
_NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def narrow(dtype: str) -> bool:
    """Whether a precision is narrower than float32."""
    return dtype in _NARROW


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[None]:
    """Computes in a narrower precision inside the block; weights stay in float32."""
    if dtype not in _NARROW:
        return nullcontext()
    return torch.autocast(device.type, _NARROW[dtype])


def asynchronous(device: torch.device) -> bool:
    """Whether a device works on while the host goes ahead, so that waiting for it costs time."""
    return device.type == "cuda"


def ahead(device: torch.device) -> int:
    """Returns how many batches may wait for a device; none for the CPU, which would make them."""
    return _AHEAD if asynchronous(device) else 0


def pinned(value: Tensor, device: torch.device) -> Tensor:
    """Returns a host tensor in memory that a device copies from by itself."""
    with torch.cuda.device(device):  # a thread of its own begins at the first device
        return value.pin_memory()


def sent(value: Tensor, device: torch.device) -> Tensor:
    """Copies a host tensor to a device and waits for nothing. On the CPU it stays as it is."""
    if asynchronous(device):
        value = pinned(value, device)
    return value.to(device, non_blocking=True)


def random_state(device: torch.device) -> list[Tensor]:
    """Returns the state of the generators that dropout on a device may draw from."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def restore_random(states: list[Tensor], device: torch.device) -> None:
    """Puts back what :func:`random_state` returned."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def release(device: torch.device) -> None:
    """Gives memory that is no longer used back to the device, where it may be of another shape."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reset_peak(device: torch.device) -> None:
    """Begins to measure the peak of a device's memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Returns the most memory held on a device since :func:`reset_peak`; None on the host.

    Held by tensors: what the allocator keeps beside them for later does not count.
    """
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def set_up(device: torch.device, threads: int | None, deterministic: bool) -> None:
    """Prepares this process to compute on a device.

    Args:
        device: the one that work without a number means, from now on.
        threads: of the CPU; None leaves torch's choice.
        deterministic: whether the same work gives the same bits on a GPU. An operation that
            cannot do so raises then. On the CPU it does anyway.
    """
    if threads:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        # cuBLAS reads it when it is first used; sums in a workspace of fixed size have an order.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(deterministic)
        if device.index is not None:
            torch.cuda.set_device(device)


def described(device: torch.device, compiled: bool) -> dict[str, str | int]:
    """Returns what the bits of a result may depend on, for the record.

    ``matmul`` is torch's precision of float32 products: ``highest`` is without TF32.
    """
    facts: dict[str, str | int] = {"device": str(device), "threads": int(torch.get_num_threads())}
    if device.type == "cuda":
        facts["device_name"] = torch.cuda.get_device_name(device)
        facts["deterministic"] = _word(torch.are_deterministic_algorithms_enabled())
        facts["matmul"] = torch.get_float32_matmul_precision()
    if compiled:
        facts["compiled"] = _word(True)
    return facts


def _word(value: bool) -> str:
    return "yes" if value else "no"
