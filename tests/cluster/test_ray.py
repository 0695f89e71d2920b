"""A Ray cluster of two nodes: the bits of one process, and nothing lost with a node."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kbench.errors import KbenchError
from kbench.grid import runner
from kbench.grid.executor import Setup
from kbench.grid.executors.local import Local
from kbench.grid.executors.ray import Ray
from kbench.grid.plan import Events, Place
from kbench.spec import RunSpec
from kbench.store import Result, Status
from tests.calling import call
from tests.cluster.conftest import Nodes, outcome, toy_grid, weights


def _far(
    chosen: list[RunSpec], place: Place, nodes: Nodes, store: str, **options: str
) -> tuple[list[Result], list[str]]:
    """Runs specs on the cluster; returns the results and what was said."""
    executor = Ray(Setup(options={"address": nodes.address, "store": store, **options}))
    lines: list[str] = []
    events = Events(step=lambda *_: None, said=lines.append)
    cells = runner.plan(chosen, place)
    return runner.run(cells, place, executor=executor, events=events), lines


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "out", tmp_path / "artifacts", "cpu", 1)


@pytest.fixture
def same(toy_folder: Path, tmp_path: Path) -> Place:
    """What this process makes of the grid that takes a while."""
    place = Place(tmp_path / "here", tmp_path / "made here", "cpu", 1)
    chosen = runner.resolve(toy_grid(toy_folder, epochs=8, setting="general,task-specific"))
    runner.run(runner.plan(chosen, place), place, executor=Local())
    return place


def test_two_nodes_give_the_bits_of_one_process(
    nodes: Nodes, toy_folder: Path, tmp_path: Path, place: Place
) -> None:
    here = replace(place, out=tmp_path / "here")
    chosen = runner.resolve(toy_grid(toy_folder, task="toy-relations"))
    runner.run(runner.plan(chosen, here), here, executor=Local())
    results, lines = _far(chosen, place, nodes, f"file://{tmp_path}/store")
    assert [result.status for result in results] == [Status.OK] * 7
    assert outcome(place.out) == outcome(here.out)
    assert weights(tmp_path / "store") == weights(here.artifacts)
    assert "2 nodes, 2 CPUs, 0 GPUs; " in lines[0]
    for name in ("one", "two"):  # both have worked, each with a copy of its own
        assert weights(nodes.cache(name))
    assert {r.provenance.hardware["threads"] for r in results if r.provenance} == {1}
    assert not [path for path in (tmp_path / "store").iterdir() if path.is_file()]
    # A path that all nodes see serves as well; what is stored there is not made again.
    other = replace(place, out=tmp_path / "again")
    _, lines = _far(chosen, other, nodes, str(here.artifacts))
    assert lines[0].endswith("; 7 stages")
    assert outcome(other.out) == outcome(here.out)


def test_a_node_killed_in_mid_run_loses_nothing(
    nodes: Nodes,
    toy_folder: Path,
    tmp_path: Path,
    place: Place,
    same: Place,
    capfd: pytest.CaptureFixture[str],
) -> None:
    third = nodes.add("third")

    def kill() -> None:
        # It is at work when it holds the lock of something that is not there yet.
        while not [*nodes.cache("third").glob("*/.*.making")]:
            time.sleep(0.02)
        nodes.kill(third)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    chosen = runner.resolve(toy_grid(toy_folder, epochs=8, setting="general,task-specific"))
    results, lines = _far(chosen, place, nodes, f"file://{tmp_path}/store")
    killer.join(timeout=1)
    assert not killer.is_alive()
    assert [result.status for result in results] == [Status.OK] * 10
    assert outcome(place.out) == outcome(same.out)
    assert weights(tmp_path / "store") == weights(same.artifacts)
    assert "3 nodes" in lines[0]
    assert any(line.startswith("again: ") for line in lines[1:])
    assert capfd.readouterr().out == ""  # it belongs to the results


def test_a_task_that_always_dies_fails_its_runs_alone(
    nodes: Nodes, toy_folder: Path, tmp_path: Path, place: Place
) -> None:
    chosen = toy_grid(
        toy_folder, task="toy-relations", method="none,deadly", setting="general", control="none"
    )
    store = str(tmp_path / "store")
    results, _ = _far(runner.resolve(chosen), place, nodes, store, retries="1")
    good, dead = results
    assert (good.status, dead.status) == (Status.OK, Status.FAILED)
    assert "lost more often than it is repeated (WorkerCrashedError" in dead.reason
    assert (place.out / dead.id / "result.json").is_file()


def test_a_store_that_the_nodes_do_not_see_stops_the_grid(
    nodes: Nodes, toy_folder: Path, place: Place
) -> None:
    chosen = runner.resolve(toy_grid(toy_folder, method="none"))
    with pytest.raises(KbenchError, match="does not see the store memory://mine of the driver"):
        _far(chosen, place, nodes, "memory://mine")
    with pytest.raises(KbenchError, match=r"the cluster has \d nodes, which need one store"):
        _far(chosen, place, nodes, "")


def test_the_command_prints_results_alone_on_stdout(
    nodes: Nodes, toy_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--task", "toy-relations", "--method", "none", "--out", str(tmp_path / "out")]
    arguments += ["--backbone", str(toy_folder / "bert"), "--set", "tuning.full.epochs=1"]
    arguments += ["--executor", "ray", "-o", f"address={nodes.address}"]
    arguments += ["-o", f"store={tmp_path}/store", "--json"]
    status, out, err = call(capfd, "run", *arguments)
    assert status == 0, err
    (line,) = out.splitlines()
    assert json.loads(line)["status"] == "ok"
    assert "Ray cluster" in err
