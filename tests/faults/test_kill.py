"""Kill -9 among processes on one store: nothing is lost, nothing is there twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kbench.store import Artifacts, Results, Status
from tests.faults.conftest import ROOT

_PROCESSES = 4
# One process imports all and forks: a process more on the store costs no start of Python.
_NURSERY = """
import os, sys
from pathlib import Path
import torch, transformers
from transformers import BertForMaskedLM
from kbench.grid import runner
from kbench.grid.plan import Place
from kbench.parts.catalogue import Kind
from kbench.testing import registered
from tests.grid.toygrid import grid, run
folder, seeds, toys = Path(sys.argv[1]), sys.argv[2], "kbench.testing.toys:"
torch.set_num_threads(1)
options = {"tuning": {"full": {"epochs": 2}}, "method": {"map-tuning": {"start": "scratch",
    "task-specific": {"epochs": 2}}}}
chosen = grid(folder, task="toy-relations,toy-typing", options=options, seed=seeds)
with registered(Kind.TASKS, toy_typing=toys + "ToyTyping", toy_relations=toys + "ToyRelations"):
    print("ready", flush=True)
    while line := sys.stdin.readline():
        word, text = line.split()
        if word == "wait":
            print(os.waitpid(int(text), 0)[1], flush=True)
        elif pid := os.fork():
            print(pid, flush=True)
        else:
            status, out = 1, Path(text)
            try:
                run(chosen, Place(out / "results", out / "artifacts", "cpu", 1))
                status = 0
            finally:
                os._exit(status)
"""


class _Nursery:
    def __init__(self, toy_folder: Path, seeds: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY, str(toy_folder), seeds],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        assert self._answer() == "ready"

    def start(self, out: Path) -> int:
        return int(self._ask(f"run {out}"))

    def wait(self, pid: int) -> int:
        return int(self._ask(f"wait {pid}"))

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def _nursery(toy_folder: Path, seeds: str) -> Iterator[_Nursery]:
    nursery = _Nursery(toy_folder, seeds)
    try:
        yield nursery
    finally:
        nursery.close()


def _outcome(out: Path) -> dict[str, tuple[object, bytes]]:
    found = {}
    for result in Results(out / "results"):
        assert result.status == Status.OK, result.reason
        path = out / "results" / result.id / "predictions.parquet"
        found[result.id] = (result.metrics, path.read_bytes())
    return found


def _weights(out: Path) -> dict[str, bytes]:
    stored = Artifacts(out / "artifacts").all()
    return {path.name: (path / "weights.safetensors").read_bytes() for path in stored}


def _good(out: Path) -> set[str]:
    paths = (out / "results").glob("[0-9a-f]*/result.json")
    return {path.parent.name for path in paths if '"status": "ok"' in path.read_text()}


def _disturbed(nursery: _Nursery, out: Path, kills: int, rng: random.Random) -> int:
    """Keeps four processes on a store, killing one after the other, until one comes to the end.

    Returns how many were killed at work, at most ``kills``.
    """
    known, killed = set[str](), 0
    running = [nursery.start(out) for _ in range(_PROCESSES)]
    while killed < kills:
        time.sleep(rng.uniform(0.02, 0.5))
        victim = running.pop(rng.randrange(len(running)))
        os.kill(victim, signal.SIGKILL)  # one that has ended waits to be asked for, as a zombie
        status = nursery.wait(victim)
        now = _good(out)
        assert known <= now, "a good result is gone"
        if status == 0:
            break  # it had come to the end before
        assert status == signal.SIGKILL, "a process failed before it was killed"
        known, killed = now, killed + 1
        running.append(nursery.start(out))
    for pid in running:
        assert nursery.wait(pid) == 0
    return killed


@pytest.mark.parametrize(
    ("kills", "seeds"),
    [(5, "0"), pytest.param(100, "0,1,2", marks=pytest.mark.faults, id="a hundred times")],
)
def test_stores_of_killed_processes_end_as_an_undisturbed_one(
    kills: int, seeds: str, toy_folder: Path, tmp_path: Path
) -> None:
    calm, rng, done = tmp_path / "calm", random.Random(kills), 0
    with _nursery(toy_folder, seeds) as nursery:
        assert nursery.wait(nursery.start(calm)) == 0
        assert len(_outcome(calm)) == 6 * len(seeds.split(","))
        for number in range(kills):
            out = tmp_path / f"killed-{number}"
            done += _disturbed(nursery, out, kills - done, rng)
            assert nursery.wait(nursery.start(out)) == 0
            assert _outcome(out) == _outcome(calm)
            assert _weights(out) == _weights(calm)
            if done == kills:
                return
    raise AssertionError(f"{done} processes were killed at work, of {kills}")
