"""What goes wrong in a grid is told, stops nothing else, and is put right the next time."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import kbench
from kbench.grid.plan import Place
from kbench.method import Fit, Plug
from kbench.pipeline.record import blame
from kbench.store import Result, Results, Status
from kbench.store.folder import DamageWarning
from kbench_baselines.map_tuning import MapTuning
from tests.grid.toygrid import QUICK, grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")


class Broken(MapTuning):  # type: ignore[misc]
    """Fails while it trains."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        raise ValueError("boom\nand more")


class Misshapen(MapTuning):  # type: ignore[misc]
    """Fails in a library that it calls."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        return torch.nn.Linear(3, 4)(torch.zeros(2, 5))


class Meddling(MapTuning):  # type: ignore[misc]
    """Changes a frozen weight."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        with torch.no_grad():
            next(fit.lm.parameters()).add_(1e-3)
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


def test_where_a_part_failed_is_told_and_the_whole_trace_is_kept(
    toy_folder: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kbench_baselines.map_tuning.MapTuning", Misshapen)
    chosen = grid(toy_folder, method="map-tuning", control="none", options=QUICK)
    (failed,) = run(chosen, place)
    place_of_it = r"\(test_failures\.py, line \d+, fit, raised in linear\.py, line \d+, forward\)"
    assert re.search(place_of_it, failed.reason), failed.reason
    folder = place.out / failed.id
    kept = (folder / "trace.txt").read_text("utf-8")
    assert kept == failed.trace
    assert pickle.loads(pickle.dumps(failed)).trace == kept  # as from a process of its own
    assert kept.startswith("Traceback (most recent call last):")
    assert "return torch.nn.Linear(3, 4)" in kept
    # It names folders of this machine, and is no part of what is published.
    assert "trace" not in json.loads((folder / "result.json").read_text("utf-8"))
    monkeypatch.undo()
    (good,) = run(chosen, place)
    assert (good.status, good.trace) == (Status.OK, "")
    assert not (folder / "trace.txt").exists()


def test_a_plugin_beside_the_engine_is_no_part_of_it() -> None:
    """Installed, they lie in one folder: kbench, kbench_baselines, kbench_mine."""
    beside = Path(kbench.__file__).parents[1] / "kbench_mine" / "method.py"
    source = compile("def fit():\n    raise ValueError('boom')", str(beside), "exec")
    space: dict[str, Any] = {}
    exec(source, space)
    engine = compile("fit()", str(Path(kbench.__file__).with_name("x.py")), "exec")
    with pytest.raises(ValueError, match="boom") as raised:
        exec(engine, space)
    assert blame(raised.value) == "ValueError: boom (method.py, line 2, fit)"


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
