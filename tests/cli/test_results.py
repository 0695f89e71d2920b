"""`kbench results`: what is listed, and that nothing but what was meant is removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbench.store import Result, Results, Status
from tests.calling import call
from tests.stored import predictions, spec, store

pytestmark = pytest.mark.usefixtures("toy_tasks")

GOLD = ["red", "green"] * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four results: none, map-tuning, its control, and one that failed."""
    out = tmp_path / "out"
    store(out, predictions(GOLD, GOLD), method="none")
    store(out, predictions(GOLD, GOLD), options={"method": {"map-tuning": {"slot": 3}}})
    store(out, predictions(GOLD, GOLD), control="shuffled")
    failed = Result(id="f" * 32, status=Status.FAILED, reason="no luck", spec=spec(seed=9))
    Results(out).save(failed)
    return out


def _left(out: Path) -> list[tuple[str, str, int]]:
    found = [(r.spec.method, str(r.spec.control), r.spec.seed) for r in Results(out)]
    return sorted(found)


def test_results_are_listed_with_state_date_size_and_run(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (folder / ("e" * 32)).mkdir()
    (folder / ("e" * 32) / "result.json").write_text("{")
    code, out, _ = call(capsys, "results", "ls", "--out", str(folder))
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "failed" in lines["f" * 12]
    assert "/ map-tuning / " in lines["f" * 12]
    assert lines["f" * 12].rstrip().endswith("seed 9")
    assert "unreadable" in lines["e" * 12]
    assert any("method.map-tuning.slot=3" in line for line in lines.values())
    assert out.splitlines()[-1].startswith("5 results, 0.0 MB in")
    _, out, _ = call(capsys, "results", "ls", "map-tuning", "--json", "--out", str(folder))
    listed = [json.loads(line) for line in out.splitlines()]
    assert sorted(item["status"] for item in listed) == ["failed", "ok", "ok"]
    assert {item["spec"]["control"] for item in listed} == {"none", "shuffled"}
    assert all(item["bytes"] > 100 for item in listed)
    _, out, _ = call(capsys, "results", "ls", "--failed", "--json", "--out", str(folder))
    assert [json.loads(line)["reason"] for line in out.splitlines()] == ["no luck"]


def test_what_is_meant_is_removed_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = ["results", "rm", "--out", str(folder)]
    whole = _left(folder)
    code, out, _ = call(capsys, *there, "--failed", "--dry-run")
    assert (code, "would remove " + "f" * 32 in out, _left(folder)) == (0, True, whole)
    code, out, _ = call(capsys, *there, "--failed", "--yes")
    assert (code, "removed 1 of 1 result" in out) == (0, True)
    assert _left(folder) == [row for row in whole if row[2] != 9]
    code, _, _ = call(capsys, *there, "map-tuning,control=shuffled", "--yes")
    assert _left(folder) == [("map-tuning", "none", 0), ("none", "none", 0)]
    (kept,) = (r.id for r in Results(folder) if r.spec.method == "none")
    code, _, _ = call(capsys, *there, kept[:6], "--yes")
    assert _left(folder) == [("map-tuning", "none", 0)]
    assert not [path for path in folder.iterdir() if "tmp" in path.name]


def test_removal_asks_and_refuses_what_says_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ["results", "rm", "--out", str(folder)]
    whole = _left(folder)
    code, _, err = call(capsys, *there)
    assert (code, "say which results" in err) == (2, True)
    code, _, err = call(capsys, *there, "map-tunin")
    assert (code, "did you mean map-tuning" in err) == (2, True)
    monkeypatch.setattr("click.confirm", lambda _: False)
    assert call(capsys, *there, "map-tuning")[0] == 1
    assert _left(folder) == whole
    monkeypatch.setattr("click.confirm", lambda _: True)
    assert call(capsys, *there, "map-tuning")[0] == 0
    assert _left(folder) == [("none", "none", 0)]


def test_what_says_nothing_or_means_nothing_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _left(folder)
    for selections, said in (
        (("",), "'' says nothing"),
        ((" , ",), "' , ' says nothing"),
        (("map-tuning", "none,seed=7"), "no stored result is 'none,seed=7'"),
    ):
        for verb in (("rm", "--yes"), ("ls",)):
            ask = ("results", *verb, *selections, "--out", str(folder))
            status, out, err = call(capsys, *ask)
            assert (status, out, err.count("\n")) == (2, "", 1)
            assert said in err
    assert _left(folder) == whole


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_digit_of_a_listed_result_is_cut(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = call(capsys, "results", "ls", "--out", str(folder))
    for result in Results(folder):
        assert out.count(result.id[:12]) == 1
    gone = [name for name in ("date", "kB") if name not in out.splitlines()[0]]
    assert out.count("Left out for want of room") == bool(gone)
    assert ("2026-01-01T00:00" in out) is ("date" not in gone)


def test_what_is_removed_while_it_is_listed_is_no_error(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = Results.entries

    def raced(self: Results) -> Iterator[tuple[str, Result | None, str]]:
        for key, result, problem in entries(self):
            if result is not None and result.spec.method == "none":
                assert self.remove(key, result) == ""
            yield key, result, problem

    monkeypatch.setattr(Results, "entries", raced)
    status, out, _ = call(capsys, "results", "ls", "--json", "--out", str(folder))
    assert status == 0
    assert len(out.splitlines()) == 3


def test_links_other_files_and_what_changed_meanwhile_are_left(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Results(folder)
    ours = {str(r.spec.control): r for r in there if r.status == Status.OK and r.spec.knowledge}
    elsewhere = tmp_path / "elsewhere"
    linked = folder / ours["shuffled"].id
    linked.rename(elsewhere)
    linked.symlink_to(elsewhere)
    (folder / ours["none"].id / "notes.txt").write_text("mine")
    code, _, err = call(capsys, "results", "rm", "map-tuning", "--yes", "--out", str(folder))
    assert code == 1
    assert f"{ours['shuffled'].id} is a link" in err
    assert "holds 'notes.txt'" in err
    assert sorted(path.name for path in elsewhere.iterdir()) == [
        "predictions.parquet",
        "result.json",
    ]
    (none,) = (r for r in there if r.spec.method == "none")
    other = none.model_copy(update={"reason": "another"})
    assert there.remove(none.id, other) == "has changed meanwhile"
    assert there.remove(none.id, none) == ""
    assert there.remove(none.id, none) == "is gone already"


def test_bad_input_is_told_and_nothing_is_stored(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--task", "custom", "--method", "none", "--backbone", str(toy_folder / "bert")]
    words += ["--device", "cpu", "--out", str(tmp_path / "out")]
    code, _, err = call(capsys, *words, "--data", str(tmp_path / "mistyped"))
    assert code == 2
    assert "1 runs: 0 stored, 0 to run, 1 cannot" in err
    assert err.count("mistyped") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_turns_out_bad_while_it_runs_is_not_stored_either(
    jobs: int,
    toy_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The plan sees a backbone that does not load; here it is as if it had not looked.
    monkeypatch.setattr("kbench.grid.obstacles.Obstacles.of", lambda *_: "")
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (toy_folder / "bert").iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    words = ["run", "--task", "atlas-relations", "--method", "none", "--jobs", str(jobs), "--json"]
    words += ["--backbone", str(broken), "--device", "cpu", "--out", str(tmp_path / "out")]
    code, out, err = call(capsys, *words)
    assert (code, "REFUSED" in err) == (2, True)
    assert json.loads(out)["status"] == "refused"
    assert "cannot be loaded" in json.loads(out)["reason"]
    assert [*(tmp_path / "out").glob("*/result.json")] == []


def test_an_empty_folder_has_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "results", "ls", "--out", str(tmp_path))
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith("0 results")
