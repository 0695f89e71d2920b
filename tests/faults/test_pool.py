"""The pool: whatever becomes of a process, every item comes to one end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from kbench.errors import DataError
from kbench.grid.pool import Limits, Pool, Stopped, Told
from tests.faults.conftest import ROOT
from tests.faults.labour import broken, make, taker


@pytest.fixture
def ends() -> Callable[..., dict[str, object]]:
    def work(
        items: list[str], size: int = 1, limits: Limits | None = None, tell: Told | None = None
    ) -> dict[str, object]:
        seen: list[int] = []
        pool: Pool[str, object] = Pool(make, size, limits or Limits(), tell)
        found = list(pool.work(taker([*items], seen)))
        assert sorted(item for item, _ in found) == sorted(items)
        assert max(seen) < size
        assert not pool._busy
        assert all(not member._process.is_alive() for member in pool._idle)
        return dict(found)

    return work


def _reason(end: object) -> str:
    assert isinstance(end, Stopped)
    return end.reason


def test_every_item_ends_though_processes_die(ends: Callable[..., dict[str, object]]) -> None:
    told: list[tuple[int, str]] = []
    fatal = [f"die {int(signal.SIGKILL)}", "exit 0", f"die {int(signal.SIGSEGV)}", "exit 5"]
    found = ends(
        ["a", fatal[0], "b", fatal[1], "c", fatal[2], fatal[3]],
        tell=lambda seat, what, done, total: told.append((seat, what)),
    )
    # One process does what it can, and the next begins where it ended.
    assert len({end[1] for end in (found["a"], found["b"], found["c"])}) == 3  # type: ignore[index]
    assert told == [(0, "a"), (0, "b"), (0, "c")]
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
    found = ends(["keep 150", "keep 151", "keep 900"], limits=Limits(bytes=280_000_000))
    # The second was over the limit only because of the first, so it began anew.
    one, two = found["keep 150"], found["keep 151"]
    assert one[1] != two[1]  # type: ignore[index]
    assert "with 0.28 GB allowed (--memory-limit)" in _reason(found["keep 900"])


def test_what_makes_no_worker_is_told_as_it_is() -> None:
    pool: Pool[str, str] = Pool(broken, 1, Limits())
    with pytest.raises(DataError, match="a path, line 3: is missing; expected something") as caught:
        list(pool.work(taker(["a"], [])))
    assert caught.value.line == 3


_OWNER = """
import sys
from tests.faults.labour import make, taker
from kbench.grid.pool import Limits, Pool
pool = Pool(make, 1, Limits())
print([end for end in pool.work(taker(["a", "sleep 60"], []))])
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
    for _ in range(1200):
        if found := holds():
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")
