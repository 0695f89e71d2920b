"""The steps of a plan: each thing once, after what it needs, and nothing that is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbench.grid import runner
from kbench.grid.plan import Cell, Place
from kbench.grid.steps import Step, steps
from kbench.pipeline.stages import Stage
from kbench.spec import Setting
from tests.cluster.conftest import toy_grid

pytestmark = pytest.mark.usefixtures("toy_tasks")


@pytest.fixture
def cells(toy_folder: Path, tmp_path: Path) -> list[Cell]:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    return runner.plan(runner.resolve(toy_grid(toy_folder)), place)


def _count(found: list[Step]) -> dict[Stage, int]:
    return {stage: sum(step.stage == stage for step in found) for stage in Stage}


def test_every_step_comes_once_and_after_those_it_needs(cells: list[Cell]) -> None:
    found = steps(cells, set())
    seen: set[str] = set()
    for step in found:
        assert step.key not in seen
        assert seen.issuperset(step.after)
        seen.add(step.key)
    assert {key for cell in cells for key in cell.needs} | {cell.id for cell in cells} == seen


def test_what_runs_share_is_made_once(cells: list[Cell]) -> None:
    # Two tasks: a model each, and one each tuned around each of two fixed plugs. True and
    # shuffled knowledge: two general plugs, two fixed ones, and two task-specific ones a task.
    # What a task-specific plug starts from is the general one, which other runs surely need.
    assert _count(steps(cells, set())) == {
        Stage.TUNE: 2 + 2 * 2,
        Stage.START: 0,
        Stage.FIT: 2 + 2 + 2 * 2,
        Stage.EVALUATE: len(cells),
    }


def test_a_plug_that_only_serves_as_a_start_is_fitted_if_it_serves(
    cells: list[Cell],
) -> None:
    alone = [cell for cell in cells if cell.spec.setting == Setting.TASK_SPECIFIC]
    found = steps(alone, set())
    starts = {step.key for step in found if step.stage == Stage.START}
    assert starts == {cell.start for cell in alone if cell.start}
    for step in found:
        if step.stage == Stage.FIT:
            assert step.after == (step.cell.model, step.cell.start)


@pytest.mark.parametrize("setting", [*Setting])
def test_models_and_plugs_wait_for_each_other_as_the_setting_wants(
    setting: Setting, cells: list[Cell]
) -> None:
    cell = next(c for c in cells if c.spec.setting == setting and c.plug)
    after = {step.stage: step.after for step in steps([cell], set())}
    assert after[Stage.EVALUATE] == (cell.model, cell.plug)
    assert (cell.plug in after[Stage.TUNE]) == (setting == Setting.FINE_TUNING)
    assert (cell.model in after[Stage.FIT]) == (setting == Setting.TASK_SPECIFIC)


def test_what_is_stored_is_no_step_and_nobody_waits_for_it(cells: list[Cell]) -> None:
    cell = next(c for c in cells if c.spec.setting == Setting.TASK_SPECIFIC and c.plug)
    assert cell.model is not None
    assert cell.plug is not None
    without_model = steps([cell], {("model", cell.model)})
    assert [step.stage for step in without_model] == [Stage.START, Stage.FIT, Stage.EVALUATE]
    # With the plug there, what it started from is not needed.
    assert [step.stage for step in steps([cell], {("plug", cell.plug)})] == [
        Stage.TUNE,
        Stage.EVALUATE,
    ]
    (last,) = steps([cell], {("model", cell.model), ("plug", cell.plug)})
    assert (last.stage, last.after) == (Stage.EVALUATE, ())
