"""Results as a data set of the hub: every table can be read, and the card says which there are."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub.repocard import metadata_load

from kbench.data.files import read_front_matter
from kbench.errors import UsageError
from kbench.interface.hub import TABLES, export_hub
from kbench.interface.reading import Runs, load
from tests.calling import call
from tests.interface.conftest import GOLD
from tests.stored import predictions, store


def _head(path: Path) -> dict[str, object]:
    value = metadata_load(path)  # as the hub's own library reads a card
    assert isinstance(value, dict)
    assert read_front_matter(path) == value
    return value


def test_every_table_is_there_and_is_that_of_the_interface(results: Path, tmp_path: Path) -> None:
    # Of another family too: there a label is several types, and a column has one type all the same.
    several = [("river", "place"), ("town",)]
    store(results, predictions(several, several, ["x", "y"]), task="atlas-typing", method="none")
    runs = load(results)
    written = export_hub(runs, tmp_path / "shared", title="Ours | <b>")
    assert [path.name for path in written] == [*(f"{name}.parquet" for name in TABLES), "README.md"]
    found = {path.stem: pq.read_table(path) for path in written[:-1]}
    assert found["runs"].num_rows == len(runs) == 7
    assert found["scores"].num_rows == len(runs.scores())
    assert found["predictions"].num_rows == 6 * len(GOLD) + 2
    labels = found["predictions"].column("label").to_pylist()
    assert ["river", "place"] in labels
    assert ["capital of"] in labels
    head = _head(tmp_path / "shared" / "README.md")
    configurations = head["configs"]
    assert isinstance(configurations, list)
    assert {each["config_name"] for each in configurations} == {*TABLES}
    assert [each["config_name"] for each in configurations if each["default"]] == ["table"]
    for each in configurations:
        assert (tmp_path / "shared" / each["data_files"]).is_file()


def test_the_library_of_the_hub_reads_it(results: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    export_hub(load(results), tmp_path / "shared")
    there = str(tmp_path / "shared")
    rows = load_dataset(there, "predictions", split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 6 * len(GOLD)
    assert rows[0]["label"] == [GOLD[0]]


def test_the_command_takes_a_selection(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tmp_path / "shared"), "map-tuning,control=foreign", "--out", str(results)]
    code, out, err = call(capsys, "export", "hub", *words)
    assert (code, err) == (0, "")
    assert out.endswith("shared: 2 results\n")
    assert pq.read_table(tmp_path / "shared" / "data" / "runs.parquet").num_rows == 2
    with pytest.raises(UsageError, match="no such result to export"):
        export_hub(Runs(results, []), tmp_path / "none")


def test_a_site_can_be_a_space(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--results", str(results), "--out", str(tmp_path / "site"), "--space", "A: b"]
    assert call(capsys, "leaderboard", "build", *words)[0] == 0
    head = _head(tmp_path / "site" / "README.md")
    assert head == {"title": "A: b", "sdk": "static", "app_file": "index.html"}
    assert (tmp_path / "site" / "index.html").is_file()
