"""Rows of a table by hand: yardsticks, seeds, locality, and who shares the first place."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kbench.cli.columns import columns_of, headings
from kbench.cli.formats import as_csv, as_markdown
from kbench.results.tables import Estimate, Locality, Row, Turned, leaders, rows
from kbench.store import Result, Results, Status
from tests.stored import predictions, spec, store

pytestmark = pytest.mark.usefixtures("toy_tasks")

GOLD = ["red", "green", "blue", "white"] * 25


def right(*wrong: int) -> list[str]:
    return ["black" if n in wrong else label for n, label in enumerate(GOLD)]


def table(folder: Path) -> dict[str, Row]:
    found = Results(folder)
    return {
        f"{row.first.spec.method} {row.first.spec.control}": row for row in rows(list(found), found)
    }


def approx(estimate: Estimate | None) -> Any:
    assert estimate is not None
    return pytest.approx(estimate.value)


def test_one_seed_has_the_stored_interval_and_paired_differences(tmp_path: Path) -> None:
    one = store(tmp_path, predictions(GOLD, right(*range(20))))
    store(tmp_path, predictions(GOLD, right(*range(30))), control="foreign")
    store(tmp_path, predictions(GOLD, right(*range(50))), method="none")
    found = table(tmp_path)
    row = found["map-tuning none"]
    assert one.score is not None
    assert row.score == Estimate(0.8, one.score.low, one.score.high)
    assert approx(row.delta) == 0.3
    assert approx(row.gain) == 0.1
    assert row.gain is not None
    assert row.gain.low is not None
    assert 0 < row.gain.low < 0.1
    assert row.gain.deviation is None
    broken = found["map-tuning foreign"]
    assert approx(broken.delta) == 0.2
    assert broken.gain is None
    assert found["none none"].delta is None


def test_several_seeds_have_an_interval_and_their_deviation(tmp_path: Path) -> None:
    for seed, wrong in enumerate((10, 20, 30)):
        store(
            tmp_path,
            predictions(GOLD, right(*range(wrong))),
            seed=seed,
            cost={"train_seconds": wrong},
        )
        store(tmp_path, predictions(GOLD, right(*range(50))), seed=seed, method="none")
    row = table(tmp_path)["map-tuning none"]
    assert row.seeds == [0, 1, 2]
    assert row.cost == {"train_seconds": 20}
    for estimate, value in ((row.score, 0.8), (row.delta, 0.3)):
        assert approx(estimate) == value
        assert estimate is not None
        assert estimate.deviation == pytest.approx(0.1)
        assert estimate.low is not None
        assert estimate.high is not None
        # Nearly the range of the seeds: the examples alone would give half of it.
        assert estimate.low < value - 0.09
        assert estimate.high > value + 0.09
    value = row.as_json()
    assert value["score"]["deviation"] == pytest.approx(0.1)
    assert value["score"]["low"] == row.score.low if row.score else False


def test_a_seed_without_its_yardstick_leaves_no_difference(tmp_path: Path) -> None:
    for seed in (0, 1):
        store(tmp_path, predictions(GOLD, right(seed)), seed=seed)
    store(tmp_path, predictions(GOLD, right(*range(50))), method="none")
    row = table(tmp_path)["map-tuning none"]
    assert row.score is not None
    assert row.delta is None


def test_lost_predictions_leave_the_scores(tmp_path: Path) -> None:
    found = [store(tmp_path, predictions(GOLD, right(seed)), seed=seed) for seed in (0, 1)]
    path = tmp_path / found[1].id / "predictions.parquet"
    path.write_bytes(path.read_bytes()[:50])
    row = table(tmp_path)["map-tuning none"]
    assert row.score == Estimate(0.99, deviation=0)


def test_other_data_are_no_yardstick(tmp_path: Path) -> None:
    store(tmp_path, predictions(GOLD, right()))
    store(tmp_path, predictions(GOLD, right(1)), method="none", digest="d2")
    assert table(tmp_path)["map-tuning none"].delta is None
    store(tmp_path, predictions(GOLD, right(1)), method="none")
    assert approx(table(tmp_path)["map-tuning none"].delta) == 0.01


def test_locality_by_hand(tmp_path: Path) -> None:
    # Examples 0-49 have no linked entity; of these `none` has 40 right, and 3 of them break.
    degrees = [-1] * 50 + [2] * 50
    base = predictions(GOLD, right(*range(10), 60), degrees=[-1] * 100)
    ours = predictions(GOLD, right(*range(5), 10, 11, 12, 70, 71), degrees=degrees)
    cost = {"evaluate_seconds_per_example": 0.5}
    store(tmp_path, base, method="none", cost=cost)
    store(tmp_path, ours, cost={"evaluate_seconds_per_example": 0.7})
    found = table(tmp_path)
    row = found["map-tuning none"]
    assert row.locality == Locality(3 / 40, 40)
    assert (row.seconds_without, row.coverage) == (0.5, 0.5)
    assert found["none none"].locality is None
    assert row.as_json()["locality"] == {"value": 3 / 40, "n": 40}


def test_what_was_right_and_what_was_wrong_by_hand(tmp_path: Path) -> None:
    # `none` has 89 right, of which 6 are lost; of its 11 wrong ones 7 are gained.
    store(tmp_path, predictions(GOLD, right(*range(10), 60)), method="none")
    ours = predictions(GOLD, right(*range(4), *range(20, 26)))
    store(tmp_path, ours)
    row = table(tmp_path)["map-tuning none"]
    assert row.turned is not None
    assert row.turned.p == pytest.approx(1.0)
    assert replace(row.turned, p=None) == Turned(right=89, lost=6, wrong=11, gained=7, p=None)
    assert row.turned.retention == pytest.approx(83 / 89)
    assert row.turned.repair == 7 / 11
    (text,) = [columns_of(row)]
    assert (text["retention"], text["repair"], text["McNemar"]) == (
        "93.3% of 89",
        "63.6% of 11",
        "1.000",
    )
    shown = as_markdown([row], [], headings("score,retention,kl"))
    assert "| retention | KL (unlinked) |" in shown.splitlines()[2]
    assert "retention" not in as_markdown([row], [])
    (line,) = csv.DictReader(as_csv([row], []).splitlines())
    assert float(line["repair"]) == 7 / 11
    assert line["kl"] == line["follow_rate"] == ""


def test_of_several_seeds_no_exact_test_is_told(tmp_path: Path) -> None:
    for seed in (0, 1):
        store(tmp_path, predictions(GOLD, right(1, 2)), seed=seed)
        store(tmp_path, predictions(GOLD, right(1, 3)), seed=seed, method="none")
    turned = table(tmp_path)["map-tuning none"].turned
    assert turned == Turned(right=196, lost=2, wrong=4, gained=2, p=None)


def test_where_every_example_is_linked_there_is_no_locality(tmp_path: Path) -> None:
    store(tmp_path, predictions(GOLD, right()))
    store(tmp_path, predictions(GOLD, right()), method="none")
    assert table(tmp_path)["map-tuning none"].locality is None


def test_sets_of_labels_are_right_as_a_whole(tmp_path: Path) -> None:
    gold = [("a", "b"), ("a", "b"), ("c",)]
    base = predictions(gold, [("b", "a"), ("a",), ("c",)], degrees=[-1] * 3)
    ours = predictions(gold, [("a", "b"), ("a", "b"), ("c", "a")], degrees=[-1] * 3)
    store(tmp_path, base, task="toy-typing", method="none")
    store(tmp_path, ours, task="toy-typing")
    assert table(tmp_path)["map-tuning none"].locality == Locality(1 / 2, 2)


def test_the_first_place_is_shared_by_what_cannot_be_told_from_it(tmp_path: Path) -> None:
    wrongs = {"map-tuning": 10, "pelt": 12, "kar": 10, "ernie": 30, "none": 50}
    ids = {
        method: store(tmp_path, predictions(GOLD, right(*range(wrong))), method=method).id
        for method, wrong in wrongs.items()
    }
    # Broken knowledge is not in the race, and another table is a race of its own.
    store(tmp_path, predictions(GOLD, right()), control="foreign")
    alone = store(tmp_path, predictions(GOLD, right(*range(90))), tuning="lora").id
    # As good as pelt and no more, but over a seed of its own: it cannot be paired.
    store(tmp_path, predictions(GOLD, right(*range(11))), method="ra", seed=5)
    found = Results(tmp_path)
    best = leaders(rows(list(found), found), found)
    assert best == {ids["map-tuning"], ids["kar"], ids["pelt"], alone}


def test_runs_that_ended_badly_are_rows_by_their_reason(tmp_path: Path) -> None:
    for seed, reason in ((0, "no luck"), (1, "no luck"), (2, "no memory")):
        result = Result(
            id=f"{seed}" * 32, status=Status.FAILED, reason=reason, spec=spec(seed=seed)
        )
        Results(tmp_path).save(result)
    found = rows(list(Results(tmp_path)), Results(tmp_path))
    assert [(row.seeds, row.first.reason) for row in found] == [
        ([0, 1], "no luck"),
        ([2], "no memory"),
    ]
