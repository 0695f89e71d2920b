"""Processes that work through items and may die of it: who waits for them goes on.

What runs in a process of its own can hang, crash, leave, or eat all memory, in C code too, and be
stopped all the same. Nothing here knows what the items are.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Generic, TypeVar

from kbench.data.system import end_group, kill_group, lead_group
from kbench.errors import UsageError

__all__ = ["Limits", "Pool", "Stopped", "Tell", "Told"]

_POLL = 0.1
"""Seconds between two looks at the memory of the processes."""
_TOLD = 0.2
"""Seconds between two reports of steps: a pipe is no place for thousands."""
_STATUS = "/proc/{}/status"

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Tell = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""
Told = Callable[[int, str, int, int], None]
"""Called with the seat of a process, and what it tells."""


@dataclass(frozen=True)
class Limits:
    """What one item may take.

    Attributes:
        seconds: of wall clock, from when its process begins with it; None for any.
        bytes: of memory of its process, files that are mapped not counted; None for any.
    """

    seconds: float | None = None
    bytes: int | None = None

    def __bool__(self) -> bool:
        return self.seconds is not None or self.bytes is not None

    def check(self) -> None:
        """Refuses what this system cannot keep.

        Raises:
            UsageError: it does not tell the memory of a process.
        """
        if self.bytes is not None and not Path(_STATUS.format("self")).is_file():
            raise UsageError("--memory-limit needs Linux, whose /proc tells the memory of a run")


@dataclass(frozen=True)
class Stopped:
    """An item that came to no end of its own.

    Attributes:
        reason: in one line.
        seconds: from when its process began with it.
    """

    reason: str
    seconds: float


class Pool(Generic[Item, Outcome]):
    """Some processes, started when there is work and again when one has died.

    Args:
        make: called in each process, with its seat and a function to tell of steps, for the
            function that is then called with every item. What both take and return must be
            picklable. Seats are numbered from 0 to below ``size``; no two processes that live at
            the same time have the same.
        size: how many processes there are at once.
        limits: of each item.
        tell: is told of the steps, and of the seat of the process that takes them.
    """

    def __init__(
        self,
        make: Callable[[int, Tell], Callable[[Item], Outcome]],
        size: int,
        limits: Limits,
        tell: Told | None = None,
    ) -> None:
        limits.check()
        self._make, self._size, self._limits, self._tell = make, size, limits, tell
        self._idle: list[_Member[Item]] = []
        self._busy: list[_Member[Item]] = []

    def work(
        self, take: Callable[[Sequence[Item]], Item | None]
    ) -> Generator[tuple[Item, Outcome | Stopped], None, None]:
        """Yields each item with what came of it, as they end.

        Args:
            take: given the items at work, returns the next; None where there is none left.

        Raises:
            KbenchError: what ``make`` raised.
        """
        try:
            while True:
                while len(self._busy) < self._size:
                    if (item := take([member.item for member in self._busy])) is None:
                        break
                    self._give(item)
                if not self._busy:
                    return
                yield from self._ended()
        finally:
            for member in (*self._idle, *self._busy):
                member.kill()

    def _give(self, item: Item, fresh: bool = False) -> None:
        while self._idle and not fresh:
            member = self._idle.pop()
            if member.give(item):
                self._busy.append(member)
                return
            member.kill()
        taken = {member.seat for member in (*self._idle, *self._busy)}
        seat = next(seat for seat in count() if seat not in taken)
        member = _Member(partial(self._make, seat), seat)
        member.give(item)
        self._busy.append(member)

    def _ended(self) -> Iterator[tuple[Item, Any]]:
        connection.wait([end for m in self._busy for end in m.ends], self._patience())
        for member in [*self._busy]:
            outcome = member.look(self._limits, self._tell)
            if outcome is None:
                continue
            self._busy.remove(member)
            if isinstance(outcome, Stopped):
                member.kill()
            else:
                self._idle.append(member)
            if isinstance(outcome, _TooMuch) and member.given > 1:
                # Perhaps earlier items left it full: what needs too much does so alone, too.
                self._give(member.item, fresh=True)
            else:
                yield member.item, outcome.value if isinstance(outcome, _Done) else outcome

    def _patience(self) -> float | None:
        """Seconds until somebody must be looked at, even if nobody says anything."""
        if self._limits.bytes is not None:
            return _POLL
        left = [d - time.monotonic() for m in self._busy if (d := m.deadline(self._limits))]
        return max(0.0, min(left)) if left else None


@dataclass(frozen=True)
class _Done:
    value: Any


class _TooMuch(Stopped):
    """Stopped for its memory."""


class _Member(Generic[Item]):
    """One process, and the item it has."""

    item: Item

    def __init__(self, make: Callable[[Tell], Callable[[Any], Any]], seat: int) -> None:
        self.seat = seat
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(theirs, make))
        self._process.start()
        theirs.close()
        self.ends = (self._pipe, self._process.sentinel)
        self.given = 0
        self._begun: float | None = None

    def give(self, item: Item) -> bool:
        """Hands over an item; False if the process is no more."""
        self.item, self._begun = item, None
        self.given += 1
        try:
            self._pipe.send(item)
        except OSError:
            return False
        return True

    def deadline(self, limits: Limits) -> float | None:
        """When the item has to be done, by the clock that nobody sets; None if any time."""
        if self._begun is None or limits.seconds is None:
            return None
        return self._begun + limits.seconds

    def look(self, limits: Limits, tell: Told | None) -> _Done | Stopped | None:
        """Returns how the item ended, or None while it goes on."""
        alive = self._process.is_alive()  # asked first: what it sent before its end is read, too
        with suppress(EOFError, OSError, UnpicklingError):
            while self._pipe.poll():
                word, *rest = self._pipe.recv()
                if word == "begun":
                    self._begun = time.monotonic()
                elif word == "step" and tell:
                    tell(self.seat, *rest)
                elif word == "done":
                    return _Done(*rest)
                elif word == "broken":
                    raise rest[0]
        if not alive:
            return Stopped(_end(self._process.exitcode), self._seconds())
        if (deadline := self.deadline(limits)) and time.monotonic() >= deadline:
            return Stopped(f"stopped after {limits.seconds:g} s (--time-limit)", self._seconds())
        if limits.bytes is not None and (taken := _memory(self._process.pid)) > limits.bytes:
            return _TooMuch(
                f"stopped at {taken / 1e9:.2f} GB of memory, with {limits.bytes / 1e9:.2f} GB "
                "allowed (--memory-limit)",
                self._seconds(),
            )
        return None

    def _seconds(self) -> float:
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    def kill(self) -> None:
        """Ends the process, and those that it started."""
        if self._process.pid:
            kill_group(self._process.pid)
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _live(pipe: Any, make: Callable[[Tell], Callable[[Any], Any]]) -> None:
    """What a process does until the other end of the pipe is closed."""
    lead_group()
    os.dup2(2, 1)  # the output belongs to the results; what a plugin prints is a message
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        call = make(_teller(pipe))
    except Exception as error:
        pipe.send(("broken", error))
        return
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(("begun",))
        pipe.send(("done", call(item)))


def _teller(pipe: Any) -> Tell:
    last = 0.0

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _TOLD:
            last = time.monotonic()
            pipe.send(("step", what, done, total))

    return tell


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        end_group()


def _end(code: int | None) -> str:
    """How a process ended, for people."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in [*signal.Signals] else f"signal {-code}"
        hint = ", as the system does where memory is short" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit status {code} before the run did"


def _memory(pid: int | None) -> int:
    """Bytes that a process has for itself; 0 if it is no more. Mapped files are not counted."""
    try:
        lines = Path(_STATUS.format(pid)).read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    return sum(1024 * int(sizes.get(name, "0 kB").split()[0]) for name in ("RssAnon", "RssShmem"))
