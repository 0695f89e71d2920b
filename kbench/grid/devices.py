"""Names of devices: which are there, and which of several processes gets which."""

from __future__ import annotations

import re

import torch

from kbench.errors import UsageError, first_line

__all__ = ["assigned", "find_device"]

_CARD = re.compile(r"cuda:([0-9]{1,4})")


def assigned(name: str, seat: int, seats: int) -> str:
    """Returns the device of one of several processes on this machine.

    GPUs go round: with ``cuda``, or ``auto`` where there are GPUs, all of them; with
    ``cuda:0,cuda:2`` those. More processes than GPUs share them.

    Args:
        name: what the user gave.
        seat: number of the process, from 0.
        seats: how many processes there are at most.

    Raises:
        UsageError: a device is not there, or the name is not understood.
    """
    if name == "auto":
        name = _best()
    if name == "cuda" and seats > 1:
        names = [f"cuda:{number}" for number in range(_cards("cuda"))]
    else:
        names = [part.strip() for part in name.split(",")]
    for part in names:
        _check(part, several=len(names) > 1)
    if len({*names}) < len(names):
        raise UsageError(f"--device {name}: a GPU is named twice")
    return names[seat % len(names)]


def find_device(name: str) -> torch.device:
    """Returns a device by name; ``auto`` is the best there is.

    Raises:
        UsageError: it is not there; says what is.
    """
    name = assigned(name, 0, 1)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as cause:
        raise UsageError(
            f"device {name!r} cannot be used ({first_line(cause)}); try --device auto"
        ) from None
    return device


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _check(name: str, several: bool) -> None:
    card = _CARD.fullmatch(name)
    if several and not card:
        raise UsageError(
            f"--device: {name!r} in a list; expected GPUs with their numbers, such as cuda:0,cuda:2"
        )
    if name != "cuda" and not card:
        return
    count = _cards(name)
    if card and int(card[1]) >= count:
        there = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise UsageError(
            f"device {name!r} is not there: this machine shows {count} "
            f"{'GPU' if count == 1 else 'GPUs'}, {there} (see CUDA_VISIBLE_DEVICES)"
        )


def _cards(name: str) -> int:
    """How many GPUs there are, of which there must be one."""
    if not torch.cuda.is_available() or not torch.cuda.device_count():
        why = "is built without CUDA" if torch.version.cuda is None else "finds no GPU"
        raise UsageError(
            f"device {name!r} cannot be used: PyTorch {torch.__version__} {why}; try --device cpu"
        )
    return torch.cuda.device_count()
