"""`kbench table` in its formats, and `kbench score`, over results made by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from kbench.knowledge import Bundle
from kbench.knowledge.controls import Zero
from kbench.pipeline.costs import knowledge_cost
from tests.calling import call
from tests.stored import predictions, store

pytestmark = pytest.mark.usefixtures("toy_tasks")

GOLD = ["red", "green", "blue", "white"] * 25


def right(*wrong: int) -> list[str]:
    return ["black" if n in wrong else label for n, label in enumerate(GOLD)]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Of 100 right: map-tuning 90, tied with pelt 88, its control 70, none 50."""
    degrees = [-1] * 40 + [5] * 60
    cost = {"evaluate_seconds_per_example": 0.00144, "peak_memory_bytes": 1.5e9}
    more = {**cost, "trainable_parameters": 16_512.0, "knowledge_bytes": 12_345.0}
    for method, control, wrong in (
        ("map-tuning", "none", range(60, 70)),
        ("map-tuning", "foreign", range(50, 80)),
        ("pelt_x", "none", range(60, 72)),
        ("none", "none", range(50, 100)),
    ):
        found = predictions(GOLD, right(*wrong), degrees=degrees)
        store(
            tmp_path,
            found,
            method=method,
            control=control,
            knowledge="/kb/a_b",
            cost=cost if method == "none" else more,
        )
    return str(tmp_path)


def test_markdown(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "table", "--out", folder, "--format", "markdown")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "### toy-relations  ·  bert  ·  full  ·  accuracy".replace("  ", " ")
    head, sides, none, ours, foreign, pelt = lines[2:8]
    assert head.startswith("| method | setting | knowledge | score | Δ none | knowledge gain |")
    assert sides.startswith("|---|---|---|---:|---:|")
    assert none.startswith("| none |  |  | 50.0 ")
    assert "| **90.0** " in ours
    assert "| +40.0 " in ours
    assert "| +20.0 " in ours
    assert "| 0.0% of 40 | 1.44 (1.44) | 1.5 GB | 12.3 kB |" in ours
    assert "| 70.0 " in foreign
    assert pelt.startswith("| pelt\\_x ")
    assert "| **88.0** " in pelt
    assert len({line.count(" | ") for line in lines[4:8]}) == 1


def test_latex(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ("table", "--out", folder, "--format", "latex", "--columns", "score,delta,locality")
    status, out, _ = call(capsys, *ask)
    assert status == 0
    body = [line for line in out.splitlines() if not line.startswith("%")]
    assert body[:4] == [
        r"\begin{tabular}{lllrrr}",
        r"\toprule",
        r"method & setting & knowledge & score & $\Delta$ none & broken \\",
        r"\midrule",
    ]
    assert r"& \textbf{90.0} [" in body[5]
    assert r"& 0.0\% of 40 \\" in body[5]
    assert body[7].startswith(r"pelt\_x & general & kb & \textbf{88.0} [")
    assert [line for line in body[8:] if line] == [r"\bottomrule", r"\end{tabular}"]


def test_csv_and_json_have_all_figures(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "table", "--out", folder, "--format", "csv")
    lines = list(csv.DictReader(out.splitlines()))
    _, out, _ = call(capsys, "table", "--out", folder, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == len(rows) == 4
    for line, row in zip(lines, rows, strict=True):
        assert line["method"] == row["method"]
        assert (line["best"] == "True") is row["best"] is (row["score"]["value"] > 0.8)
        assert float(line["score_low"]) == row["score"]["low"]
        assert line["delta"] == ("" if row["delta"] is None else str(row["delta"]["value"]))
        assert line["locality_n"] == ("" if row["locality"] is None else "40")
        assert float(line["evaluate_seconds_per_example"]) == 0.00144
    assert {line["knowledge_bytes"] for line in lines} == {"12345.0", ""}


def test_the_signs_of_a_format_are_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a|b<i>\n%_& \\x{}"
    store(tmp_path, predictions(GOLD, right()), method=name)
    _, out, _ = call(capsys, "table", "--out", str(tmp_path), "--format", "markdown")
    assert r"| a\|b\<i\> %\_\& \\x{} |" in out
    _, out, _ = call(capsys, "table", "--out", str(tmp_path), "--format", "latex")
    assert r"a\textbar{}b\textless{}i\textgreater{} \%\_\& \textbackslash{}x\{\} &" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--columns", "scroe"), "did you mean score"),
        (("--format", "latex", "--published"), "--published"),
        (("--format", "word"), "--format"),
    ],
)
def test_a_usage_error_is_one_line(
    folder: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    status, out, err = call(capsys, "table", "--out", folder, *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


def test_scores_made_again_are_as_stored(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "score", "--out", folder)
    assert (status, out, err) == (0, "4 results, 4 scores: all as stored\n", "")
    _, out, _ = call(capsys, "score", "map-tuning", "--out", folder)
    assert out.startswith("2 results, 2 scores")
    _, out, _ = call(capsys, "score", "--control", "foreign", "--out", folder, "--json")
    (value,) = map(json.loads, out.splitlines())
    assert value["scores"][0]["made"]["value"] == 0.7
    assert value["problem"] == ""


@pytest.mark.parametrize(
    ("place", "change", "said"),
    [
        (("metrics", "accuracy"), {"value": 0.91}, "accuracy: value is stored as 0.91"),
        (("metrics", "accuracy"), {"n": 101}, "accuracy: n is stored as 101"),
        (("metrics", "accuracy"), {"high": 1.0}, "accuracy: high is stored as 1"),
        (("metrics", "accuracy"), {"variant": "another"}, "another cannot be made again"),
        (("spec",), {"task": "gone"}, "no task is called 'gone'"),
        ((), {"predictions": None}, "has no predictions"),
        (
            ("buckets",),
            {
                "coverage": {
                    "known": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 60, "variant": "accuracy"}
                }
            },
            "coverage known: value is stored as 0.5, the predictions give 0.833333",
        ),
    ],
)
def test_what_differs_is_said_and_gives_status_one(
    folder: str,
    capsys: pytest.CaptureFixture[str],
    place: tuple[str, ...],
    change: dict[str, object],
    said: str,
) -> None:
    for path in Path(folder).glob("*/result.json"):
        value = json.loads(path.read_text(encoding="utf-8"))
        if (value["spec"]["method"], value["spec"]["control"]) == ("map-tuning", "none"):
            part = value
            for name in place:
                part = part[name]
            part |= change
            path.write_text(json.dumps(value), encoding="utf-8")
    status, out, _ = call(capsys, "score", "--out", folder)
    assert status == 1
    assert said in out
    assert "1 differ or cannot be made again" in out


def test_an_edited_prediction_is_found(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = sorted(Path(folder).glob("*/predictions.parquet"))[:2]
    one.write_bytes(two.read_bytes())
    two.write_bytes(b"PAR1")
    status, out, _ = call(capsys, "score", "--out", folder, "--json")
    values = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    problems = [value["problem"] for value in values if value["problem"]]
    assert len(problems) == 2
    assert all("does not have the content its result states" in problem for problem in problems)


def test_a_knowledge_base_costs_the_bytes_of_its_files(toy_knowledge: Bundle) -> None:
    files = [path for path in toy_knowledge.folder.iterdir() if path.name != "card.json"]
    size = sum(path.stat().st_size for path in files if not path.name.startswith("."))
    assert knowledge_cost(toy_knowledge) == {"knowledge_bytes": size}
    assert size > 1000
    assert knowledge_cost(Zero(toy_knowledge)) == knowledge_cost(None) == {}


def test_published_figures_are_shown_where_there_are_no_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ("table", "--out", str(tmp_path / "none"), "--published", "--task", "wiki80")
    status, out, err = call(capsys, *table)
    assert (status, err) == (0, "")
    assert out.startswith("wiki80")
    assert "not measured by kbench" in out
    status, out, _ = call(capsys, *table, "--method", "none", "--json")
    figures = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert {(f["published"], f["task"], f["method"]) for f in figures} == {(True, "wiki80", "none")}
    status, _, err = call(capsys, "table", "--out", str(tmp_path / "none"))
    assert status == 2
    assert "no folder" in err
