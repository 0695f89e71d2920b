"""The crew: whatever becomes of a process, every item comes to one end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from kbench.crew import Crew, Limits, Stopped, Tell
from kbench.errors import DataError
from tests.faults.conftest import ROOT

_kept: list[bytearray] = []


def _make(tell: Tell) -> Callable[[str], tuple[str, int]]:
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


def _broken(tell: Tell) -> Callable[[str], str]:
    raise DataError("a path", "is missing", "something", line=3)


def _taker(items: list[str], seen: list[int]) -> Callable[[Sequence[str]], str | None]:
    def take(running: Sequence[str]) -> str | None:
        seen.append(len(running))
        return items.pop(0) if items else None

    return take


@pytest.fixture
def ends() -> Callable[..., dict[str, object]]:
    def work(
        items: list[str], size: int = 1, limits: Limits | None = None, tell: Tell | None = None
    ) -> dict[str, object]:
        seen: list[int] = []
        crew: Crew[str, object] = Crew(_make, size, limits or Limits(), tell)
        found = list(crew.work(_taker([*items], seen)))
        assert sorted(item for item, _ in found) == sorted(items)
        assert max(seen) < size
        assert not crew._busy
        assert all(not member._process.is_alive() for member in crew._idle)
        return dict(found)

    return work


def _reason(end: object) -> str:
    assert isinstance(end, Stopped)
    return end.reason


def test_every_item_ends_though_processes_die(ends: Callable[..., dict[str, object]]) -> None:
    told: list[str] = []
    fatal = [f"die {int(signal.SIGKILL)}", "exit 0", f"die {int(signal.SIGSEGV)}", "exit 5"]
    found = ends(
        ["a", fatal[0], "b", fatal[1], "c", fatal[2], fatal[3]],
        tell=lambda what, done, total: told.append(what),
    )
    # One process does what it can, and the next begins where it ended.
    assert len({end[1] for end in (found["a"], found["b"], found["c"])}) == 3  # type: ignore[index]
    assert told == ["a", "b", "c"]
    assert "ended by SIGKILL, as the system does where memory is short" in _reason(found[fatal[0]])
    assert "exit status 0 before the run did" in _reason(found["exit 0"])
    assert "ended by SIGSEGV" in _reason(found[fatal[2]])
    assert "exit status 5" in _reason(found["exit 5"])


def test_a_process_is_used_again_and_several_work_at_once(
    ends: Callable[..., dict[str, object]],
) -> None:
    found = ends([f"sleep 0.{n}" for n in range(1, 7)], size=2)
    assert len({end[1] for end in found.values()}) == 2  # type: ignore[index]


def test_the_time_of_an_item_counts_from_its_own_beginning(
    ends: Callable[..., dict[str, object]],
) -> None:
    found = ends(["sleep 1", "sleep 60", "sleep 1.1"], limits=Limits(seconds=1.5))
    assert _reason(found["sleep 60"]) == "stopped after 1.5 s (--time-limit)"
    assert not any(isinstance(found[name], Stopped) for name in ("sleep 1", "sleep 1.1"))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc of Linux")
def test_an_item_answers_for_its_own_memory_alone(ends: Callable[..., dict[str, object]]) -> None:
    found = ends(["keep 350", "keep 351", "keep 900"], limits=Limits(bytes=800_000_000))
    # The second was over the limit only because of the first, so it began anew.
    one, two = found["keep 350"], found["keep 351"]
    assert one[1] != two[1]  # type: ignore[index]
    assert "with 0.80 GB allowed (--memory-limit)" in _reason(found["keep 900"])


def test_what_makes_no_worker_is_told_as_it_is() -> None:
    crew: Crew[str, str] = Crew(_broken, 1, Limits())
    with pytest.raises(DataError, match="a path, line 3: is missing; expected something") as caught:
        list(crew.work(_taker(["a"], [])))
    assert caught.value.line == 3


_OWNER = """
import sys
from tests.faults.test_crew import _make, _taker
from kbench.crew import Crew, Limits
crew = Crew(_make, 1, Limits())
print([end for end in crew.work(_taker(["a", "sleep 60"], []))])
"""


def test_processes_end_with_the_one_that_started_them() -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        child = _until(partial(_child, owner.pid))
    finally:
        owner.kill()
        owner.communicate()
    assert _until(lambda: 0 if Path(f"/proc/{child}").exists() and _alive(child) else 1)


def _child(pid: int) -> int:
    """The worker of a process: its child that leads a session."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = path.read_text().partition(" (")
        except OSError:
            continue
        fields = rest.rsplit(") ", 1)[1].split()
        if int(fields[1]) == pid and fields[3] == number:
            return int(number)
    return 0


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def _until(holds: Callable[[], int]) -> int:
    for _ in range(200):
        if found := holds():
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")
