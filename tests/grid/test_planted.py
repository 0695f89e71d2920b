"""What comes of a grid: planted knowledge is found, and a result says what it is of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbench.grid.plan import Place
from kbench.results.tables import rows
from kbench.spec import Control
from kbench.store import Result, Results, Status
from tests.grid.toygrid import QUICK, grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")


def _score(results: list[Result], **wanted: Any) -> float:
    for result in results:
        spec = result.spec.model_dump()
        if all(spec[name] == value for name, value in wanted.items()):
            assert result.status == Status.OK, result.reason
            assert result.score is not None
            return result.score.value
    raise AssertionError(f"no result with {wanted}")


@pytest.mark.parametrize("task", ["toy-typing", "toy-relations", "toy-qa"])
def test_planted_knowledge_is_found_and_controls_fall_to_chance(
    task: str, toy_folder: Path, shared: Place
) -> None:
    chosen = grid(toy_folder, task=task, control="none,shuffled,random,zero,constant")
    results = run(chosen, shared)
    known = _score(results, method="map-tuning", control=Control.NONE)
    assert known > 0.8
    for control in (Control.SHUFFLED, Control.RANDOM, Control.ZERO, Control.CONSTANT):
        assert _score(results, method="map-tuning", control=control) < 0.45
    assert _score(results, method="none") < 0.45


def test_a_result_says_where_its_entities_are_known(toy_folder: Path, shared: Place) -> None:
    none, mapped = (
        result for result in run(grid(toy_folder), shared) if result.spec.control == Control.NONE
    )
    assert none.buckets == {}
    assert mapped.coverage is not None
    assert mapped.coverage.examples == 1.0
    # Tests are linked to things by their name alone; no fact joins two of them.
    assert mapped.counts["test_pairs_in_knowledge"] == 0
    assert "test_pairs_in_knowledge" not in none.counts
    assert mapped.score is not None
    known = mapped.buckets["coverage"]["known"]
    assert (known.value, known.n) == (mapped.score.value, mapped.score.n)
    assert "unknown" not in mapped.buckets["coverage"]
    assert sum(score.n for score in mapped.buckets["popularity"].values()) == known.n


def test_a_plug_fixed_while_tuning_brings_its_knowledge(toy_folder: Path, shared: Place) -> None:
    results = run(grid(toy_folder, setting="fine-tuning"), shared)
    assert _score(results, method="map-tuning", control=Control.NONE) > 0.8
    assert _score(results, method="map-tuning", control=Control.FOREIGN) < 0.45


def test_a_table_pairs_runs_with_their_yardstick_and_control(
    toy_folder: Path, shared: Place
) -> None:
    results = run(grid(toy_folder), shared)
    table = rows(results, Results(shared.out))
    by_control = {row.first.spec.control: row for row in table if row.first.spec.knowledge}
    true = by_control[Control.NONE]
    none = next(row for row in table if row.first.spec.knowledge is None)
    assert true.score is not None
    assert true.delta is not None
    assert true.gain is not None
    assert none.score is not None
    assert true.delta.value == pytest.approx(true.score.value - none.score.value)
    assert true.delta.low is not None
    assert true.delta.low > 0.3
    assert by_control[Control.FOREIGN].gain is None
    assert none.delta is None


def test_a_batch_without_a_linked_mention_trains_nothing_and_breaks_nothing(
    toy_folder: Path, tmp_path: Path, place: Place
) -> None:
    # A knowledge base that knows three in a hundred entities: most batches have no slot at all.
    from kbench.knowledge import Bundle, write_vectors
    from kbench.testing.toys import write_world

    bundle = write_world(tmp_path / "sparse")
    vectors = Bundle(toy_folder / "kb").vectors(np.arange(len(bundle))).copy()
    vectors[np.arange(len(bundle)) % 33 != 0] = np.nan
    write_vectors(tmp_path / "sparse", vectors, {"model": "planted"})
    chosen = grid(
        toy_folder,
        method="map-tuning",
        control="none",
        knowledge=str(tmp_path / "sparse"),
        options=QUICK,
    )
    (result,) = run(chosen, place)
    assert result.status == Status.OK, result.reason
    assert result.coverage is not None
    assert 0 < result.coverage.examples < 0.1


def test_a_limited_knowledge_base_leaves_unlinked_examples_as_they_were(
    toy_folder: Path, tmp_path: Path, shared: Place
) -> None:
    from kbench.knowledge import Bundle, write_vectors
    from kbench.testing.toys import write_world

    bundle = write_world(tmp_path / "half")
    vectors = Bundle(toy_folder / "kb").vectors(np.arange(len(bundle))).copy()
    vectors[::2] = np.nan
    write_vectors(tmp_path / "half", vectors, {"model": "planted"})
    results = run(grid(toy_folder, control="none", knowledge=str(tmp_path / "half")), shared)
    store = Results(shared.out)
    base, plugged = (store.predictions(result) for result in results)
    assert base is not None
    assert plugged is not None
    same = [one == two for one, two in zip(base.predictions, plugged.predictions, strict=True)]
    unlinked = [not linked for linked in plugged.linked]
    assert sum(unlinked) > 20
    assert all(same[at] for at in range(len(same)) if unlinked[at])
    assert not all(same)


def test_a_result_says_all_that_is_needed_to_read_and_repeat_it(
    toy_folder: Path, place: Place
) -> None:
    result = run(grid(toy_folder, control="none", options=QUICK), place)[1]
    value = json.loads((place.out / result.id / "result.json").read_text())
    assert value["schema"] == 1
    assert value["coverage"] == {
        "examples": 1.0,
        "mentions": 0.5,
        "linker": "gold",
        "threshold": None,
        "ambiguous": 0,
        "unlinked": "skip",
    }
    assert value["cost"]["trainable_parameters"] == 8 * 32 + 32
    assert value["metrics"]["accuracy"]["n"] == value["counts"]["test_kept"] == 96
    assert value["provenance"]["command"].startswith("kbench run --task toy-relations")
    assert set(value["provenance"]["digests"]) == {
        "data", "backbone", "knowledge", "predictions", "training"
    }  # fmt: skip
    predictions = Results(place.out).predictions(result)
    assert predictions is not None
    assert len(predictions.ids) == 96
