"""Limits of memory and time for a block of a test: what goes on for ever, or takes all, fails."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

__all__ = ["within"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def within(seconds: int = 30, megabytes: int = 500) -> Iterator[None]:
    """Fails where the block takes longer, or holds more memory at any time than before it.

    Memory is looked at where the system tells the peak of a process, and lets it be set back.
    """

    def late(*_: object) -> NoReturn:
        raise AssertionError(f"goes on after {seconds} s")

    before = _peak(reset=True)
    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    taken = (_peak() - before) / 1000
    assert taken < megabytes, f"takes {taken:,.0f} MB"


def _peak(*, reset: bool = False) -> int:
    """The most that this process has held, in kB; 0 where that is not told."""
    if not _RESET.exists():
        return 0
    if reset:
        _RESET.write_text("5")
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
