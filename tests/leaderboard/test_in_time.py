"""What strangers send is read for so long and no longer, and what is left is said."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import pytest

from kbench_leaderboard.in_time import InTime
from kbench_leaderboard.submission import Entry, read
from kbench_leaderboard.verify import verify
from tests.board_world import GOLD, guesses
from tests.calling import call
from tests.stored import predictions, store


@pytest.mark.parametrize(("seconds", "seen"), [(0.5, 1), (2.5, 3), (4.5, 5), (99.0, 5)])
def test_it_ends_when_the_time_is_up(seconds: float, seen: int) -> None:
    now = 0.0

    def entries() -> list[Entry]:
        return [Entry(str(number), Path(), None, problem="none") for number in range(5)]

    timed = InTime(entries(), seconds, lambda: now)
    found = []
    for entry in timed:
        found.append(entry.where)
        now += 1.0  # to read it and to check it
    assert found == [str(number) for number in range(seen)]
    assert timed.seen == seen
    assert timed.ended == (seconds < 5)


@pytest.mark.parametrize("packed", [False, True])
def test_what_was_not_checked_is_a_finding(
    packed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for method in ("none", "map-tuning", "ra"):
        store(out, predictions(GOLD, guesses(0.5, 0)), task="atlas-relations", method=method)
    path = out
    if packed:
        path = Path(shutil.make_archive(str(tmp_path / "results"), "zip", out))
    words = ["leaderboard", "verify", str(path), "--time-limit"]
    status, told, _ = call(capsys, *words, "0.000001")
    assert status == 1
    assert f"{path}: 2 of 3 results were not checked: the time is up (--time-limit 1e-06)" in told
    status, told, _ = call(capsys, *words, "0.000001", "--json")
    assert status == 1
    found = [json.loads(line) for line in told.splitlines()]
    assert len({line["where"] for line in found} - {""}) == 1
    # The yardstick and the control are among what was not read, or are not: it is not known.
    assert not [line for line in found if "is not there" in line["text"]]
    assert "not checked" not in call(capsys, *words, "3600")[1]


@pytest.mark.faults
def test_the_time_goes_with_the_number_of_results(tmp_path: Path) -> None:
    """What results say of each other is looked up, never all of them by all of them."""
    rng, gold = random.Random(0), [f"is-{n % 4}" for n in range(60)]
    taken = []
    for count, folder in ((100, tmp_path / "few"), (800, tmp_path / "many")):
        for number in range(count):
            guessed = [one if rng.random() < 0.7 else rng.choice(gold) for one in gold]
            method = ("none", "map-tuning", "ra", "kar")[number % 4]
            found = predictions(gold, guessed)
            store(folder, found, task="atlas-relations", method=method, seed=number // 4)
        verify(read(tmp_path / "few"))  # what is loaded once is no matter of their number
        begun = time.process_time()
        verify(read(folder))
        taken.append(time.process_time() - begun)
    few, many = taken
    assert many < 1.5 * 8 * few
