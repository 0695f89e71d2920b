"""Devices by name: what is there, who gets which, and what is said of the others."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kbench.errors import UsageError
from kbench.grid.devices import assigned, find_device
from kbench.grid.executor import Setup
from kbench.grid.executors import local
from kbench.grid.executors.local import Local
from kbench.grid.plan import Events, Place
from kbench.grid.pool import Limits


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes as if there were some GPUs."""

    def put(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    put(0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return put


@pytest.mark.parametrize(
    ("name", "count", "seats", "expected"),
    [
        ("cpu", 4, 3, ["cpu"] * 3),
        ("auto", 0, 2, ["cpu", "cpu"]),
        ("auto", 2, 4, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        ("cuda", 3, 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda", 1, 2, ["cuda:0", "cuda:0"]),
        ("cuda", 8, 1, ["cuda"]),
        ("auto", 8, 1, ["cuda"]),
        ("cuda:1", 2, 2, ["cuda:1", "cuda:1"]),
        ("cuda:0,cuda:2", 4, 3, ["cuda:0", "cuda:2", "cuda:0"]),
        (" cuda:2, cuda:0", 4, 1, ["cuda:2"]),
    ],
)
def test_gpus_go_round(
    name: str, count: int, seats: int, expected: list[str], cards: Callable[[int], None]
) -> None:
    cards(count)
    assert [assigned(name, seat, seats) for seat in range(seats)] == expected


@pytest.mark.parametrize(
    ("name", "count", "said"),
    [
        ("cuda", 0, r"device 'cuda' cannot be used: PyTorch .* try --device cpu"),
        ("cuda:1", 0, r"device 'cuda:1' cannot be used: PyTorch .* try --device cpu"),
        ("cuda:1", 1, r"'cuda:1' is not there: this machine shows 1 GPU, cuda:0 \(see CUDA_VIS"),
        ("cuda:0,cuda:7", 4, "'cuda:7' is not there: this machine shows 4 GPUs, cuda:0 to cuda:3"),
        ("cuda,cpu", 4, "'cuda' in a list; expected GPUs with their numbers, such as cuda:0,cuda:"),
        ("cuda:0,", 4, "'' in a list"),
        ("cuda:1,cuda:1", 4, "a GPU is named twice"),
    ],
)
def test_what_is_not_there_is_told(
    name: str, count: int, said: str, cards: Callable[[int], None]
) -> None:
    cards(count)
    with pytest.raises(UsageError, match=said):
        assigned(name, 0, 2)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "xla"])
def test_a_name_that_is_none_is_told_in_one_line(name: str) -> None:
    with pytest.raises(UsageError, match=f"device '{name}' cannot be used") as error:
        find_device(name)
    assert "\n" not in str(error.value)


def test_every_job_has_its_own_gpu(
    tmp_path: Path, cards: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(2)
    places: list[Place] = []

    class Hired:
        def __init__(self, place: Place, events: Events) -> None:
            places.append(place)
            self.run = events

    class Pool:
        def __init__(self, make: Any, size: int, limits: Limits, tell: Any) -> None:
            for seat in range(size):
                make(seat, lambda *_: None)

        def work(self, take: Any) -> Generator[Any, None, None]:
            yield from ()

    monkeypatch.setattr(local, "Worker", Hired)
    monkeypatch.setattr(local, "Pool", Pool)
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cuda", evaluation_batch=7)
    assert list(Local(Setup(jobs=3)).work([], place, Events())) == []
    assert [hired.device for hired in places] == ["cuda:0", "cuda:1", "cuda:0"]
    assert {hired.evaluation_batch for hired in places} == {7}
    asked = Place(tmp_path / "out", tmp_path / "artifacts", "cuda:5")
    with pytest.raises(UsageError, match="'cuda:5' is not there"):
        list(Local(Setup(jobs=2)).work([], asked, Events()))


def test_no_two_processes_have_a_seat_at_once() -> None:
    """Also where one has died and another begins in its place."""
    from kbench.grid.pool import Pool

    items = ["a", "die", "b", "c", "die", "d", "e", "f"]

    def take(running: Sequence[str]) -> str | None:
        return items.pop(0) if items else None

    pool: Pool[str, Any] = Pool(_seated, 2, Limits())
    seats = [end for _, end in pool.work(take) if isinstance(end, int)]
    assert set(seats) == {0, 1}
    assert multiprocessing.active_children() == []


def _seated(seat: int, tell: Any) -> Callable[[str], int]:
    import os
    import time

    # On a busy machine one process could do it all before the other is there: the first item waits.
    there = Path(os.environ["KBENCH_CACHE"])
    there.mkdir(exist_ok=True)
    (there / f"seat-{seat}").touch()

    def call(item: str) -> int:
        if item == "die":
            os._exit(3)
        until = time.monotonic() + 120
        while item == "a" and len([*there.glob("seat-*")]) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.3)
        return seat

    return call
