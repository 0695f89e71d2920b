"""`kbench validate` and the schema of a grid: what fits them runs, what does not is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kbench.grid.grids import Grid, grid_schema
from tests.calling import call
from tests.faults.limits import within

ROOT = Path(__file__).parents[2]
GRIDS = [
    *sorted((ROOT / "baselines" / "recipes").glob("*.yaml")),
    *sorted((ROOT / "kbench" / "interface").glob("demo*.yaml")),
    ROOT / "leaderboard" / "reference.yaml",
    ROOT / "docs" / "decoders-films.yaml",
]
assert len(GRIDS) > 9
GOOD: dict[str, Any] = {"task": "atlas-qa", "method": ["none", "map-tuning"]}


def written(folder: Path, more: dict[str, Any]) -> Path:
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **more}))
    return path


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = grid_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_our_own_grids_fit(
    path: Path, validator: jsonschema.Draft202012Validator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [*validator.iter_errors(yaml.safe_load(path.read_text("utf-8")))] == []
    status, out, err = call(capsys, "validate", str(path))
    assert (status, err) == (0, "")
    assert out.startswith(f"{path}: ")
    assert " runs (task " in out


@pytest.mark.parametrize(
    "more",
    [
        {"seed": "0-4,7"}, {"seed": 3}, {"seed": [0, "2-3"]}, {"limit": 10}, {"limit": 0.5},
        {"control": "none,foreign"}, {"options": {"tuning": {"full": {"epochs": 1}}}},
        {"grids": [{"setting": "general"}, {"setting": ["task-specific"]}]}, {"chat": True},
        {"knowledge": "atlas", "backbone": ["kbench-tiny"], "dtype": "bfloat16"},
    ],
)  # fmt: skip
def test_what_is_right_fits_both(
    more: dict[str, Any],
    tmp_path: Path,
    validator: jsonschema.Draft202012Validator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = written(tmp_path, more)
    assert [*validator.iter_errors(json.loads(json.dumps({**GOOD, **more})))] == []
    assert call(capsys, "validate", str(path))[0] == 0


@pytest.mark.parametrize(
    "more",
    [
        {"taks": "a"}, {"limit": 0}, {"limit": 1.5}, {"limit": "many"}, {"setting": "generl"},
        {"chat": "yes"}, {"grids": []}, {"grids": [{"nothing": 1}]}, {"options": {"tunig": {}}},
        {"dtype": "float64"}, {"task": []}, {"control": ["shufled"]},
    ],
)  # fmt: skip
def test_what_is_wrong_fits_neither(
    more: dict[str, Any],
    tmp_path: Path,
    validator: jsonschema.Draft202012Validator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = written(tmp_path, more)
    if more not in ({"setting": "generl"},):  # a text may be a list, which no schema takes apart
        assert [*validator.iter_errors({**GOOD, **more})]
    status, out, err = call(capsys, "validate", str(path))
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {path}")
    assert err.count("\n") == 1


def test_names_of_parts_and_options_are_looked_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, {"method": "map-tunning"})
    status, _, err = call(capsys, "validate", str(path))
    assert status == 2
    assert "map-tuning" in err
    path = written(tmp_path, {"options": {"tuning": {"lora": {"epochs": 1}}}})
    status, _, err = call(capsys, "validate", str(path))
    assert status == 0
    assert err.startswith(f"warning: {path}: ")


def test_each_field_of_a_grid_is_in_the_schema_and_says_what_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, _ = call(capsys, "schema", "grid")
    assert status == 0
    properties = json.loads(out)["properties"]
    assert set(properties) == {*Grid.model_fields, "grids"}
    assert all(field["description"] for field in properties.values())
    assert json.loads(call(capsys, "schema")[1])["title"] == "Result"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"options": {"tuning": {"full": {"epochs": -1}}}}, "epochs is -1"),
        ({"options": {"tuning": {"full": {"foo": 1}}}}, "foo"),
        ({"options": {"method": {"none": {"x": 1}}}}, "'x'"),
        ({"options": {"task": {"atlas-qa": {"zz": 1}}}}, "'zz'"),
        (
            {
                "knowledge": "atlas",
                "setting": "general",
                "options": {"method": {"map-tuning": {"general": {"epochs": 0}}}},
            },
            "epochs is 0",
        ),
        ({"seed": {"a": 1}}, "seed.0 is {'a': 1}"),
        ({"seed": [[1]]}, "seed.0 is [1]"),
        ({"seed": [1.5]}, "seed"),
    ],
)
def test_options_and_seeds_that_no_run_takes_are_refused_in_a_line(
    more: dict[str, Any], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, "validate", str(written(tmp_path, more)))
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert text in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name here")
def test_a_pipe_is_no_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "grid.yaml")
    with within(20):
        status, _, err = call(capsys, "validate", str(tmp_path / "grid.yaml"))
    assert (status, err.count("\n")) == (2, 1)
    assert "no regular file" in err
