"""The grid: work is shared, nothing stored is repeated, and a seed says all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kbench.errors import UsageError
from kbench.grid import runner, worker
from kbench.grid.executor import Setup
from kbench.grid.executors import local
from kbench.grid.executors.local import Local
from kbench.grid.plan import Place
from kbench.spec import Control, Setting
from kbench.store import Artifacts, Status
from tests.grid.toygrid import QUICK, grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")


def test_frozen_weights_are_the_same_before_and_after(toy_folder: Path, place: Place) -> None:
    results = run(grid(toy_folder, setting="general,task-specific", options=QUICK), place)
    digests = {(r.frozen.before, r.frozen.after) for r in results if r.frozen}
    assert len(results) == 5
    assert len(digests) == 1
    before, after = digests.pop()
    assert before == after


def test_methods_share_downstream_models_and_tasks_share_general_plugs(
    toy_folder: Path, place: Place
) -> None:
    chosen = grid(toy_folder, task="toy-*", setting="general,task-specific", options=QUICK)
    run(chosen, place)
    kinds = [path.parent.name for path in Artifacts(place.artifacts).all()]
    # Three tasks tuned once each; two general plugs (true and foreign), and two a task.
    assert kinds.count("model") == 3
    assert kinds.count("plug") == 2 + 3 * 2


def test_a_stored_grid_trains_and_runs_nothing(
    toy_folder: Path, shared: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(grid(toy_folder), shared)

    def explode(*_: Any, **__: Any) -> None:
        raise AssertionError("something was computed again")

    monkeypatch.setattr(worker, "evaluate", explode)
    assert run(grid(toy_folder), shared) == first


def test_a_further_method_setting_retunes_nothing(toy_folder: Path, place: Place) -> None:
    run(grid(toy_folder, options=QUICK), place)
    more = grid(toy_folder, control="none,foreign,zero", options=QUICK)
    cells = runner.plan(runner.resolve(more), place)
    artifacts = Artifacts(place.artifacts)
    todo = [cell for cell in cells if not cell.done]
    assert [cell.spec.control for cell in todo] == [Control.ZERO]
    assert all(("model", cell.model or "") in artifacts for cell in todo)


def test_the_same_seed_gives_the_same_bytes(toy_folder: Path, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        place = Place(tmp_path / name / "out", tmp_path / name / "artifacts", "cpu")
        run(grid(toy_folder, options=QUICK), place)
        files = sorted((tmp_path / name).glob("artifacts/*/*/weights.safetensors"))
        files += sorted((tmp_path / name).glob("out/*/predictions.parquet"))
        made.append([(file.parent.name, file.read_bytes()) for file in files])
    assert made[0] == made[1]
    assert len(made[0]) == 3 + 3


def test_another_seed_gives_another_plug(toy_folder: Path, place: Place) -> None:
    cells = runner.plan(runner.resolve(grid(toy_folder, seed="0,1")), place)
    assert len({cell.plug for cell in cells if cell.plug}) == 4
    assert len({cell.id for cell in cells}) == 6


def test_two_jobs_give_the_results_of_one(toy_folder: Path, tmp_path: Path) -> None:
    # Toy tasks exist in this process alone, so the embedded ones run, on a few examples.
    scores = []
    for jobs in (1, 2):
        place = Place(tmp_path / str(jobs) / "out", tmp_path / str(jobs) / "a", "cpu", 1)
        chosen = grid(
            toy_folder,
            task="atlas-relations,atlas-typing",
            method="none",
            limit=40,
            options={"tuning": {"full": {"epochs": 1}}},
        )
        results = run(chosen, place, executor=Local(Setup(jobs)))
        assert [result.status for result in results] == [Status.OK] * 2, results[0].reason
        scores.append([result.metrics for result in results])
    assert scores[0] == scores[1]


def test_a_job_takes_what_no_other_is_making(toy_folder: Path, place: Place) -> None:
    chosen = grid(toy_folder, setting="task-specific", seed="0,1")
    cells = {
        (cell.spec.method, cell.spec.seed): cell
        for cell in runner.plan(runner.resolve(chosen), place)
        if cell.spec.control == Control.NONE
    }
    none, mapped, other = (cells[key] for key in (("none", 0), ("map-tuning", 0), ("none", 1)))
    assert mapped.needs == {none.model, mapped.plug, mapped.start}
    assert mapped.start not in (None, mapped.plug)
    waiting = [mapped, other]
    assert local._next(waiting, [none], set()) is other
    assert local._next(waiting, [none], {none.model}) is mapped
    assert local._next(waiting, [], set()) is mapped
    assert local._next([mapped], [none], set()) is mapped  # waiting beats idling


def test_a_job_takes_first_what_most_others_wait_for(toy_folder: Path, place: Place) -> None:
    cells = runner.plan(
        runner.resolve(grid(toy_folder, setting="task-specific", seed="0,1")), place
    )
    first = [cell for cell in cells if cell.spec.seed == 0]
    others = [cell for cell in cells if cell.spec.seed == 1]
    waiting = [*others[:1], *first]
    assert len(others[:1]) < len(first)
    # The model of seed 0 serves more of what waits than that of seed 1, which comes first.
    assert local._next(waiting, [], set()).spec.seed == 0
    models = {cell.model for cell in first if cell.model}
    assert local._next(waiting, [first[0]], set()) is others[0]
    assert local._next([others[0], first[0]], [], models) is others[0]


def test_grids_of_a_file_have_their_turn_one_after_the_other(
    toy_folder: Path, place: Place
) -> None:
    alone = grid(toy_folder, method="none", seed="2")
    shared = grid(toy_folder, setting="task-specific", seed="2,3")
    found = runner.turns(alone, shared)
    specs, turns = [spec for spec, _ in found], [turn for _, turn in found]
    assert specs == runner.resolve(alone, shared)
    assert turns == [0] + [1] * (len(specs) - 1)
    waiting = runner.plan(specs[::-1], place, turns=turns[::-1])
    # What the second grid makes serves more that waits; the first has its turn all the same.
    assert local._next(waiting, [], set()).turn == 0
    assert local._next([cell for cell in waiting if cell.turn], [], set()).turn == 1


def test_a_limited_run_is_another_run_and_says_so(toy_folder: Path, place: Place) -> None:
    whole = run(grid(toy_folder, method="none", options=QUICK), place)
    part = run(grid(toy_folder, method="none", limit=20, options=QUICK), place)
    assert whole[0].id != part[0].id
    assert part[0].spec.limit == 20
    assert part[0].score is not None
    assert part[0].score.n == 20


def test_the_general_plug_does_not_depend_on_the_task(toy_folder: Path, place: Place) -> None:
    chosen = grid(toy_folder, task="toy-*", method="map-tuning", setting="general")
    cells = runner.plan(runner.resolve(chosen), place)
    assert len({cell.plug for cell in cells}) == 2
    assert len({cell.model for cell in cells}) == 3


def test_the_yardstick_has_one_cell_however_many_settings_and_controls(
    toy_folder: Path,
) -> None:
    specs = runner.resolve(grid(toy_folder, method="none", setting=[*Setting], control=[*Control]))
    assert len(specs) == 1
    assert specs[0].knowledge is None


def test_unknown_options_are_refused_before_anything_runs(toy_folder: Path, place: Place) -> None:
    bad = grid(toy_folder, options={"method": {"map-tuning": {"general": {"epoch": 3}}}})
    with pytest.raises(UsageError, match="did you mean epochs"):
        runner.plan(runner.resolve(bad), place)
