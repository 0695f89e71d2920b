"""Executors by name, and the steps of a cluster done one by one, without one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kbench.errors import KbenchError, UsageError
from kbench.grid import runner
from kbench.grid.executor import Setup, find_executor
from kbench.grid.executors import ray_step
from kbench.grid.executors.local import Local
from kbench.grid.executors.ray import Ray
from kbench.grid.executors.ray_cluster import _reach
from kbench.grid.executors.ray_step import Desk, Done, perform
from kbench.grid.plan import Cell, Place
from kbench.grid.pool import Limits
from kbench.grid.steps import steps
from kbench.pipeline.stages import Stage
from kbench.store import Results, Status
from tests.calling import call
from tests.cluster.conftest import outcome, toy_grid, weights

pytestmark = pytest.mark.usefixtures("toy_tasks")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_step, "_kept", None)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Ray were installed: what is refused is refused before it is used."""
    monkeypatch.setitem(sys.modules, "ray", sys)


def _step_by_step(
    cells: list[Cell], place: Place, store: Path, caches: Path, patch: Any
) -> list[Done]:
    """Does the steps in order, each on a machine that has nothing but the store."""
    (store / "mark").parent.mkdir(parents=True)
    (store / "mark").touch()
    desk = Desk(place, f"file://{store}", "mark", str(Path.cwd()))
    done: dict[str, Done] = {}
    for number, step in enumerate(steps(cells, set())):
        patch.setenv("KBENCH_CACHE", str(caches / str(number)))
        patch.setattr(ray_step, "_kept", None)
        done[step.key] = perform(
            desk, step, lambda *_: None, tuple(done[key] for key in step.after)
        )
    return [done[cell.id] for cell in cells]


def test_steps_on_machines_of_their_own_give_the_bytes_of_one_process(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = runner.resolve(toy_grid(toy_folder))
    here = Place(tmp_path / "here", tmp_path / "artifacts", "cpu", 1)
    runner.run(runner.plan(chosen, here), here, executor=Local())
    there = replace(here, out=tmp_path / "there")
    cells = runner.plan(chosen, there)
    done = _step_by_step(cells, there, tmp_path / "store", tmp_path / "caches", monkeypatch)
    for result, predictions in done:
        assert result is not None
        Results(there.out).save(result, predictions)
    assert outcome(there.out) == outcome(here.out)
    assert len(outcome(here.out)) == len(cells) == 14
    assert weights(tmp_path / "store") == weights(here.artifacts)


def test_a_stage_that_fails_ends_the_runs_that_need_it_and_no_other(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kbench_baselines.map_tuning import MapTuning

    def boom(*_: Any) -> None:
        raise ValueError("boom")

    monkeypatch.setattr(MapTuning, "fit", boom)
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu", 1)
    cells = runner.plan(runner.resolve(toy_grid(toy_folder)), place)
    done = _step_by_step(cells, place, tmp_path / "store", tmp_path / "caches", monkeypatch)
    for cell, (result, _) in zip(cells, done, strict=True):
        assert result is not None
        assert (result.id, result.spec) == (cell.id, cell.spec)
        assert result.status == (Status.FAILED if cell.plug else Status.OK)
        assert ("ValueError: boom" in result.reason) == bool(cell.plug)
        assert result.provenance is not None


def test_a_machine_that_reads_other_data_makes_nothing(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu", 1)
    cells = [
        replace(cell, id="0" * 32)
        for cell in runner.plan(runner.resolve(toy_grid(toy_folder, method="none")), place)
    ]
    done = _step_by_step(cells[:1], place, tmp_path / "store", tmp_path / "caches", monkeypatch)
    assert done[0][0] is not None
    assert "is not what was planned" in done[0][0].reason
    assert not weights(tmp_path / "store")


@pytest.mark.parametrize("store", ["memory://elsewhere", "{folder}/elsewhere"])
def test_a_machine_that_does_not_see_the_store_says_so(
    store: str, toy_folder: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu", 1)
    cells = runner.plan(runner.resolve(toy_grid(toy_folder, method="none")), place)
    desk = Desk(place, store.format(folder=tmp_path), "mark", str(tmp_path / "no folder"))
    with pytest.raises(KbenchError, match=r"does not see the store .*elsewhere of the driver"):
        perform(desk, steps(cells, set())[0], lambda *_: None, ())


def test_executors_are_found_by_name() -> None:
    assert find_executor("local") is Local
    assert find_executor("ray") is Ray
    with pytest.raises(UsageError, match="no executor is called 'rya'; did you mean ray"):
        find_executor("rya")


def test_the_local_executor_has_no_options() -> None:
    with pytest.raises(UsageError, match="executor local has no options"):
        Local(Setup(options={"gpus": "1"}))


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(
    ("setup", "said"),
    [
        (Setup(options={"gpu": "1"}), "no option 'gpu'; did you mean gpus"),
        (Setup(options={"gpus.fit": "one"}), "gpus.fit=one: expected a number"),
        (Setup(options={"cpus": "-1"}), "cpus=-1: expected a number, 0 or more"),
        (
            Setup(options={"address": "ray://head:10001"}),
            "is not supported; run the command",
        ),
        (Setup(jobs=2), "--jobs, --time-limit and --memory-limit are for --executor local"),
        (Setup(limits=Limits(seconds=3)), "are for --executor local"),
    ],
)
def test_what_ray_cannot_do_is_refused(setup: Setup, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Ray(setup)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no.such.host.invalid:6379"])
def test_an_address_where_nothing_listens_is_refused_at_once(address: str) -> None:
    with pytest.raises(UsageError, match=f"no Ray cluster answers at {address} .* expected -o add"):
        _reach(address)


@pytest.mark.usefixtures("ray")
def test_stages_ask_for_what_is_given_for_them_or_for_all() -> None:
    class Cluster:
        total = staticmethod(lambda resource: {"GPU": 8.0, "CPU": 64.0}[resource])

    given = Ray(Setup(options={"gpus.evaluate": "0.25", "cpus": "4", "cpus.tune": "8"}))
    asked = {s: given._need(s, "auto", Cluster()) for s in Stage}  # type: ignore[arg-type]
    assert {s: (n.cpus, n.gpus) for s, n in asked.items()} == {
        Stage.TUNE: (8, 1),
        Stage.START: (4, 1),
        Stage.FIT: (4, 1),
        Stage.EVALUATE: (4, 0.25),
    }
    assert Ray()._need(Stage.FIT, "cpu", Cluster()).gpus == 0  # type: ignore[arg-type]


def test_without_ray_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    status, out, err = call(capsys, "run", "--executor", "ray")
    assert (status, out) == (2, "")
    assert "pip install 'knowledge-bench[ray]'" in err
    assert len(err.splitlines()) == 1
