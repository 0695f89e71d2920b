"""Trackers are told what happens, and what is wrong with one of them hurts no run.

Those of other tools are tried with the tools themselves, where these are installed
(``tox -e trackers``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from kbench.errors import UsageError
from kbench.grid.plan import Cell, Events
from kbench.grid.tracker import (
    Tracker,
    TrackerWarning,
    find_trackers,
    record_of,
    tracked,
)
from kbench.parts.catalogue import Kind
from kbench.store import Result, Status
from kbench.testing import registered
from tests.calling import call
from tests.stored import predictions, spec, store

SPEC = spec(task="atlas-qa", method="none", options={"task": {"atlas-qa": {"shots": 2}}})
TOLD: list[tuple[str, str]] = []


class Listens(Tracker):
    """Notes what it is told."""

    def grid(self, cells: Sequence[Cell], out: Path) -> None:
        TOLD.append(("grid", str(len(cells))))

    def stage(self, title: str, done: int, steps: int) -> None:
        TOLD.append(("stage", f"{title} {done}/{steps}"))

    def result(self, result: Result) -> None:
        TOLD.append(("result", result.spec.method))


class Fails(Listens):
    """Fails at the first result."""

    def result(self, result: Result) -> None:
        raise ConnectionError("no server")


class Lacks(Listens):
    """Needs what is not there."""

    def __init__(self) -> None:
        import nowhere_to_be_found  # type: ignore[import-not-found]  # noqa: F401


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    TOLD.clear()


def _result(folder: Path) -> Result:
    found = predictions(["a", "b"], ["a", "c"], ["x", "y"])
    result = store(folder, found, task="atlas-relations", method="map-tuning", seed=3)
    history = {"losses": [2.0, 1.0, 0.5], "dev": [0.1, 0.7]}
    return result.model_copy(
        update={"training": {"plug": {"history": history}}, "cost": {"train_seconds": 1.5}}
    )


def test_a_record_has_what_was_chosen_and_what_came_of_it(tmp_path: Path) -> None:
    record = record_of(_result(tmp_path))
    assert record.parameters["task"] == "atlas-relations"
    assert record.parameters["seed"] == "3"
    assert record.parameters["status"] == "ok"
    assert record.metrics["score"] == record.metrics["metric/accuracy"] == 0.5
    assert record.metrics["score_low"] <= 0.5 <= record.metrics["score_high"]
    assert record.metrics["cost/train_seconds"] == 1.5
    assert record.curves == {"plug/losses": [2.0, 1.0, 0.5], "plug/dev": [0.1, 0.7]}
    assert record.epochs[-1] == {"epoch": 3.0, "plug/losses": 0.5}
    failed = record_of(Result(id="0" * 32, status=Status.FAILED, reason="why", spec=SPEC))
    assert failed.parameters["task.atlas-qa.shots"] == "2"
    assert failed.parameters["reason"] == "why"
    assert failed.metrics == failed.curves == {}


def test_one_that_fails_is_told_nothing_more_and_the_others_are(tmp_path: Path) -> None:
    seen: list[Result] = []
    cell = Cell(SPEC, "0" * 32)
    result = _result(tmp_path)
    told = tracked(
        Events(finished=lambda _, result: seen.append(result)),
        {"fails": Fails(), "listens": Listens()},
        [cell],
        tmp_path,
    )
    assert told.step is not None
    assert told.finished is not None
    told.step("fit", 1, 2)
    with pytest.warns(TrackerWarning, match="--track fails: ConnectionError: no server; it is"):
        told.finished(cell, result)
    told.finished(cell, result)
    told.step("fit", 2, 2)
    assert seen == [result, result]
    assert TOLD.count(("grid", "1")) == 2
    assert TOLD.count(("result", "map-tuning")) == 2
    assert (TOLD.count(("stage", "fit 1/2")), TOLD.count(("stage", "fit 2/2"))) == (2, 1)


def test_what_is_not_there_is_said_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        registered(Kind.TRACKERS, lacks=f"{__name__}:Lacks"),
        pytest.raises(UsageError, match="--track lacks needs nowhere_to_be_found, which is not"),
    ):
        find_trackers(["lacks"])
    words = ["--task", "atlas-qa", "--method", "none"]
    code, _, err = call(capsys, "run", *words, "--track", "tensorbord")
    assert code == 2
    assert "no tracker is called 'tensorbord'; did you mean tensorboard" in err


def test_a_run_tells_its_trackers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with registered(Kind.TRACKERS, listens=f"{__name__}:Listens", fails=f"{__name__}:Fails"):
        words = ["--task", "atlas-typing", "--method", "none", "--limit", "8", "--device", "cpu"]
        words += ["--set", "tuning.full.epochs=1", "--out", str(tmp_path / "out")]
        code, _, err = call(capsys, "run", *words, "--track", "fails", "--track", "listens")
    assert code == 0, err
    assert "warning: --track fails: ConnectionError: no server" in err
    assert TOLD[0] == TOLD[1] == ("grid", "1")
    assert TOLD[-1] == ("result", "none")
    assert any(what == "stage" and title.startswith("tune") for what, title in TOLD)


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    monkeypatch.chdir(tmp_path)
    result = _result(tmp_path / "out")
    (tracker,) = find_trackers(["tensorboard"]).values()
    tracker.grid([], tmp_path / "out")
    tracker.result(result)
    (path,) = (tmp_path / "runs" / f"map-tuning-{result.id[:12]}").iterdir()
    events = [e for e in loader.LegacyEventFileLoader(str(path)).Load() if e.HasField("summary")]
    values = [(e.step, v) for e in events for v in e.summary.value]
    figures = {(v.tag, step): v.simple_value for step, v in values if v.tag != "run"}
    assert figures["score", 0] == 0.5
    assert [figures["plug/losses", epoch] for epoch in (1, 2, 3)] == [2.0, 1.0, 0.5]
    assert b"| task | atlas-relations |" in values[0][1].tensor.string_val[0]


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    result = _result(tmp_path / "out")
    (tracker,) = find_trackers(["mlflow"]).values()
    tracker.grid([], tmp_path / "out")
    tracker.result(result)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("kbench").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["method"] == "map-tuning"
    assert run.data.metrics["score"] == 0.5
    losses = client.get_metric_history(run.info.run_id, "plug/losses")
    assert [(each.step, each.value) for each in losses] == [(1, 2.0), (2, 1.0), (3, 0.5)]
    kept = client.download_artifacts(run.info.run_id, "result.json", str(tmp_path))
    assert json.loads(Path(kept).read_text())["id"] == result.id


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    result = _result(tmp_path / "out")
    (tracker,) = find_trackers(["trackio"]).values()
    tracker.grid([], tmp_path / "out")
    tracker.result(result)
    assert [*(tmp_path / "trackio").glob("kbench*.db")]


def test_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    result = _result(tmp_path / "out")
    (tracker,) = find_trackers(["wandb"]).values()
    tracker.grid([], tmp_path / "out")
    tracker.result(result)
    assert [*(tmp_path / "wandb").glob("offline-run-*/*.wandb")]
    told = " ".join(capfd.readouterr().err.split())  # W&B sums up what it has kept
    assert "plug/losses 0.5" in told
    assert "score_low 0 " in told
