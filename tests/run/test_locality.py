"""How far a plug moves a model: not at all where nothing is linked, and that is a number."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kbench.grid.plan import Place
from kbench.results.tables import rows
from kbench.store import Results
from kbench.testing.toys import write_backbone, write_world
from tests.grid.toygrid import QUICK, grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy world with half of its entities, so that the other half is linked to nothing."""
    folder = tmp_path_factory.mktemp("half")
    write_world(folder, entities=240)
    return folder


def measured(folder: Path, half: Path, place: Place, **changes: Any) -> tuple[Any, Results]:
    chosen = grid(folder, knowledge=str(half), control="none", options=QUICK, **changes)
    none, plugged = run(chosen, replace(place, locality=True))
    assert not none.locality
    store = Results(place.out)
    stored = next(r for r in store if r.id == plugged.id)
    assert stored.locality == plugged.locality
    return plugged, store


@pytest.mark.parametrize("task", ["toy-qa", "toy-relations"])
def test_where_nothing_is_linked_a_decoder_says_the_same(
    toy_folder: Path, half: Path, tmp_path: Path, task: str
) -> None:
    backbone = write_backbone(tmp_path / "llama", left_to_right=True)
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    changes = {"task": task, "backbone": str(backbone), "tuning": "prompted"}
    plugged, store = measured(toy_folder, half, place, **changes)
    told = plugged.locality
    assert told["examples"] == 96
    assert told["examples_unlinked"] == 48
    assert told["kl_unlinked"] == pytest.approx(0.0, abs=1e-9)
    assert told["same_first_unlinked"] == 1.0
    assert told["kl"] > 1e-6
    assert told["perplexity_without"] > 1
    assert math.isfinite(told["perplexity_ratio"])
    assert told["perplexity_ratio"] != pytest.approx(1.0, abs=1e-6)
    row = next(row for row in rows([plugged], store, beside=list(store)) if row.moved)
    assert row.moved["kl"] == told["kl"]


def test_an_encoder_has_no_perplexity_and_is_asked_at_its_mask(
    toy_folder: Path, half: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    plugged, _ = measured(toy_folder, half, place, task="toy-qa")
    assert plugged.locality["same_first_unlinked"] == 1.0
    assert plugged.locality["kl"] > 1e-6
    assert "perplexity_ratio" not in plugged.locality


def test_without_being_asked_nothing_is_measured(
    toy_folder: Path, half: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    chosen = grid(toy_folder, knowledge=str(half), control="none", options=QUICK)
    assert not any(result.locality for result in run(chosen, place))
    assert all("locality" not in result.as_json() for result in Results(place.out))
