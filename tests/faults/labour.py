"""What processes of a pool do in its tests; imports little, since each process does it anew."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from kbench.errors import DataError
from kbench.grid.pool import Tell

_kept: list[bytearray] = []


def make(seat: int, tell: Tell) -> Callable[[str], tuple[str, int]]:
    def call(item: str) -> tuple[str, int]:
        word, _, number = item.partition(" ")
        if word == "die":
            os.kill(os.getpid(), int(number))
        if word == "exit":
            os._exit(int(number))
        if word == "sleep":
            time.sleep(float(number))
        if word == "keep":
            _kept.append(bytearray(b"x") * (int(number) * 1_000_000))
            time.sleep(0.5)  # long enough to be seen
        tell(word, 1, 1)
        return item, os.getpid()

    return call


def broken(seat: int, tell: Tell) -> Callable[[str], str]:
    raise DataError("a path", "is missing", "something", line=3)


def taker(items: list[str], seen: list[int]) -> Callable[[Sequence[str]], str | None]:
    def take(running: Sequence[str]) -> str | None:
        seen.append(len(running))
        return items.pop(0) if items else None

    return take
