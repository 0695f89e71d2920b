"""`kbench compare` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.calling import call
from tests.stored import predictions, store

pytestmark = pytest.mark.usefixtures("toy_tasks")

GOLD = ["red", "green", "blue", "white"] * 25


def _call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    return call(capsys, "compare", *arguments)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for task in ("toy-relations", "toy-qa"):
        for seed in (0, 1):
            guesses = {
                ("map-tuning", "none"): ["red"] * 60 + GOLD[60:],
                ("map-tuning", "foreign"): ["red"] * 70 + GOLD[70:],
                ("none", "none"): ["red"] * (80 + seed) + GOLD[80 + seed :],
            }
            for (method, control), guess in guesses.items():
                store(
                    tmp_path,
                    predictions(GOLD, guess),
                    task=task,
                    method=method,
                    control=control,
                    seed=seed,
                )
    return str(tmp_path)


def test_a_run_is_compared_with_its_yardsticks(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = _call(capsys, "map-tuning", "--out", folder, "--json")
    assert (status, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    against = [(v["task"], v["theirs"]["method"], v["theirs"]["control"]) for v in found]
    assert sorted(against) == [
        (task, *other)
        for task in ("toy-qa", "toy-relations")
        for other in (("map-tuning", "foreign"), ("none", "none"))
    ]
    gap = next(v for v in found if v["theirs"]["method"] == "none")
    assert gap["difference"]["value"] == pytest.approx((0.15 + 0.15) / 2)
    assert gap["by_seed"] == {"0": pytest.approx(0.15), "1": pytest.approx(0.15)}
    assert gap["p_holm"] >= gap["p"]
    _, everything, _ = _call(capsys, "--all", "--out", folder, "--json")
    assert everything == out
    _, chosen, _ = _call(capsys, "--all", "none", "--task", "*-qa", "--out", folder, "--json")
    assert [json.loads(line)["task"] for line in chosen.splitlines()] == ["toy-qa"]


@pytest.mark.parametrize(
    ("conditions", "fails"),
    [
        (["low<0"], 0),
        (["low > 0"], 2),
        (["holm>0.05", "difference<15.01"], 2),
        (["difference<14.99"], 0),
        (["high>=100"], 0),
        (["p<=1"], 2),
    ],
)
def test_a_condition_decides_how_it_ends(
    folder: str, capsys: pytest.CaptureFixture[str], conditions: list[str], fails: int
) -> None:
    words = ["map-tuning", "none", "--out", folder, "--json"]
    status, out, err = _call(capsys, *words, *(w for c in conditions for w in ("--fail-if", c)))
    assert len(out.splitlines()) == 2  # what is shown is shown all the same
    assert status == (1 if fails else 0)
    assert len(err.splitlines()) == fails
    if fails:
        assert err.startswith(f"--fail-if {conditions[-1]}: toy-")
        assert " against " in err


@pytest.mark.parametrize("condition", ["worse", "low", "low=0", "score<1", "low<nan", "low<"])
def test_a_condition_that_is_none_is_refused(
    folder: str, capsys: pytest.CaptureFixture[str], condition: str
) -> None:
    status, _, err = _call(capsys, "map-tuning", "--out", folder, "--fail-if", condition)
    assert status == 2
    assert "such as low<0" in err


@pytest.mark.parametrize("width", [80, 140])
def test_the_figures_fit_the_terminal(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    status, out, _ = _call(capsys, "map-tuning,seed=0", "none", "--out", folder)
    assert status == 0
    assert max(map(len, out.splitlines())) <= width
    assert "toy-qa  ·  bert  ·  full  ·  accuracy  ·  100 examples" in out
    for word in ("map-tuning general kb", "− none", "55.0", "40.0", "+15.0", "<0.001*", "Holm"):
        assert word in out
    _, out, _ = _call(capsys, "map-tuning", "none", "--out", folder)
    assert "2 seeds" in out
    assert "by seed 0: +15.0  1: +15.0" in out


def test_what_is_not_comparable_is_refused_or_marked(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    guess = predictions(GOLD, ["red"] * 100)
    store(Path(folder), guess, method="pelt", digest="other")
    ask = ("map-tuning,task=toy-relations,seed=0", "pelt", "--out", folder)
    status, out, err = _call(capsys, *ask)
    assert (status, out) == (2, "")
    assert "data digest d1 against other" in err
    assert err.count("\n") == 1
    status, out, err = _call(capsys, *ask, "--force")
    assert (status, err) == (0, "")
    assert "warning: not comparable: data digest d1 against other (1 of 1)" in out
    _, out, _ = _call(capsys, *ask, "--force", "--json")
    assert json.loads(out)["warnings"] == ["not comparable: data digest d1 against other"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "given 0 runs"),
        (("map-tuning", "none", "pelt"), "given 3 runs"),
        (("--all", "none", "none"), "given 2 runs and --all"),
        (("map-tunning", "none"), "did you mean map-tuning?"),
        (("map-tuning", "none", "--task", "x"), "no comparison is left"),
        (("none", "control=foreign"), "no result 'control=foreign' belongs to one of 'none'"),
        (("map-tuning", "none", "--family", "colour"), "--family 'colour'"),
        (("map-tuning", "none", "--metric", "f7"), "has no metric 'f7'"),
    ],
)
def test_a_usage_error_is_one_line(
    folder: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    status, out, err = _call(capsys, *arguments, "--out", folder)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def _cut(folder: Path) -> None:
    path = folder / "result.json"
    path.write_text(path.read_text()[:200])


def _nested(folder: Path) -> None:
    (folder / "result.json").write_text('{"spec":' * 2000)


def _unread(folder: Path) -> None:
    (folder / "predictions.parquet").write_bytes(b"PAR1")


def _lost(folder: Path) -> None:
    (folder / "predictions.parquet").unlink()


@pytest.mark.parametrize("damage", [_cut, _nested, _unread, _lost])
@pytest.mark.parametrize("verb", ["compare", "diff"])
def test_a_damaged_run_is_one_line_and_a_damaged_neighbour_none(
    verb: str,
    damage: Callable[[Path], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gold = ["a", "b"] * 20
    made = {
        method: store(tmp_path, predictions(gold, ["a", "b"] * 20), method=method)
        for method in ("none", "map-tuning", "ra")
    }
    whole = call(capsys, verb, "map-tuning", "none", "--out", str(tmp_path))
    damage(tmp_path / made["ra"].id)
    beside = call(capsys, verb, "map-tuning", "none", "--out", str(tmp_path))
    assert whole[0] == 0
    assert beside[:2] == whole[:2]
    damage(tmp_path / made["map-tuning"].id)
    status, out, err = call(capsys, verb, "map-tuning", "none", "--out", str(tmp_path))
    assert (status, out) == (2, "")
    said = err.splitlines()
    assert all(line.startswith("warning: left out: ") for line in said[:-1])
    assert made["map-tuning"].id in err
    alone = ("error: no stored result that ended", "error: nothing stored is called 'map-tuning'")
    assert said[-1].startswith(alone) or said[-1].startswith(
        f"error: {tmp_path / made['map-tuning'].id}"
    )
    assert all(len(line) < 400 for line in said)
