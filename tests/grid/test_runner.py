"""The grid: planted knowledge is found, work is shared, nothing stored is repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kbench.errors import UsageError
from kbench.grid import runner, worker
from kbench.grid.executor import Setup
from kbench.grid.executors import local
from kbench.grid.executors.local import Local
from kbench.grid.plan import Place
from kbench.method import Fit, Plug
from kbench.results.tables import rows
from kbench.spec import Control, Setting
from kbench.store import Artifacts, Result, Results, Status
from kbench.store.folder import DamageWarning
from kbench_baselines.map_tuning import MapTuning
from tests.grid.toygrid import QUICK, grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "out", tmp_path / "artifacts", "cpu")


@pytest.fixture
def shared(tmp_path: Path, made: Path) -> Place:
    """For what is about results, whoever trained for them."""
    return Place(tmp_path / "out", made, "cpu")


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
    chosen = grid(toy_folder, task=task, control="none,shuffled,random,zero")
    results = run(chosen, shared)
    known = _score(results, method="map-tuning", control=Control.NONE)
    assert known > 0.8
    for control in (Control.SHUFFLED, Control.RANDOM, Control.ZERO):
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


class Broken(MapTuning):  # type: ignore[misc]
    """Fails while it trains."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        raise ValueError("boom\nand more")


class Meddling(MapTuning):  # type: ignore[misc]
    """Changes a frozen weight."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        with torch.no_grad():
            next(fit.encoder.parameters()).add_(1e-3)
        return super().fit(plug, fit)


class Infinite(MapTuning):  # type: ignore[misc]
    """Ends with a plug that is not finite."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        history = super().fit(plug, fit)
        with torch.no_grad():
            next(plug.parameters()).fill_(float("nan"))
        return history


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Broken, "ValueError: boom and more"),
        (Meddling, "changed weights of the frozen model"),
        (Infinite, "is not finite"),
    ],
)
def test_a_bad_method_becomes_a_failed_result_and_the_grid_goes_on(
    kind: type[MapTuning],
    reason: str,
    toy_folder: Path,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kbench_baselines.map_tuning.MapTuning", kind)
    chosen = grid(toy_folder, method="map-tuning,none", control="none", options=QUICK)
    results = run(chosen, place)
    assert [result.status for result in results] == [Status.FAILED, Status.OK]
    assert reason in results[0].reason
    assert results[0].metrics == {}
    monkeypatch.undo()
    again = run(chosen, place)
    assert [result.status for result in again] == [Status.OK, Status.OK]


def test_an_impossible_combination_is_skipped_with_the_reason(
    tmp_path: Path, toy_folder: Path, place: Place
) -> None:
    from kbench.testing.toys import write_backbone

    headless = write_backbone(tmp_path / "headless", lm_head=False)
    chosen = grid(
        toy_folder,
        task="toy-qa,toy-relations",
        backbone=str(headless),
        setting="general",
        control="none",
        options=QUICK,
    )
    results = run(chosen, place)
    ended = [(r.spec.task, r.spec.method, r.status) for r in results]
    assert ended == [
        ("toy-qa", "none", Status.SKIPPED),
        ("toy-qa", "map-tuning", Status.SKIPPED),
        ("toy-relations", "none", Status.OK),
        ("toy-relations", "map-tuning", Status.SKIPPED),
    ]
    assert "no masked-LM head" in results[0].reason
    assert "masked-LM head" in results[3].reason


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_a_damaged_artifact_is_found_and_made_again_with_a_warning(
    harm: str, toy_folder: Path, place: Place
) -> None:
    run(grid(toy_folder, options=QUICK), place)
    weights = next(place.artifacts.glob("plug/*/weights.safetensors"))
    good = weights.read_bytes()
    if harm == "flip":
        weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    elif harm == "truncate":
        weights.write_bytes(good[: len(good) // 2])
    else:
        weights.unlink()
    for result in place.out.iterdir():
        if (result / "result.json").is_file():
            (result / "result.json").unlink()
    with pytest.warns(DamageWarning, match="made again"):
        run(grid(toy_folder, options=QUICK), place)
    assert weights.read_bytes() == good


def test_a_damaged_result_is_repeated_with_a_warning(toy_folder: Path, place: Place) -> None:
    first = run(grid(toy_folder, method="none", options=QUICK), place)
    path = place.out / first[0].id / "result.json"
    path.write_text(path.read_text()[:100])
    with pytest.warns(DamageWarning, match="is not JSON"):
        again = run(grid(toy_folder, method="none", options=QUICK), place)
    assert again[0].metrics == first[0].metrics


def test_a_limited_run_is_another_run_and_says_so(toy_folder: Path, place: Place) -> None:
    whole = run(grid(toy_folder, method="none", options=QUICK), place)
    part = run(grid(toy_folder, method="none", limit=20, options=QUICK), place)
    assert whole[0].id != part[0].id
    assert part[0].spec.limit == 20
    assert part[0].score is not None
    assert part[0].score.n == 20


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
        "data", "backbone", "knowledge", "predictions"
    }  # fmt: skip
    predictions = Results(place.out).predictions(result)
    assert predictions is not None
    assert len(predictions.ids) == 96


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


def test_a_result_that_cannot_be_stored_is_a_failed_one(
    toy_folder: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Results.save

    def full(self: Results, result: Result, predictions: object = None) -> Path:
        if predictions is not None:
            raise OSError(28, "No space left on device")
        return save(self, result)

    monkeypatch.setattr(Results, "save", full)
    (result,) = run(grid(toy_folder, method="none", options=QUICK), place)
    assert result.status == Status.FAILED
    assert "No space left on device" in result.reason
    monkeypatch.undo()
    assert [r.status for r in run(grid(toy_folder, method="none", options=QUICK), place)] == [
        Status.OK
    ]
