"""A plugin that goes wrong fails its own run, with a clear reason, and no other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kbench.grid.executor import Setup
from kbench.grid.executors.local import Local
from kbench.grid.plan import Place
from kbench.grid.pool import Limits
from kbench.store import Result, Results, Status
from tests.calling import call
from tests.faults.conftest import Script
from tests.grid.toygrid import QUICK, grid, run

pytestmark = pytest.mark.usefixtures("faulty")

_QUICK: dict[str, Any] = {
    "tuning": {"full": {"epochs": 1}},
    "method": {"map-tuning": {"start": "scratch", "task-specific": {"epochs": 1}}},
}


def _chosen(toy_folder: Path, methods: str) -> Any:
    names = methods.split(",")
    options = {**_QUICK, "method": dict.fromkeys(names, _QUICK["method"]["map-tuning"])}
    del options["method"]["none"]
    return grid(toy_folder, method=methods, control="none", options=options)


def _by_method(results: list[Result]) -> dict[str, Result]:
    return {result.spec.method: result for result in results}


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("raises", r"MuteError \(parts.py, line \d+, fit\)"),
        ("chatters", r"ValueError: .*İstanbul.*word.*… \([\d,]+ characters\)"),
        ("exits", r"SystemExit: 3 \(parts.py"),
        ("panics", r"PanicError: Regex search error: retry-limit-in-match over \(parts.py"),
        ("unset", r"the model's outputs are not finite on 96 of 96 examples"),
        ("infinite", r"infinite: the plug is not finite after training \(parameter \S+\)"),
        ("misreports", r"misreports: the plug was trained with losses that are not finite"),
    ],
)
def test_what_a_plugin_does_in_this_process_is_a_failed_run(
    method: str, reason: str, toy_folder: Path, place: Place
) -> None:
    if method in ("unset", "infinite"):
        chosen = grid(
            toy_folder,
            method=f"{method},none",
            control="none",
            options={**_QUICK, "method": {method: QUICK["method"]["map-tuning"]}},
        )
    else:
        chosen = _chosen(toy_folder, f"{method},none")
    bad, good = run(chosen, place)
    assert good.status == Status.OK
    assert bad.status == Status.FAILED
    assert re.fullmatch(f"(?s)({reason}).*", bad.reason), bad.reason
    assert bad.metrics == {}
    assert bad.provenance is not None
    if method != "infinite":
        assert bad.provenance.parts["method"] == "kbench-faulty 1.0"
        assert good.provenance is not None
        assert {*good.provenance.parts} == {"task", "method", "tuning"}  # the rest are folders
    stored = Results(place.out).load(bad.id)
    assert stored is not None
    assert stored.reason == bad.reason
    assert len(stored.reason) < 2100


def test_what_ends_its_process_ends_no_grid(
    toy_folder: Path, place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = _chosen(toy_folder, "none,vanishes,crashes,chatters,map-tuning")
    found = _by_method(run(chosen, place, executor=Local(Setup(2))))
    assert found["none"].status == found["map-tuning"].status == Status.OK
    assert "exit status 7" in found["vanishes"].reason
    assert "ended by SIGSEGV" in found["crashes"].reason
    assert "nothing that belongs" not in capfd.readouterr().out
    for name in ("vanishes", "crashes"):
        stored = Results(place.out).load(found[name].id)
        assert stored is not None
        assert stored.status == Status.FAILED
        assert stored.provenance is not None
        assert f"--method {name}" in stored.provenance.command


@pytest.mark.faults
def test_what_takes_all_memory_is_stopped(toy_folder: Path, place: Place) -> None:
    chosen = _chosen(toy_folder, "leaks,map-tuning,none")
    found = _by_method(
        run(chosen, place, executor=Local(Setup(limits=Limits(bytes=2_500_000_000))))
    )
    assert re.search(r"stopped at 2\.[5-9]\d GB of memory.*--memory-limit", found["leaks"].reason)
    assert found["map-tuning"].status == found["none"].status == Status.OK
    # The locks of the dead hold nobody up, and nothing of theirs is left behind.
    assert not [*place.artifacts.glob("*/.*.tmp-*")]


@pytest.mark.faults
def test_what_hangs_in_c_is_stopped_with_what_it_started(toy_folder: Path, place: Place) -> None:
    run(_chosen(toy_folder, "none"), place)
    chosen = _chosen(toy_folder, "hangs,map-tuning,none")
    found = _by_method(run(chosen, place, executor=Local(Setup(2, Limits(seconds=60)))))
    assert found["hangs"].reason == "stopped after 60 s (--time-limit)"
    assert found["map-tuning"].status == Status.OK
    assert not _runs(int(Path(os.environ["KBENCH_CACHE"], "child").read_text()))


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


_COMMAND = "from kbench.cli import main; main()"


@pytest.mark.faults
def test_the_command_says_what_was_stopped(
    toy_folder: Path, tmp_path: Path, script: Script
) -> None:
    chosen = _chosen(toy_folder, "vanishes,none").model_dump(mode="json")
    path = tmp_path / "grid.yaml"
    path.write_text(json.dumps(chosen))
    done = script(
        _COMMAND,
        *("run", path, "--out", tmp_path / "out", "--json", "--time-limit", "5m"),
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "FAILED" in done.stderr
    assert "its process ended with exit status 7 before the run did" in done.stderr
    ends = [json.loads(line)["status"] for line in done.stdout.splitlines()]
    assert ends == ["failed", "ok"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--time-limit", "soon", "--time-limit 'soon': expected a duration above 0 such as 90s"),
        ("--time-limit", "0", "--time-limit '0': expected"),
        ("--time-limit", "-1h", "--time-limit '-1h': expected"),
        ("--memory-limit", "8", "--memory-limit '8': expected a size above 0 such as 800MB"),
        ("--memory-limit", "8GBs", "--memory-limit '8GBs': expected"),
    ],
)
def test_a_limit_that_is_none(
    option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "run", "--dry-run", option, value)
    assert code == 2
    assert err.startswith(f"error: {said}")


def test_a_distribution_of_which_nothing_can_be_read_offers_nothing(tmp_path: Path) -> None:
    about = tmp_path / "damaged-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: damaged\nVersion: 1.0\n")
    (about / "entry_points.txt").write_bytes(b"\xff\xfe[kbench.methods]\nx = y:z\n")
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "kbench", "ls", "methods"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0
    assert "map-tuning" in done.stdout
    assert "distribution damaged offers nothing, for its metadata cannot be read" in done.stderr
    assert done.stderr.count("\n") == 1
