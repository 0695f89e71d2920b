"""Figures: what they show are the figures of the table, drawn one column wide, of any names."""

from __future__ import annotations

import csv
import struct
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import kbench
import kbench.errors
from kbench.data.files import write_json
from kbench.figures.drawing import COLUMN
from kbench.figures.figure import Figure
from kbench.pipeline.buckets import Popularity
from kbench.results.rescoring import rescored_parts
from kbench.store import Results
from tests.calling import call
from tests.stored import predictions, store

GOLD = ["capital of", "located in", "flows into", "lives in"] * 25
DEGREES = [-1] * 20 + [1] * 40 + [9] * 40
KINDS = ("forest", "matrix", "buckets", "cost", "seeds")
WRONG: dict[tuple[str, str], tuple[int, ...]] = {
    # How many are wrong of the unknown, the tail and the head.
    ("map-tuning", "none"): (10, 5, 5),
    ("map-tuning", "foreign"): (10, 25, 15),
    ("ra", "none"): (0, 10, 0),
    ("ra", "foreign"): (0, 20, 5),
    ("none", "none"): (10, 30, 20),
}
SECONDS = {"map-tuning": 12.0, "ra": 0.0}
HOSTILE = (
    "</text><script>alert(1)</script>",
    "a\x00\x1b[2J\ufffe\ud800\u202eb\nc",
    '{"signal": "1+1"}',
    "datum['value']",
    "x" * 300,
    "x" * 301,
)


def fill(folder: Path, seeds: int = 2, **changes: Any) -> None:
    for (method, control), wrong in WRONG.items():
        guessed: list[str] = []
        for start, end, missed in ((0, 20, wrong[0]), (20, 60, wrong[1]), (60, 100, wrong[2])):
            guessed += ["nothing"] * missed + GOLD[start + missed : end]
        for seed in range(seeds):
            found = predictions(GOLD, guessed, degrees=DEGREES)
            about = {"task": "atlas-relations", "method": method, "control": control, **changes}
            spent = SECONDS.get(method)
            cost = (
                {} if spent is None else {"train_seconds": spent, "train_processor_seconds": spent}
            )
            if spent is not None:
                cost["start_processor_seconds"] = 0.0
            result = store(folder, found, seed=seed, cost=cost, **about)
            if method != "none":
                parts = rescored_parts(result, found, Popularity(5, 5))
                kept = Results(folder).load(result.id)
                assert kept is not None
                told = kept.model_copy(update={"buckets": parts}).as_json()
                write_json(folder / result.id / "result.json", told)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    fill(folder)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of strangers, whose tuning has what name they like."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in HOSTILE:
        fill(folder, seeds=1, tuning=name.encode(errors="replace").decode())
    return folder


def drawn(folder: Path, kind: str, **options: Any) -> Figure:
    return kbench.load(folder).plot(kind, **options)


def test_a_forest_and_a_matrix_show_the_gains_of_the_table(folder: Path) -> None:
    table = kbench.load(folder).table().set_index(["method", "control"])
    data = drawn(folder, "forest").data.set_index(["method", "figure"])
    assert len(data) == 4
    for method in ("map-tuning", "ra"):
        for figure, name in (("knowledge gain", "gain"), ("Δ none", "delta")):
            shown, told = data.loc[method, figure], table.loc[method, "none"]
            for end, column in (("value", name), ("low", f"{name}_low"), ("high", f"{name}_high")):
                assert shown[end] == pytest.approx(100 * told[column])
    matrix = drawn(folder, "matrix", value="score").data.set_index("method")["value"]
    assert matrix.to_dict() == pytest.approx({"map-tuning": 80.0, "ra": 90.0})


def test_parts_of_the_examples_have_their_own_gains(folder: Path) -> None:
    data = drawn(folder, "buckets").data.set_index(["method", "bucket"])
    gains = {"known": 100 * 30 / 80, "unknown": 0.0, "tail": 50.0, "head": 25.0}
    assert data.loc["map-tuning"]["value"].to_dict() == pytest.approx(gains)
    assert data.loc["map-tuning"]["n"].to_dict() == {
        "known": 80, "unknown": 20, "tail": 40, "head": 40
    }  # fmt: skip
    assert (data["low"] <= data["value"]).all()
    assert (data["value"] <= data["high"]).all()


def test_what_is_better_and_cheaper_is_on_the_front(folder: Path) -> None:
    data = drawn(folder, "cost").data.set_index("method")
    assert data["seconds"].to_dict() == SECONDS
    assert data["front"].to_dict() == {"map-tuning": True, "ra": True}
    of_scores = drawn(folder, "cost", value="score").data.set_index("method")
    assert of_scores["front"].to_dict() == {"map-tuning": False, "ra": True}


def test_every_seed_is_shown_beside_its_controls(folder: Path) -> None:
    data = drawn(folder, "seeds").data
    assert len(data) == 2 * 3 * 2
    ours = data[data["method"] == "map-tuning"].groupby("knowledge")["value"].unique()
    assert {name: each.tolist() for name, each in ours.items()} == {
        "true": pytest.approx([80]), "foreign": pytest.approx([50]), "none": pytest.approx([40])
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_one_column_wide_with_their_data_beside(
    folder: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / f"figure.{ending}") for ending in ("pdf", "svg", "png")]
    status, out, err = call(capsys, "plot", kind, *files, "--out", str(folder))
    assert (status, err) == (0, "")
    assert out.splitlines() == [files[0], str(tmp_path / "figure.csv"), *files[1:]]
    pdf, svg, png = (Path(file).read_bytes() for file in files)
    assert pdf.startswith(b"%PDF")
    assert b"FontFile" in pdf, "fonts are not embedded"
    width, _ = struct.unpack(">II", png[16:24])
    assert width <= 4 * (COLUMN + 4)
    assert float(ElementTree.fromstring(svg).get("width", "999")) <= COLUMN + 4
    with (tmp_path / "figure.csv").open(encoding="utf-8", newline="") as file:
        lines = [*csv.DictReader(file)]
    assert len(lines) == len(drawn(folder, kind).points)
    assert {"task", "method", "value"} <= lines[0].keys()


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_strangers_are_drawn_as_text(hostile: Path, tmp_path: Path, kind: str) -> None:
    figure = drawn(hostile, kind)
    tasks = {point["task"] for point in figure.points}
    assert len(tasks) == len(HOSTILE), "two names became one"
    assert max(map(len, tasks)) <= 50
    svg, _ = figure.save(tmp_path / "figure.svg")
    tree = ElementTree.parse(svg)
    assert not [node for node in tree.iter() if node.tag.endswith("script")]
    assert not [node for node in tree.iter() if any("href" in key for key in node.attrib)]
    text = " ".join(tree.getroot().itertext())
    assert "</text><scri" in text
    assert "signal" in text
    assert '"' not in text  # charts give it a meaning


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forest", "a.gif"], "a.gif: expected a file that ends in .pdf, .svg, .png"),
        (["seeds", "a.png", "--value", "gain"], "--value gain: seeds has no choice of it"),
        (["cost", "a.png", "--method", "none"], "nothing to draw: no run has both"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_a_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = call(capsys, "plot", *arguments, "--out", str(folder))
    assert status == 2
    assert message in err
    assert [path.name for path in tmp_path.iterdir() if path.suffix] == []


def test_without_what_draws_it_is_said_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(kbench.errors.UsageError, match=r"knowledge-bench\[leaderboard\]"):
        _ = drawn(folder, "forest").chart
