"""A budget of time for what strangers send: each result is bounded by itself, their number is not.

A small archive can hold twenty thousand results, each of which may take half a minute to read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import final

from kbench_leaderboard.submission import Entry

__all__ = ["InTime"]


@final
class InTime:
    """Results of a submission, one after the other, as long as there is time.

    Args:
        entries: that are read when they are asked for.
        seconds: of all of them together, what is done with each included.
        clock: says what time it is.

    Attributes:
        seen: how many were read.
        ended: whether the time was up before all were.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries, self._clock = entries, clock
        self._until = clock() + seconds
        self.seen, self.ended = 0, False

    def __iter__(self) -> Iterator[Entry]:
        for entry in self._entries:
            self.seen += 1
            yield entry
            if self._clock() >= self._until:
                self.ended = True
                return
