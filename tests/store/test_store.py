"""The store: found by content, refused when damaged, never half written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kbench.data.files import abandoned, atomic_folder
from kbench.errors import ArtifactError, DataError, VersionError
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Artifacts, Predictions, Result, Results, Score, Status
from kbench.store.folder import DamageWarning, address
from kbench.store.result import Coverage, read_predictions, read_result, write_predictions

INPUTS = {"engine": 1, "task": "t", "recipe": {"epochs": 3, "learning_rate": 1e-4}, "seed": 0}
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([True]), "c": torch.zeros(0)}

mappings = st.dictionaries(
    st.text(max_size=4).filter(lambda key: key != "kind"),
    st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2),
)


@given(inputs=mappings)
def test_an_address_does_not_depend_on_the_order_of_keys(inputs: dict[str, Any]) -> None:
    turned = dict(reversed(list(inputs.items())))
    assert address("plug", turned) == address("plug", inputs)
    assert address("plug", inputs) != address("model", inputs)
    assert address("plug", {**inputs, "one more": 1}) != address("plug", inputs)


def test_an_address_is_a_short_name_of_a_file() -> None:
    assert len(address("plug", INPUTS)) == 32
    assert int(address("plug", INPUTS), 16) >= 0


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


@pytest.fixture
def stored(artifacts: Artifacts) -> Path:
    artifacts.save("plug", INPUTS, TENSORS, history={"steps": 3})
    return artifacts.path("plug", address("plug", INPUTS))


def test_an_artifact_comes_back_as_saved(artifacts: Artifacts, stored: Path) -> None:
    found = artifacts.load("plug", stored.name)
    assert found is not None
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())
    assert found.tensors["b"].dtype == torch.bool
    assert found.about["inputs"] == INPUTS
    assert found.about["history"] == {"steps": 3}
    assert found.about["address"] == stored.name
    assert ("plug", stored.name) in artifacts
    assert list(artifacts.all()) == [stored]


def test_a_tensor_that_is_a_view_is_saved_as_it_looks(artifacts: Artifacts) -> None:
    artifacts.save("plug", {}, {"t": torch.arange(6.0).view(2, 3).t()})
    found = artifacts.load("plug", address("plug", {}))
    assert found is not None
    assert found.tensors["t"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_what_was_never_saved_is_nothing_and_no_damage(artifacts: Artifacts) -> None:
    assert artifacts.load("plug", "0" * 32) is None
    assert ("plug", "0" * 32) not in artifacts
    assert list(artifacts.all()) == []
    assert list(artifacts.leftovers()) == []


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _write(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


def _change(**fields: Any) -> Callable[[Path], None]:
    return lambda path: (
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields})) and None
    )


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("weights.safetensors", _cut, "checksum does not match"),
        ("weights.safetensors", _flip, "checksum does not match"),
        ("weights.safetensors", _empty, "checksum does not match"),
        ("weights.safetensors", Path.unlink, "is damaged"),
        ("artifact.json", Path.unlink, "is damaged"),
        ("artifact.json", _empty, "is damaged"),
        ("artifact.json", _cut, "is damaged"),
        ("artifact.json", _write("[" * 100_000), "is damaged"),
        ("artifact.json", _write("[]"), "is damaged"),
        ("artifact.json", _write("{}"), "is damaged"),
        ("artifact.json", _write("\xff"), "is damaged"),
        ("artifact.json", _change(inputs={**INPUTS, "seed": 1}), "not what its address says"),
        ("artifact.json", _change(kind="model"), "not what its address says"),
        ("artifact.json", _change(inputs=None), "is damaged"),
        ("artifact.json", _change(sha256="0" * 64), "checksum does not match"),
    ],
)
def test_a_damaged_artifact_is_a_warning_and_nothing_and_can_be_made_again(
    artifacts: Artifacts, stored: Path, name: str, damage: Callable[[Path], None], said: str
) -> None:
    damage(stored / name)
    with pytest.warns(DamageWarning, match=f"{stored}.*{said}.*; it is made again"):
        assert artifacts.load("plug", stored.name) is None
    with pytest.raises(ArtifactError, match=said):
        artifacts.check(stored)
    artifacts.save("plug", INPUTS, TENSORS)
    assert artifacts.load("plug", stored.name) is not None
    assert list(artifacts.all()) == [stored]


def test_an_artifact_that_lies_at_anothers_address_is_refused(
    artifacts: Artifacts, stored: Path
) -> None:
    other = artifacts.path("plug", address("plug", {"seed": 1}))
    shutil.copytree(stored, other)
    with pytest.warns(DamageWarning, match="not what its address says"):
        assert artifacts.load("plug", other.name) is None


def test_scratch_folders_of_the_dead_are_leftovers_and_those_of_the_living_are_not(
    artifacts: Artifacts, stored: Path
) -> None:
    scratch = stored.parent / f".{stored.name}.tmp-abc"
    scratch.mkdir()
    (scratch / "weights.safetensors").write_text("half")
    aside = stored.parent / f".{stored.name}.old-abc"
    aside.mkdir()
    # Whatever the clock says: one writer is at work, and its folder looks ages old.
    with atomic_folder(stored.parent / ("f" * 32)) as living:
        os.utime(living, (0, 0))
        assert list(artifacts.leftovers()) == [aside, scratch]
        (living / "artifact.json").write_text("{}")
    assert list(artifacts.all()) == [stored, stored.parent / ("f" * 32)]


def test_the_next_writer_clears_away_what_a_killed_one_left(
    artifacts: Artifacts, stored: Path
) -> None:
    (stored.parent / f".{stored.name}.tmp-abc").mkdir()
    other = stored.parent / ".other.tmp-abc"
    other.mkdir()
    artifacts.save("plug", INPUTS, TENSORS)
    assert list(artifacts.leftovers()) == [other]


def test_what_was_taken_aside_by_a_killed_writer_is_put_back(tmp_path: Path) -> None:
    target, aside = tmp_path / "kept", tmp_path / ".kept.old-abc"
    aside.mkdir()
    (aside / "folder").mkdir()
    (aside / "folder" / "file").write_text("good")
    with pytest.raises(ZeroDivisionError), atomic_folder(target):
        raise ZeroDivisionError
    assert (target / "file").read_text() == "good"
    assert not aside.exists()


WRITER = """
import sys, warnings
from pathlib import Path
import torch
from kbench.store import Artifacts
from kbench.store.folder import address
warnings.simplefilter("error")
store, mine = Artifacts(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
made = 0
for number in range(20):
    inputs = {"number": number}
    key = address("plug", inputs)
    with store.making("plug", key):
        if store.load("plug", key) is None:
            store.save("plug", inputs, {"t": torch.full((1000,), number)}, maker=mine)
            made += 1
    assert (store.load("plug", key).tensors["t"] == number).all()
print(made)
"""


def test_two_processes_that_make_the_same_artifacts_make_each_once(artifacts: Artifacts) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(artifacts.folder), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    outputs = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        out, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
        outputs.append(int(out))
    assert sum(outputs) == 20
    assert len(list(artifacts.all())) == 20
    assert list(artifacts.leftovers()) == []


# -- results ---------------------------------------------------------------------------------------

HOSTILE = "<script>alert('x')</script> & \"q\" İstanbul 👩‍👩‍👧 \u202e\x1b[31m \\ \n end"
SPEC = RunSpec(
    task=HOSTILE,
    backbone="b",
    tuning="full",
    method="m",
    setting=Setting.GENERAL,
    knowledge="k",
    control=Control.NONE,
    seed=0,
    options={"method": {"m": {"x": HOSTILE}}},
)
PREDICTIONS = Predictions(
    ids=["1", HOSTILE],
    labels=["a", HOSTILE],
    predictions=["", "b"],
    scores=[0.5, 1.0],
    linked=[True, False],
    degrees=[-1, 7],
    strata=["", HOSTILE],
)


def outcome(key: str = "0" * 32, **fields: Any) -> Result:
    given: dict[str, Any] = {
        "id": key,
        "status": Status.OK,
        "spec": SPEC,
        "main_metric": "accuracy",
        "metrics": {"accuracy": Score(value=0.5, low=0.25, high=1, n=2, variant="accuracy")},
        "coverage": Coverage(examples=0.5, mentions=1 / 3, linker="gold"),
        "cost": {"train_seconds": 1.5},
        "training": {"note": HOSTILE},
        "predictions": "predictions.parquet",
    }
    return Result(**{**given, **fields})


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


def test_a_result_with_any_text_in_it_comes_back_as_saved(results: Results) -> None:
    folder = results.folder / results.save(outcome(), PREDICTIONS).id
    assert results.load("0" * 32) == outcome()
    assert results.predictions(outcome()) == PREDICTIONS
    assert list(results) == [outcome()]
    assert sorted(path.name for path in folder.iterdir()) == ["predictions.parquet", "result.json"]
    written = json.loads((folder / "result.json").read_text())
    assert written["schema"] == 1
    assert written["spec"]["task"] == HOSTILE
    assert outcome().score == outcome().metrics["accuracy"]


def test_acceptable_answers_come_back_beside_the_one_that_was_given(results: Results) -> None:
    labels = [("Rome", "Roma"), ("Oslo",)]
    made = replace(PREDICTIONS, labels=labels, predictions=["Roma", "Bern"])
    results.save(outcome(), made)
    assert results.predictions(outcome()) == made


FAILED = outcome(status=Status.FAILED, reason=HOSTILE, predictions=None, metrics={})


def test_a_later_result_replaces_the_earlier_with_its_predictions(results: Results) -> None:
    folder = results.folder / results.save(FAILED).id
    assert results.load("0" * 32) == FAILED
    assert results.predictions(FAILED) is None
    assert FAILED.score is None
    assert [path.name for path in folder.iterdir()] == ["result.json"]
    assert results.save(outcome(), PREDICTIONS) == outcome()
    assert results.load("0" * 32) == outcome()
    assert len([*folder.iterdir()]) == 2


def test_a_failure_never_replaces_what_ended_well(results: Results) -> None:
    results.save(outcome(), PREDICTIONS)
    assert results.save(FAILED) == outcome()
    assert results.load("0" * 32) == outcome()
    assert results.predictions(outcome()) == PREDICTIONS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_change(schema=2), "was written by another kbench 0.1.0 and has schema 2, not 1"),
        (_change(surprise=1), "another kbench 0.1.0 and has a field unknown here at surprise"),
        (
            _change(provenance={"kbench": "9.8"}, surprise=1, status="paused"),
            "was written by kbench 9.8 and has a value at status",
        ),
        (_change(coverage={"mean": 1}, provenance={"kbench": "9.8"}), "by kbench 9.8"),
    ],
)
def test_a_result_of_another_version_is_never_repeated_nor_replaced(
    results: Results, change: Callable[[Path], None], said: str
) -> None:
    path = results.folder / results.save(outcome(), PREDICTIONS).id / "result.json"
    results.save(outcome("f" * 32), PREDICTIONS)
    change(path)
    theirs = path.read_bytes()
    said = f"{path}: .*{said}.*install the version that wrote it, or give another --out"
    for use in (results.load, results.finished, lambda key: results.save(outcome(key))):
        with pytest.raises(VersionError, match=said):
            use("0" * 32)
    with pytest.warns(DamageWarning, match=f"left out: {said}"):
        assert [result.id for result in results] == ["f" * 32]
    assert path.read_bytes() == theirs
    assert list(abandoned(results.folder)) == []


def test_a_result_that_is_not_there_is_nothing(results: Results) -> None:
    assert results.load("0" * 32) is None
    assert list(results) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_change(id="1" * 32), "has the id 1111.*expected the id 0000"),
        (_change(schema="2"), "has schema '2'; expected schema 1"),
        (_change(status="odd"), "status: Input should be"),
        (_change(surprise=1, status="odd"), "status: Input should be"),
        (_change(cost={"train_seconds": float("inf")}), "Infinity is no number"),
        (_change(metrics={"m": {"value": 1.5}}), "metrics.m.value"),
        (_change(metrics={"m": {"value": float("nan")}}), "NaN is no number"),
        (_write("{"), "is not JSON"),
        (_write('{"schema": 1, "schema": 1}'), "occurs twice"),
        (_write("[]"), "is no JSON object"),
        (_write("[" * 100_000), "is not JSON"),
        (_empty, "is empty"),
        (_cut, "is not JSON"),
    ],
)
def test_a_damaged_or_foreign_result_is_a_warning_and_the_run_is_repeated(
    results: Results, change: Callable[[Path], None], said: str
) -> None:
    folder = results.folder / results.save(outcome(), PREDICTIONS).id
    results.save(outcome("f" * 32), PREDICTIONS)
    change(folder / "result.json")
    with pytest.warns(DamageWarning, match=f"{folder}.*{said}.*; the run is repeated"):
        assert results.load("0" * 32) is None
    with pytest.warns(DamageWarning):
        assert [result.id for result in results] == ["f" * 32]


def test_a_result_that_lost_its_predictions_is_repeated(results: Results) -> None:
    folder = results.folder / results.save(outcome(), PREDICTIONS).id
    (folder / "predictions.parquet").unlink()
    with pytest.warns(DamageWarning, match="has lost its predictions"):
        assert results.load("0" * 32) is None


def test_scratch_folders_are_no_results(results: Results) -> None:
    folder = results.folder / results.save(outcome(), PREDICTIONS).id
    shutil.copytree(folder, results.folder / ".x.tmp-1")
    assert list(results) == [outcome()]


def test_a_result_that_names_another_file_opens_only_its_own(results: Results) -> None:
    stranger = outcome(predictions="../../../etc/passwd")
    results.save(stranger, PREDICTIONS)
    assert results.predictions(stranger) == PREDICTIONS


def test_a_missing_result_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_result(tmp_path / "result.json")


# -- predictions -----------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
rows = st.lists(st.tuples(text, text, text, st.floats(0, 1, width=32), st.booleans()), max_size=4)


@given(rows=rows, several=st.booleans())
def test_predictions_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str, float, bool]],
    several: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "predictions.parquet"
    predictions = Predictions(
        ids=[row[0] for row in rows],
        labels=[tuple(row[1]) if several else row[1] for row in rows],
        predictions=[tuple(row[2]) if several else row[2] for row in rows],
        scores=[row[3] for row in rows],
        linked=[row[4] for row in rows],
        degrees=[len(row[0]) - 1 for row in rows],
        strata=[row[0] for row in rows],
    )
    write_predictions(path, predictions)
    assert read_predictions(path) == predictions


def test_damaged_predictions_are_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    write_predictions(path, PREDICTIONS)
    whole = pq.read_table(path)
    _cut(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(path)
    for table in (
        whole.drop_columns(["linked"]),
        whole.set_column(1, "label", pa.array([None, "a"])),
        whole.set_column(1, "label", pa.array([1, 2])),
    ):
        pq.write_table(table, path)
        with pytest.raises(DataError, match="cannot be read"):
            read_predictions(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path / "none")
