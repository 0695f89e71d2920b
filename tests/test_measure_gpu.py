"""`scripts/measure_gpu.py` ends in time, says what it left out, and measures what it says."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kbench.parts import registry
from scripts import measure_gpu
from scripts.measure_gpu import Found, Plan, in_time, installed, measured, tables

METHODS = {"map-tuning": ["general", "task-specific"], "ra": ["general"]}
WORKER = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[-1])
items = json.loads((folder / "items.json").read_text())
file = (folder / "lines.jsonl").open("a")
def tell(**line):
    print(json.dumps(line), file=file, flush=True)
tell(machine={"name": "played"})
for item in items:
    tell(begun=item["number"])
    if item["what"] == DIES:
        print("a last word", flush=True)
        os._exit(9)
    if item["what"] == HANGS:
        time.sleep(600)
    tell(number=item["number"], figures={"seconds": 0.5, "tokens": 10.0})
"""


def played(folder: Path, *, dies: str = "", hangs: str = "") -> list[str]:
    """The command of a process that measures nothing, and dies or hangs at an item."""
    path = folder / "worker.py"
    path.write_text(WORKER.replace("DIES", repr(dies)).replace("HANGS", repr(hangs)))
    return [sys.executable, str(path)]


def plan() -> Plan:
    return Plan.of(["tiny-bert", "tiny-llama"], ["full", "lora"], METHODS)


def test_what_matters_comes_first_and_nothing_twice() -> None:
    items = plan().items
    names = [json.dumps(item) for item in items]
    assert len({*names}) == len(names)
    first = [item["what"] for item in items if item["shape"] == "tiny-bert"][:5]
    assert first == [*measure_gpu._FIRST]
    whats = {item["what"] for item in items}
    assert {"plain", "tune:lora", "fit:ra:general", "fit:map-tuning:general"} <= whats
    assert {(item["shape"], item["dtype"]) for item in items if item["compiled"]} == {
        (shape, dtype) for shape in ("tiny-bert", "tiny-llama") for dtype in measure_gpu.DTYPES
    }
    compiled = [item["compiled"] for item in items]
    assert compiled == sorted(compiled)


@pytest.mark.parametrize("takes", [0.1, 1.0, 30.0])
def test_the_time_is_shared_and_none_is_overdrawn(takes: float) -> None:
    now = 0.0

    def clock() -> float:
        return now

    items, until = plan().items, 60.0
    done = []
    for item, there_is in in_time(items, until, clock):
        if there_is:
            assert now < until
            done.append(item)
            now += takes
    blocks = {measure_gpu._block(item) for item in items}
    measured_of = {measure_gpu._block(item) for item in done}
    if takes == 0.1:
        assert len(done) == len(items)
    elif takes == 1.0:
        assert measured_of == blocks  # of a slow block some is left, of no block all
    else:
        assert [item["what"] for item in done] == ["read", "through"]
    assert now < until + takes


def test_a_process_that_dies_takes_its_item_with_it_and_no_other(tmp_path: Path) -> None:
    command = played(tmp_path, dies="tune:lora")
    found = measured(plan(), tmp_path, {}, {}, time.time() + 60, command)
    dead = [line for line in found.lines if "problem" in line]
    assert {line["what"] for line in dead} == {"tune:lora"}
    assert len(dead) == 4
    assert all("the process died: a last word" in line["problem"] for line in dead)
    assert len(found.lines) == len(plan().items)
    assert found.left == []


def test_a_process_that_hangs_is_ended_and_what_is_left_is_said(tmp_path: Path) -> None:
    command = played(tmp_path, hangs="tune:full")
    started = time.monotonic()
    found = measured(plan(), tmp_path, {}, {}, time.time() + 3, command)
    assert time.monotonic() - started < 10
    assert [line["what"] for line in found.lines] == ["read", "through"]
    assert len(found.lines) + len(found.left) == len(plan().items)
    assert found.left[0]["problem"] == "the time ended"
    told = tables(found)
    assert f"No time was left for {len(found.left)} of all: tiny-bert float32 tune:full" in told
    assert "| `read` | 500 | 10 |" in told


def test_what_cannot_begin_is_no_endless_loop(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no torch here')"]
    found = measured(plan(), tmp_path, {}, {}, time.time() + 60, command)
    assert found.lines == []
    assert found.machine["problem"] == "no torch here"


def test_a_table_sets_a_method_against_what_it_has_to_wait_for() -> None:
    line: dict[str, Any] = {"shape": "s", "dtype": "float32", "compiled": False}
    found = Found({"name": "played", "bytes": 2**34, "torch": "2"}, {"status": 0, "seconds": 3.0,
                  "passed": 8, "failed": 0, "skipped": 2})  # fmt: skip
    found.lines = [
        {**line, "what": "through", "seconds": 0.02, "tokens": 1e5, "peak": 3e9},
        {**line, "what": "fit:a|b:general", "seconds": 0.03, "reading": 0.01},
        {**line, "what": "tune:full", "seconds": 0.06, "bare": 0.05},
        {**line, "what": "plain", "problem": "does not fit"},
    ]
    told = tables(found)
    assert "played, 16 GiB; torch 2." in told
    assert "`tests/gpu`: 8 passed, 0 failed, 2 skipped in 3 s." in told
    assert "| `through` | 20 | 100,000 | 3.00 |  |  |  |" in told
    assert "| `fit:a/b:general` | 30 |  |  | 1.50 | 10 |  |" in told
    assert "| `tune:full` | 60 |  |  | 1.20 |  |  |" in told
    assert "| `plain` |  |  |  |  |  | does not fit |" in told


def test_its_tests_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tests of its own here: those of tests/gpu are skipped without one."""
    (tmp_path / "tests" / "gpu").mkdir(parents=True)
    (tmp_path / "tests" / "gpu" / "test_two.py").write_text(
        "import pytest\n\n\ndef test_one():\n    pass\n\n\ndef test_two():\n"
        "    assert 'this' == 'that'\n\n\ndef test_three():\n    pytest.skip('no GPU')\n"
    )
    monkeypatch.setattr(measure_gpu, "ROOT", tmp_path)
    found = measure_gpu.tested(tmp_path, {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, 60)
    assert (found["passed"], found["failed"], found["skipped"]) == (1, 1, 1)
    assert "that" in found["end"]


def test_it_measures_on_a_cpu_as_on_a_bare_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With parts found from pyproject.toml, in a process of its own."""
    words = ["--no-tests", "--device", "cpu", "--shapes", "tiny-bert,tiny-llama", "--steps", "1"]
    words += ["--longest", "0.2", "--batch", "4", "--seconds", "900", "--out", str(tmp_path)]
    words += ["--methods", "map-tuning,ra", "--tunings", "full", "--dtypes", "bfloat16"]
    words += ["--no-compile"]
    assert measure_gpu.main(words) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    lines = {(line["shape"], line["dtype"], line["what"]): line for line in found["lines"]}
    problems = {key: line["problem"] for key, line in lines.items() if line["problem"]}
    assert [*problems] == [("tiny-llama", "bfloat16", "plain")]
    assert found["left"] == []
    assert len(lines) == 2 * 7
    for key, line in lines.items():
        if key not in problems:
            timed = line["what"] != "fit:ra:general"  # which trains nothing
            assert (line["steps"] > 0) == timed, key
            assert (line["seconds"] or 0) > 0 or not timed, key
            assert (line["tokens"] or 0) > 0 or not timed, key
            assert (line["reading"] or 0) > 0 or not line["what"].startswith("fit:"), key
            assert (line["bare"] or 0) > 0 or line["what"] not in ("read", "tune:full"), key
    told = (tmp_path / "gpu.md").read_text()
    assert told.strip() == capsys.readouterr().out.strip()
    assert "**tiny-llama, bfloat16**" in told


def test_the_parts_are_those_of_the_project(tmp_path: Path) -> None:
    tunings, methods = measure_gpu._parts_of(installed(tmp_path))
    assert {*methods} >= {"map-tuning", "kblam", "none"}
    assert {*tunings} == {*registry.names("tunings")} - {"frozen", "prompted"}
    assert methods["map-tuning"] == ["general", "task-specific"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "nobody"], "error: --methods nobody: expected some of .*map-tuning"),
        (["--shapes", "bert-vast,bert-base"], "error: --shapes bert-vast: expected some of bert-"),
        (["--tunings", "loud"], "error: --tunings loud: expected some of .*full"),
        (["--dtypes", "float8"], "error: --dtypes float8: expected some of float32, bfloat16"),
        (["--device", "xpu:3"], "error: --device xpu:3: PyTorch finds none here"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_measured(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure_gpu.main(["--no-tests", "--out", str(tmp_path / "gpu"), *words]) == 2
    assert re.match(said, capsys.readouterr().out)
    assert not (tmp_path / "gpu").exists()
