"""A run is scored again by another scorer, and is what a run by that scorer would have been."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kbench.data import SCORERS
from kbench.errors import UsageError
from kbench.grid.grids import Grid
from kbench.grid.plan import Place
from kbench.results.rescoring import again, by_scorer
from kbench.store import Predictions, Result, Results, Status
from kbench.testing.toys import write_backbone
from tests.calling import call
from tests.grid.toygrid import grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    return write_backbone(folder / "llama", layers=2, left_to_right=True)


def asked(toy_folder: Path, decoder: Path, **changes: object) -> Grid:
    values = {"backbone": str(decoder), "tuning": "prompted", "method": "none", **changes}
    return grid(toy_folder, **values)


def one(chosen: Grid, place: Place) -> tuple[Result, Predictions]:
    (result,) = run(chosen, place)
    assert result.status == Status.OK, result.reason
    found = Results(place.out).predictions(result)
    assert found is not None
    return result, found


@pytest.mark.parametrize("task", ["toy-relations", "toy-typing"])
def test_a_run_scored_again_is_a_run_by_that_scorer(
    task: str, toy_folder: Path, decoder: Path, place: Place
) -> None:
    by = {
        scorer: one(
            asked(
                toy_folder, decoder, task=task, options={"tuning": {"prompted": {"scorer": scorer}}}
            ),
            place,
        )
        for scorer in SCORERS
    }
    assert len({json.dumps(result.metrics, default=str) for result, _ in by.values()}) > 1
    for result, found in by.values():
        assert not any(each.differs for each in again(result, found))
        for scorer, (other, wanted) in by.items():
            made = found.by(scorer)
            assert made.predictions == wanted.predictions
            assert made.likelihoods is not None
            assert wanted.likelihoods is not None
            assert np.array_equal(made.likelihoods.scores, wanted.likelihoods.scores)
            assert made.likelihoods.thresholds == wanted.likelihoods.thresholds
            metrics = by_scorer(result, found, scorer)
            assert metrics == {name: other.metrics[name] for name in metrics}
            assert by["sum"][0].main_metric in metrics


def test_what_stands_beside_the_metrics_of_a_task(
    toy_folder: Path, decoder: Path, place: Place
) -> None:
    result, found = one(asked(toy_folder, decoder, task="toy-typing"), place)
    plain = found.by("sum")
    beside = {"micro_f1_by_sum", "average_precision"}
    assert beside < {*result.metrics}
    assert result.metrics["micro_f1_by_sum"].variant == "loose-micro-f1:by-sum"
    assert plain.likelihoods is not None
    assert plain.likelihoods.scorer == "sum"
    with pytest.raises(UsageError, match="no scorer is called 'mass'"):
        found.by("mass")
    own, _ = one(
        asked(
            toy_folder,
            decoder,
            task="toy-typing",
            options={"tuning": {"prompted": {"scorer": "sum"}}},
        ),
        place,
    )
    assert "micro_f1_by_sum" not in own.metrics
    assert own.metrics["micro_f1"].value == result.metrics["micro_f1_by_sum"].value


def test_the_command_says_what_another_scorer_gives(
    toy_folder: Path, decoder: Path, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    result, _ = one(asked(toy_folder, decoder), place)
    one(grid(toy_folder, method="none", options={"tuning": {"full": {"epochs": 1}}}), place)
    out = ("--out", str(place.out))
    code, said, _ = call(capsys, "score", *out, "--scorer", "sum")
    first, last = said.splitlines()
    assert code == 0
    assert first.startswith(result.id[:12])
    assert "by sum accuracy" in first
    assert last == "1 results by sum, 1 not by candidates"
    code, said, _ = call(capsys, "score", *out, "--scorer", "byte", "--json")
    value = json.loads(said)
    assert (code, value["scorer"], value["stored"]) == (0, "byte", "pmi")
    _, said, _ = call(capsys, "table", *out, "--columns", "score,by-sum", "--format", "markdown")
    assert "by sum" in said
