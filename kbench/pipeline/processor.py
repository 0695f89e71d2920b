"""Processor time: what a stage cost, whatever else the machine had to do meanwhile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["ProcessorClock"]


class ProcessorClock:
    """Counts from when it is made.

    Args:
        device: where the work is done: of a GPU the processor only feeds it, and so there is no
            processor time that would tell what something cost.
    """

    def __init__(self, device: torch.device) -> None:
        self._counts = device.type == "cpu"
        self._began = _spent()

    @property
    def seconds(self) -> float | None:
        """Seconds of all threads and ended children, in the system too; None on a GPU."""
        return _spent() - self._began if self._counts else None


def _spent() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
