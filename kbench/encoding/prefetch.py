"""Items made ahead of time, by a thread, in their order."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import Empty, Full, Queue
from typing import TypeVar

__all__ = ["prefetched"]

_PATIENCE = 0.1
"""Seconds between two looks whether anybody still wants an item."""

T = TypeVar("T")


class _End:
    """What comes after the last item: why it was the last."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetched(source: Iterator[T], ahead: int) -> Generator[T, None, None]:
    """Yields the items of a source, some of which are made while earlier ones are used.

    The source runs in one thread from beginning to end, so its items are the same, in the same
    order, as without. What it raises is raised here, after the items before. The thread ends
    with the generator: close it where the loop may be left early.

    Args:
        source: makes the items; it must not need the thread that it is asked from.
        ahead: items that wait at most; 0 for no thread.
    """
    if not ahead:
        yield from source
        return
    waiting: Queue[T | _End] = Queue(ahead)
    left = threading.Event()
    thread = threading.Thread(
        target=_make, args=(source, waiting, left), name="kbench-feed", daemon=True
    )
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        left.set()
        while thread.is_alive():
            _drop(waiting)
            thread.join(_PATIENCE)


def _make(source: Iterator[T], waiting: Queue[T | _End], left: threading.Event) -> None:
    end = _End()
    try:
        for item in source:
            if not _put(item, waiting, left):
                return
    except BaseException as error:  # whatever it is, it belongs to who asks for the items
        end = _End(error)
    _put(end, waiting, left)


def _put(item: T | _End, waiting: Queue[T | _End], left: threading.Event) -> bool:
    """Puts an item where there is room; False if nobody wants it any more."""
    while not left.is_set():
        try:
            waiting.put(item, timeout=_PATIENCE)
        except Full:
            continue
        return True
    return False


def _drop(waiting: Queue[T | _End]) -> None:
    try:
        waiting.get_nowait()
    except Empty:
        return
