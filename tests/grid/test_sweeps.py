"""Options of several values: what is an axis, and what is a value that happens to be a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kbench.errors import UsageError
from kbench.grid import runner
from kbench.grid.grids import make_grids
from kbench.grid.plan import Place
from kbench.results.choice import choices
from kbench.results.tables import rows
from kbench.spec import RunSpec
from kbench.store import Results
from tests.calling import call
from tests.grid.toygrid import OPTIONS, grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")


def specs(options: Any = None, *settings: str, **changes: Any) -> list[RunSpec]:
    values = {"task": "toy-relations", "method": "map-tuning", "setting": "general", **changes}
    values["options"] = options or {}
    return runner.resolve(*make_grids(values, "test", settings=settings))


def test_a_list_is_an_axis_and_each_run_has_its_value() -> None:
    general = {"map-tuning": {"general": {"learning_rate": [1e-3, 1e-2], "epochs": 2}}}
    told = specs({"method": general}, "tuning.full.epochs=[1, 2, 3]", control="none")
    rates = [spec.options["method"]["map-tuning"]["general"]["learning_rate"] for spec in told]
    epochs = [spec.options["tuning"]["full"]["epochs"] for spec in told]
    assert sorted(zip(rates, epochs, strict=True)) == [
        (rate, number) for rate in (1e-3, 1e-2) for number in (1, 2, 3)
    ]
    assert {spec.options["method"]["map-tuning"]["general"]["epochs"] for spec in told} == {2}
    again = runner.resolve(*make_grids({"task": "toy-relations", "method": "none"}, "t"))
    assert len(again) == 1
    assert "--set tuning.full.epochs=1" in told[0].command()


def test_an_option_that_is_a_list_is_none() -> None:
    # K-Adapter's `without` is a list of relations; map-tuning's `choose` holds lists.
    (one,) = specs(
        {"method": {"k-adapter": {"without": ["P31", "P279"]}}}, method="k-adapter", control="none"
    )
    assert one.options["method"]["k-adapter"]["without"] == ["P31", "P279"]
    two = specs(
        {"method": {"k-adapter": {"without": [["P31"], []]}}}, method="k-adapter", control="none"
    )
    assert [spec.options["method"]["k-adapter"]["without"] for spec in two] == [["P31"], []]
    choose = {"dropout": [0.1, 0.2], "epoch": [1, 2]}
    (one,) = specs({"method": {"map-tuning": {"choose": choose}}}, control="none")
    assert one.options["method"]["map-tuning"]["choose"] == choose


def test_methods_that_an_axis_does_not_concern_run_once() -> None:
    axis = {"method": {"map-tuning": {"max_length": [32, 64]}}}
    told = specs(axis, method="none,map-tuning", control="none,shuffled", seed="0-1")
    count = [spec.method for spec in told].count
    assert (count("none"), count("map-tuning")) == (2, 8)


def test_values_are_taken_once_and_wrong_ones_refused(tmp_path: Path) -> None:
    assert len(specs({"tuning": {"full": {"epochs": [1, 1, 2]}}}, control="none")) == 2
    with pytest.raises(UsageError, match=r"tuning\.full\.epochs is an empty list"):
        specs({"tuning": {"full": {"epochs": []}}})
    bad = specs({"tuning": {"full": {"epochs": [1, "three"]}}}, method="none")
    with pytest.raises(UsageError, match="epochs is 'three'; expected a whole number"):
        runner.plan(bad, Place(tmp_path / "out", tmp_path / "artifacts", "cpu"))


def test_a_sweep_runs_and_dev_chooses(toy_folder: Path, tmp_path: Path, made: Path) -> None:
    place = Place(tmp_path / "out", made, "cpu")
    own = {**OPTIONS["method"]["map-tuning"]}
    own["general"] = {**own["general"], "learning_rate": [1e-2, 1e-7]}
    options = {**OPTIONS, "method": {"map-tuning": own}}
    results = run(grid(toy_folder, setting="general", options=options), place)
    devs = {r.spec.title + str(r.spec.options.get("method")): r.dev for r in results}
    assert len(results) == 5
    assert [r.dev is None for r in results] == [r.spec.control != "none" for r in results]
    assert all(dev is None or 0 <= dev <= 1 for dev in devs.values())
    found = rows(results, Results(place.out))
    chosen = [row for row in found if row.chosen]
    assert len(chosen) == 3
    true = [row for row in found if row.first.dev is not None and row.first.spec.knowledge]
    best = max(true, key=lambda row: row.first.dev or 0.0)
    assert best.chosen
    assert best.choice is not None
    assert best.choice.tried == 2


def test_while_a_sweep_runs_its_variants_are_told_by_dev(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--task", "toy-relations", "--method", "none", "--device", "cpu"]
    words += ["--backbone", str(toy_folder / "bert"), "--out", str(tmp_path / "out")]
    _, _, err = call(capsys, *words, "--set", "tuning.full.epochs=[1, 2]")
    found = {r.spec.options["tuning"]["full"]["epochs"]: r for r in Results(tmp_path / "out")}
    for epochs, result in found.items():
        assert result.dev is not None
        (line,) = (x for x in err.splitlines() if x.startswith("ok") and f"epochs={epochs}" in x)
        assert f"seed 0 / epochs={epochs}  {100 * result.dev:.1f} on dev" in line
    # A run of its own is told by test, and where it is not chosen there is no empty table.
    worse = min(found, key=lambda epochs: choices(found.values())[found[epochs].id].chosen)
    _, out, err = call(capsys, *words, "--set", f"tuning.full.epochs={worse}")
    assert out == ""
    assert "1 more row is a variant that dev did not choose" in err
    once = ("--set", "tuning.full.epochs=1", "--set", "tuning.full.batch_size=8")
    _, _, err = call(capsys, *words, *once)
    (line,) = (x for x in err.splitlines() if x.startswith("ok"))
    assert "on dev" not in line
