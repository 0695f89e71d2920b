"""Runs of one content are one run, however their parts are spelled; a result says its defaults."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kbench.grid import runner
from kbench.grid.plan import Place
from kbench.results.identity import options
from kbench.results.tables import rows
from kbench.store import Results, Status
from tests.grid.toygrid import QUICK, grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")


def test_a_control_of_another_spelling_and_machine_gives_the_gain(
    toy_folder: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    (tmp_path / "m2").mkdir()
    for name in ("bert", "kb"):
        shutil.copytree(toy_folder / name, tmp_path / "m2" / name)
    (tmp_path / "link").symlink_to(toy_folder / "kb")
    epochs = {**QUICK, "tuning": {"full": {**QUICK["tuning"]["full"], "micro_batch": 8}}}
    ours = run(grid(toy_folder, control="none", setting="general", options=QUICK), place)
    run(
        grid(
            tmp_path / "m2",
            method="map-tuning",
            control="foreign",
            setting="general",
            knowledge=f"{tmp_path / 'link'}/",
            options=epochs,
        ),
        place,
    )
    assert {result.status for result in Results(place.out)} == {Status.OK}
    (row,) = rows(
        [r for r in ours if r.spec.knowledge], Results(place.out), beside=Results(place.out)
    )
    assert row.delta is not None
    assert row.gain is not None
    assert (row.name("backbone"), row.name("knowledge")) == ("bert", "kb")


def test_a_result_says_what_its_options_would_be_otherwise(
    toy_folder: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    chosen = {"full": {"epochs": 1, "clip": 1.0}}
    about = {"tuning": chosen, "method": {"map-tuning": {"general": {"epochs": 1}}}}
    about["method"]["map-tuning"]["max_length"] = 64
    found = run(grid(toy_folder, control="none", setting="general", options=about), place)
    (result,) = (r for r in found if r.spec.knowledge)
    assert result.status == Status.OK
    assert result.provenance is not None
    defaults = result.provenance.defaults
    assert {*defaults} == {
        "tuning.full.epochs",
        "tuning.full.clip",
        "method.map-tuning.general.epochs",
        "method.map-tuning.max_length",
    }
    assert defaults["method.map-tuning.max_length"] == 64
    assert "method.map-tuning.max_length" not in options(result)
    assert options(result)["tuning.full.epochs"] == 1


def test_a_bundle_changed_in_place_stands_for_no_stored_result(
    toy_folder: Path, tmp_path: Path
) -> None:
    kb = Path(shutil.copytree(toy_folder / "kb", tmp_path / "kb"))
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    asked = grid(toy_folder, knowledge=str(kb), method="map-tuning", control="none", options=QUICK)
    (cell,) = runner.plan(runner.resolve(asked), place)
    assert cell.problem is None
    vectors = np.load(kb / "vectors.npy")
    np.save(kb / "vectors.npy", vectors[::-1])
    (cell,) = runner.plan(runner.resolve(asked), place)
    assert "does not have the content its card states" in str(cell.problem)
    (result,) = run(asked, place)
    assert result.status == Status.REFUSED
    assert not place.out.exists() or not list(Results(place.out))
