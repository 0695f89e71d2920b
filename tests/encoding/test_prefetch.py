"""Items made ahead: the same ones in the same order, and a thread that ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from kbench.encoding.prefetch import prefetched


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "kbench-feed"]


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_the_same_items_in_the_same_order(ahead: int) -> None:
    def drawn() -> Iterator[float]:
        rng = np.random.default_rng(0)
        for _ in range(50):
            yield rng.random()

    with closing(prefetched(drawn(), ahead)) as items:
        assert list(items) == list(drawn())
    assert not _threads()


def test_items_are_made_while_others_are_used_and_no_further_than_asked() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    with closing(prefetched(numbers(), 3)) as items:
        assert next(items) == 0
        for _ in range(200):
            if len(made) == 5:  # one is used, three wait, and one has nowhere to go
                break
            time.sleep(0.01)
        time.sleep(0.05)
        assert made == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ahead", [0, 2])
def test_what_is_raised_in_the_thread_is_raised_here_after_the_items_before(ahead: int) -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("no third")

    items = prefetched(broken(), ahead)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(KeyError, match="no third"):
        next(items)
    assert not _threads()


def _endless() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def test_the_thread_ends_with_a_loop_that_is_left_early() -> None:
    with closing(prefetched(_endless(), 2)) as items:
        for item in items:
            if item == 5:
                break
        assert _threads()
    assert not _threads()


def _fails() -> None:
    with closing(prefetched(_endless(), 2)) as items:
        for item in items:
            if item == 5:
                raise ValueError("enough")


def test_the_thread_ends_with_a_loop_that_fails() -> None:
    with pytest.raises(ValueError, match="enough"):
        _fails()
    assert not _threads()
