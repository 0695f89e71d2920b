"""Stored results as frames: what they hold, and that they are the figures of the command."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

import kbench
from kbench.errors import UsageError
from kbench.store import Result, Results, Status
from tests.calling import call
from tests.interface.conftest import fill
from tests.stored import predictions, spec, store


def test_a_table_is_that_of_the_command(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "table", "--out", str(results), "--format", "csv")
    told = [*csv.DictReader(io.StringIO(out))]
    frame = kbench.load(results).table()
    assert [*frame.columns] == [*told[0]]
    for name in ("score", "delta_low", "gain", "gain_high", "train_seconds"):
        numbers = [float(line[name]) if line[name] else None for line in told]
        assert [None if value != value else value for value in frame[name]] == numbers
    assert frame["best"].map(str).tolist() == [line["best"] for line in told]


def test_a_part_of_the_runs_has_its_yardsticks_from_the_whole_folder(results: Path) -> None:
    runs = kbench.load(results)
    ours = runs.where(method="map-tuning", control="none")
    assert len(ours) == 2
    assert ours.table()["gain"].tolist() == pytest.approx([0.2])
    assert len(ours.compare()) == len(runs.compare()) == 2
    assert runs.where(control="foreign").compare().empty
    with pytest.raises(UsageError, match="where: no field 'methods'"):
        runs.where(methods="none")


def test_comparisons_are_those_of_the_command(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = call(capsys, "compare", "map-tuning", "none", "--out", str(results), "--json")
    told = json.loads(out)
    one = kbench.load(results).compare("map-tuning", "none").iloc[0]
    assert (one.difference, one.low, one.high) == tuple(
        told["difference"][name] for name in ("value", "low", "high")
    )
    assert (one.p, one.holm, one.seeds) == (told["p"], told["p_holm"], [0, 1])


@pytest.mark.usefixtures("toy_tasks")
def test_every_result_is_a_run_and_label_sets_stay_sets(tmp_path: Path) -> None:
    gold = [("a", "b"), ("c",), ()]
    found = predictions(gold, [("a",), ("c",), ()])
    store(tmp_path, found, task="toy-typing", method="none")
    failed = Result(id="f" * 32, status=Status.FAILED, reason="it broke", spec=spec(seed=9))
    Results(tmp_path).save(failed)
    runs = kbench.load(tmp_path)
    assert sorted(runs.runs["status"]) == ["failed", "ok"]
    (line,) = runs.runs.query("status == 'failed'").to_dict("records")
    assert (line["id"], line["reason"], line["seed"]) == ("f" * 32, "it broke", 9)
    assert runs.predictions()["label"].tolist() == gold
    names = {"micro_f1", "macro_f1"}
    assert names <= {*runs.scores()["metric"]}
    assert runs.scores().groupby("id")["main"].sum().tolist() == [1]


def test_a_folder_without_results_has_empty_frames_with_their_columns(tmp_path: Path) -> None:
    runs = kbench.load(tmp_path)
    for frame in (runs.runs, runs.table(), runs.scores(), runs.buckets(), runs.predictions()):
        assert frame.empty
        assert "method" in frame
    with pytest.raises(UsageError, match="no folder"):
        kbench.load(tmp_path / "none")


def test_examples_that_changed(results: Path) -> None:
    runs = kbench.load(results)
    with pytest.warns(UserWarning, match="texts are not shown"):
        changed = runs.diff("map-tuning,seed=1")
    assert changed["change"].value_counts().to_dict() == {"gained": 40, "both wrong": 10}
    assert changed.iloc[0][["example", "gold", "a"]].tolist() == ["e0", "capital of", "nothing"]
    fill(results, task="atlas-typing")
    with pytest.raises(UsageError, match="2 pairs of runs"):
        runs.diff("map-tuning")
