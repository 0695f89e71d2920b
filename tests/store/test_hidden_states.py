"""The store of hidden states: whole or not there, never beyond its bound."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kbench.errors import UsageError
from kbench.store import hidden_states
from kbench.store.folder import DamageWarning
from kbench.store.hidden_states import HiddenStates, HiddenStateStore, StateRequest, hidden_bytes

ITEMS = np.array([3, 1, 2], dtype=np.int64)
ORDER = np.array([0, 2, 1], dtype=np.int64)


def wanted(name: str = "a", widths: tuple[int, ...] = (4, 2)) -> StateRequest:
    return StateRequest({"title": "toy", "name": name}, ITEMS, ORDER, widths)


class Pass:
    """Computes states by blocks, and counts how often it is asked."""

    def __init__(self, widths: tuple[int, ...] = (4, 2), seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.arrays = [rng.standard_normal((6, width), dtype=np.float32) for width in widths]
        self.times = 0

    def __call__(self) -> Iterator[list[NDArray[np.float32]]]:
        self.times += 1
        for start in (0, 3):
            yield [array[start : start + 3] for array in self.arrays]


def equal(found: HiddenStates | None, given: Pass) -> bool:
    assert found is not None
    return all(np.array_equal(a, b) for a, b in zip(found.arrays, given.arrays, strict=True))


@pytest.fixture
def store(tmp_path: Path) -> HiddenStateStore:
    return HiddenStateStore(tmp_path / "hidden", 1 << 20)


def test_rows_lie_in_the_order_of_reading_and_are_found_by_item(store: HiddenStateStore) -> None:
    given = Pass()
    for found in (store.kept(wanted(), given), store.kept(wanted(), given)):
        assert equal(found, given)
        assert found is not None
        assert found.places.tolist() == [[0, 3], [5, 6], [3, 5]]
        assert all(isinstance(array, np.memmap) for array in found.arrays)
        for rows, array in zip(found.of(np.array([2, 0])), given.arrays, strict=True):
            assert np.array_equal(rows, array[[3, 4, 0, 1, 2]])
    assert given.times == 1
    assert store.kept(wanted("b"), given) is not None
    assert given.times == 2


def test_a_bound_of_nothing_and_what_is_too_large_are_held_in_memory(
    store: HiddenStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, off = Pass(), HiddenStateStore(store.folder, 0)
    assert equal(off.kept(wanted(), given), given)
    assert equal(HiddenStateStore(store.folder, wanted().bytes - 1).kept(wanted(), given), given)
    assert equal(store.kept(wanted(), given, keep=False), given)
    assert not store.folder.exists()
    monkeypatch.setattr(hidden_states, "_MEMORY", wanted().bytes - 1)
    assert off.kept(wanted(), given) is None
    assert given.times == 3, "nothing is computed that has no place to go"


def size(store: HiddenStateStore) -> int:
    return sum(f.stat().st_size for f in store.folder.rglob("*") if f.is_file())


def test_what_was_not_used_for_longest_goes_first(store: HiddenStateStore) -> None:
    given = Pass()
    store.kept(wanted("a"), given)
    each = size(store)
    for name in "bc":
        store.kept(wanted(name), given)
    for age, name in enumerate("cba"):
        past = 1_000_000 + age
        os.utime(store.folder / wanted(name).key / "states.json", (past, past))
    store.kept(wanted("c"), given)  # used: now the youngest
    assert given.times == 3
    small = HiddenStateStore(store.folder, int(3.5 * each))
    small.kept(wanted("d"), given)
    left = {folder.name for folder in store.all()}
    assert left == {wanted(name).key for name in "acd"}
    assert next(store.all()).name == wanted("a").key
    assert size(store) <= 3.5 * each
    assert [path.name for path in store.folder.iterdir() if ".old-" in path.name] == []


def test_what_is_mapped_outlives_its_removal(store: HiddenStateStore) -> None:
    given = Pass()
    found = store.kept(wanted(), given)
    store.remove(store.folder / wanted().key)
    assert list(store.all()) == []
    assert equal(found, given)


def _truncate(folder: Path) -> None:
    path = folder / "state-0.npy"
    path.write_bytes(path.read_bytes()[:-1])


def _flip(folder: Path) -> None:
    path = folder / "state-1.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _lose(folder: Path) -> None:
    (folder / "states.json").unlink()


def _garble(folder: Path) -> None:
    (folder / "states.json").write_text("[1]")


def _forget(folder: Path) -> None:
    about = json.loads((folder / "states.json").read_text())
    about["sha256"] = {}
    (folder / "states.json").write_text(json.dumps(about))


def _foreign(folder: Path) -> None:
    other = HiddenStateStore(folder.parent, 1 << 20)
    other.kept(wanted("other"), Pass(seed=1))
    shutil.rmtree(folder)
    os.replace(folder.parent / wanted("other").key, folder)


def _reshape(folder: Path) -> None:
    """Good checksums and address, and arrays of another shape."""
    np.save(folder / "state-0.npy", np.zeros((6, 5), dtype=np.float32))
    about = json.loads((folder / "states.json").read_text())
    content = (folder / "state-0.npy").read_bytes()
    about["sha256"]["state-0.npy"] = hashlib.sha256(content).hexdigest()
    (folder / "states.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    "harm",
    [_truncate, _flip, _lose, _garble, _forget, _foreign, _reshape],
    ids=lambda f: f.__name__,
)
def test_damage_is_found_out_and_made_good(store: HiddenStateStore, harm: object) -> None:
    given = Pass()
    store.kept(wanted(), given)
    harm(store.folder / wanted().key)  # type: ignore[operator]
    with pytest.warns(DamageWarning, match="made again"):
        assert equal(store.kept(wanted(), given), given)
    assert given.times == 2
    assert equal(store.kept(wanted(), given), given)
    assert given.times == 2


def test_a_disk_that_fills_up_leaves_nothing_behind(
    store: HiddenStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(hidden_states._Array):
        written = 0

        def write(self, data: object) -> int:
            Full.written += 1
            if Full.written > 6:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    given = Pass()
    monkeypatch.setattr(hidden_states, "_Array", Full)
    assert equal(store.kept(wanted(), given), given)
    assert Full.written == 7
    assert list(store.all()) == []
    assert [path for path in store.folder.iterdir() if path.is_dir()] == []


def test_a_disk_without_room_is_not_written_to_and_old_states_make_room(
    store: HiddenStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Pass()
    store.kept(wanted("old"), given)
    free = [0]
    usage = shutil.disk_usage(store.folder)
    monkeypatch.setattr(hidden_states, "_SPARE", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free[0]))
    # All that could go is not enough, so nothing goes.
    large = StateRequest({"name": "large"}, 1000 * ITEMS, ORDER, (4,))
    found = store.kept(large, lambda: iter([[np.ones((6000, 4), np.float32)]]))
    assert found is not None
    assert not isinstance(found.arrays[0], np.memmap)
    assert [folder.name for folder in store.all()] == [wanted("old").key]
    found = store.kept(wanted("new"), given)
    assert found is not None
    assert isinstance(found.arrays[0], np.memmap)
    assert [folder.name for folder in store.all()] == [wanted("new").key]


def test_a_place_that_cannot_be_written_costs_only_the_keeping(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    given = Pass()
    assert equal(
        HiddenStateStore(tmp_path / "file" / "hidden", 1 << 20).kept(wanted(), given), given
    )


def test_a_store_that_cannot_be_written_is_read(
    store: HiddenStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    given = Pass()
    store.kept(wanted(), given)
    monkeypatch.setattr(hidden_states, "FileLock", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    found = store.kept(wanted(), given)
    assert equal(found, given)
    assert found is not None
    assert isinstance(found.arrays[0], np.memmap)
    assert equal(store.kept(wanted("other"), given), given)
    assert given.times == 2


def test_what_a_killed_process_left_is_nothing(store: HiddenStateStore) -> None:
    key = wanted().key
    half = store.folder / f".{key}.tmp-half"
    half.mkdir(parents=True)
    (half / "state-0.npy").write_bytes(b"half")
    gone = store.folder / f".{'b' * 64}.old-half"
    (gone / "gone").mkdir(parents=True)
    given = Pass()
    assert {path.name for path in store.leftovers()} == {half.name, gone.name}
    assert equal(store.kept(wanted(), given), given)
    assert list(store.leftovers()) == []
    assert given.times == 1


_PROCESS = """
import sys, time
import numpy as np
from pathlib import Path
from kbench.store.hidden_states import HiddenStateStore, StateRequest
folder = Path(sys.argv[1])
def blocks():
    with (folder / "asked").open("a") as log:
        log.write("x")
    for number in range(4):
        time.sleep(0.2)
        yield [np.full((8, 4), number, np.float32)]
counts = np.full(4, 8)
wanted = StateRequest({"name": "a"}, counts, np.arange(4), (4,))
(folder / f"here-{sys.argv[2]}").touch()
while len(list(folder.glob("here-*"))) < 3:
    time.sleep(0.01)
found = HiddenStateStore(folder / "hidden", 1 << 20).kept(wanted, blocks)
assert "torch" not in sys.modules
print(found.arrays[0].sum(), type(found.arrays[0]).__name__)
"""


def test_of_several_processes_one_reads_and_the_others_wait(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PROCESS, str(tmp_path)]
    started = [
        subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(3)
    ]
    told = [process.communicate(timeout=60)[0] for process in started]
    assert told == ["192.0 memmap\n"] * 3
    assert (tmp_path / "asked").read_text() == "x"


def test_the_bound_is_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(hidden_states.BYTES, raising=False)
    assert hidden_bytes() == 20 << 30
    monkeypatch.setenv(hidden_states.BYTES, "0")
    assert hidden_bytes() == 0
    for wrong in ("20GB", "-1", "²"):
        monkeypatch.setenv(hidden_states.BYTES, wrong)
        with pytest.raises(UsageError, match="whole number of bytes, 0 to keep no"):
            hidden_bytes()
