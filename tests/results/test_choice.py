"""Sweeps: the variant that is best on dev is shown, whatever the others did on test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kbench.results.choice import choices, shown_of
from kbench.results.tables import Row, leaders, rows
from kbench.store import Result, Results
from kbench_leaderboard.board import Group
from kbench_leaderboard.site import build
from kbench_leaderboard.submission import read
from kbench_leaderboard.verify import verify
from tests.board_world import groups
from tests.calling import call
from tests.stored import predictions, store

pytestmark = pytest.mark.usefixtures("toy_tasks")

GOLD = ["red", "green", "blue", "white"] * 25


def put(folder: Path, right: int, *, rate: float = 1, epochs: int = 1, **changes: Any) -> Result:
    """Stores a run whose method's rate and tuning's epochs are options."""
    guessed = [gold if n < right else "x" for n, gold in enumerate(GOLD)]
    options: dict[str, Any] = {"tuning": {"full": {"epochs": epochs}}}
    if changes.get("method") != "none":
        options["method"] = {"map-tuning": {"general": {"learning_rate": rate}}}
    return store(folder, predictions(GOLD, guessed), options=options, **changes)


def made(folder: Path) -> list[Row]:
    found = Results(folder)
    return rows(list(found), found)


def board(folder: Path) -> list[Group]:
    found = list(Results(folder))
    return groups(found, folder)


def test_the_best_on_dev_is_shown_and_ranked_though_another_is_better_on_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, 50, method="none", dev=0.5)
    best = put(tmp_path, 60, rate=1, dev=0.7)
    other = put(tmp_path, 90, rate=2, dev=0.6)
    put(tmp_path, 40, rate=1, control="foreign")
    put(tmp_path, 40, rate=2, control="foreign")
    found = choices(Results(tmp_path))
    assert found[best.id].text == "best of 2 on dev"
    assert found[other.id].text == "not chosen: another variant is better on dev"
    everything = made(tmp_path)
    shown, said = shown_of(everything)
    assert [row.results[0].spec.control for row in shown].count("foreign") == 1
    assert other.id not in {row.first.id for row in shown}
    assert said == ["2 more rows are variants that dev did not choose: `kbench table --all`"]
    assert leaders(everything, Results(tmp_path)) == {best.id}
    (group,) = board(tmp_path)
    ranked = {line.first.id: (line.by_net, line.by_score) for line in group.lines if line.ranked}
    assert ranked[best.id] == (1, 1)
    assert other.id not in ranked
    (hidden,) = (line for line in group.lines if line.first.id == other.id)
    assert hidden.row.score is None
    _, out, err = call(capsys, "table", "--json", "--out", str(tmp_path))
    assert {row["ids"][0] for row in map(json.loads, out.splitlines())} & {other.id} == set()
    assert "2 more rows" in err
    _, out, _ = call(capsys, "table", "--json", "--all", "--out", str(tmp_path))
    told = {row["ids"][0]: row for row in map(json.loads, out.splitlines())}
    assert (told[best.id]["chosen"], told[best.id]["variants"], told[best.id]["best"]) == (
        True,
        2,
        True,
    )
    assert (told[other.id]["chosen"], told[other.id]["best"]) == (False, False)
    _, out, _ = call(capsys, "table", "--format", "markdown", "--out", str(tmp_path))
    assert "| map-tuning best of 2 on dev |" in out


def test_a_tuning_is_chosen_by_the_yardstick_and_a_method_on_it(tmp_path: Path) -> None:
    put(tmp_path, 50, method="none", epochs=1, dev=0.5)
    put(tmp_path, 50, method="none", epochs=2, dev=0.6)
    put(tmp_path, 60, epochs=1, rate=1, dev=0.9)  # best of all, on the model that is not chosen
    chosen = put(tmp_path, 60, epochs=2, rate=1, dev=0.7)
    put(tmp_path, 60, epochs=2, rate=2, dev=0.65)
    found = choices(Results(tmp_path))
    told = {
        (r.spec.method, r.spec.options["tuning"]["full"]["epochs"], r.dev): found[r.id].text
        for r in Results(tmp_path)
    }
    assert told == {
        ("none", 1, 0.5): "not chosen: another variant is better on dev",
        ("none", 2, 0.6): "best of 2 on dev",
        ("map-tuning", 1, 0.9): "not chosen: none is not best on dev with these options of the "
        "tuning",
        ("map-tuning", 2, 0.7): "best of 3 on dev",
        ("map-tuning", 2, 0.65): "not chosen: another variant is better on dev",
    }
    assert found[chosen.id].tried == 3


def test_where_the_tuning_trains_the_methods_model_its_options_are_the_methods(
    tmp_path: Path,
) -> None:
    put(tmp_path, 50, method="none", epochs=1, dev=0.5)
    put(tmp_path, 50, method="none", epochs=2, dev=0.6)
    own = put(tmp_path, 60, epochs=1, setting="fine-tuning", dev=0.9)
    put(tmp_path, 60, epochs=2, setting="fine-tuning", dev=0.8)
    assert choices(Results(tmp_path))[own.id].text == "best of 2 on dev"


def test_seeds_count_by_their_mean_and_equals_by_address(tmp_path: Path) -> None:
    for seed, (one, two) in enumerate([(0.9, 0.6), (0.3, 0.7)]):
        put(tmp_path, 60, rate=1, seed=seed, dev=one)
        put(tmp_path, 60, rate=2, seed=seed, dev=two)
    put(tmp_path, 60, rate=2, seed=7, dev=0.0)  # a seed that not all have does not count
    told = choices(Results(tmp_path))
    assert {
        r.spec.options["method"]["map-tuning"]["general"]["learning_rate"]
        for r in Results(tmp_path)
        if told[r.id].chosen
    } == {2}
    level = tmp_path / "level"
    ids = [put(level, 60, rate=rate, dev=0.5).id for rate in (1, 2, 3)]
    assert [key for key, choice in choices(Results(level)).items() if choice.chosen] == [min(ids)]


def test_without_a_dev_score_nothing_is_chosen_and_test_is_not_told(tmp_path: Path) -> None:
    put(tmp_path, 50, method="none")
    old, new = put(tmp_path, 90, rate=1), put(tmp_path, 60, rate=2, dev=0.6)
    told = choices(Results(tmp_path))
    assert told[old.id].text == "not chosen: no dev score"
    assert told[new.id].text == "not chosen: no dev score of another variant"
    shown, said = shown_of(made(tmp_path))
    assert said == []
    assert {row.first.id: row.score for row in shown if row.first.spec.knowledge} == {
        old.id: None,
        new.id: None,
    }
    (group,) = board(tmp_path)
    assert [line.first.spec.method for line in group.lines if line.ranked] == ["none"]
    texts = [problem.text for problem in verify(read(tmp_path)) if "variants" in problem.text]
    assert texts[0].startswith("is one of 2 variants, of which none is chosen: no dev score")
    assert len(texts) == 2


def compared(
    folder: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[set[tuple[float, str]], list[str], str]:
    """The scores and controls that `compare` sets beside each other, its warnings and errors."""
    _, out, err = call(capsys, "compare", *words, "--out", str(folder), "--json")
    found = [json.loads(line) for line in out.splitlines()]
    pairs = {(round(100 * v["ours"]["score"]), v["theirs"]["control"]) for v in found}
    return pairs, [text for v in found for text in v["warnings"]], err


def test_compare_and_diff_mean_the_chosen_unless_an_option_or_id_says_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, 50, method="none", dev=0.5)
    for rate, right, dev in ((1, 60, 0.7), (2, 90, 0.6), (3, 80, 0.5)):
        other = put(tmp_path, right, rate=rate, dev=dev)
        put(tmp_path, 40, rate=rate, control="foreign")
    for words in (["--all"], ["map-tuning"]):
        told = compared(tmp_path, capsys, *words)
        assert told == ({(60, "none"), (60, "foreign")}, [], "")
    why = "not chosen: another variant is better on dev"
    for term in ("map-tuning,learning_rate=3", other.id[:8]):
        pairs, warnings, _ = compared(tmp_path, capsys, term, "none")
        assert pairs == {(80, "none")}
        assert [text.endswith(why) for text in warnings] == [True]
    pairs, warnings, _ = compared(
        tmp_path, capsys, "map-tuning,learning_rate=3", "map-tuning,learning_rate=2"
    )
    assert (pairs, len(warnings)) == ({(80, "none")}, 2)
    status, out, err = call(capsys, "diff", "map-tuning", "--out", str(tmp_path))
    assert (status, "10 gained" in out, err.count("not chosen")) == (0, True, 0)
    asked = ("map-tuning,learning_rate=2", "--out", str(tmp_path))
    _, out, err = call(capsys, "diff", *asked)
    assert ("40 gained" in out, err.count(why)) == (True, 1)


def test_where_dev_chose_none_compare_says_so_and_diff_asks_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, 50, method="none")
    for rate in (1, 2):
        put(tmp_path, 60 + rate, rate=rate)
    pairs, _, err = compared(tmp_path, capsys, "map-tuning", "none")
    assert (pairs, err.count("\n")) == (set(), 1)
    assert "'map-tuning' is 2 variants of which dev chose none (no dev score)" in err
    _, _, err = call(capsys, "diff", "map-tuning", "--out", str(tmp_path))
    assert "are 2 pairs of runs" in err
    assert "learning_rate=1 or method" in err
    assert compared(tmp_path, capsys, "map-tuning,learning_rate=2")[0] == {(62, "none")}
    # What is decided elsewhere is compared, and the rest is not left out in silence.
    put(tmp_path, 70, dev=0.7, dtype="bfloat16")
    put(tmp_path, 50, method="none", dtype="bfloat16")
    pairs, _, err = compared(tmp_path, capsys, "--all", "none")
    assert pairs == {(70, "none")}
    assert err.startswith("warning: left out: 2 variants of which dev chose none")


def test_a_yardstick_of_equal_options_is_read_against_whatever_dev_chose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, 50, method="none", epochs=1, dev=0.5)
    put(tmp_path, 52, method="none", epochs=2, dev=0.6)
    put(tmp_path, 60, epochs=1, setting="fine-tuning", dev=0.9)
    pairs, warnings, _ = compared(tmp_path, capsys, "map-tuning")
    assert pairs == {(60, "none")}
    assert [text.startswith("none") for text in warnings] == [True]


def test_why_a_variant_is_not_chosen_is_said_rightly_where_the_yardstick_has_no_dev(
    tmp_path: Path,
) -> None:
    for epochs in (1, 2):
        put(tmp_path, 50, method="none", epochs=epochs)
        put(tmp_path, 60, epochs=epochs, dev=0.5)
    texts = {c.text for id_, c in choices(Results(tmp_path)).items()}
    said = "not chosen: no dev score of none says which options of the tuning are best"
    assert texts == {"not chosen: no dev score", said}


def test_the_site_holds_variants_of_several_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        put(tmp_path / "r", 50, method="none", dev=0.5, seed=seed)
        for rate, right, dev in ((1, 60, 0.7), (2, 90, 0.6)):
            other = put(tmp_path / "r", right, rate=rate, dev=dev, seed=seed)
    build([tmp_path / "r"], tmp_path / "site")
    page = (tmp_path / "site" / "runs" / f"{other.id}.html").read_text(encoding="utf-8")
    assert "A variant that is not chosen: another variant is better on dev." in page
    assert "accuracy of every seed</caption>" in page


def test_verify_asks_no_control_of_what_is_not_chosen_and_counts_each_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "r"
    put(folder, 50, method="none", dev=0.5)
    best = put(folder, 60, rate=1, dev=0.7)
    other = put(folder, 90, rate=2, dev=0.6)
    lacking = {p.where for p in verify(read(folder)) if "foreign control" in p.text}
    assert lacking == {best.id}
    put(folder, 50, rate=1, control="foreign")
    moved = folder / ("a" * 32)
    (folder / other.id).rename(moved)  # says another id: wrong in two ways, counted once
    code, out, _ = call(capsys, "leaderboard", "verify", str(folder))
    lines = [line.removeprefix(f"{folder}/") for line in out.splitlines()[:-1]]
    found = {line.partition(":")[0] for line in lines}
    assert code == 1
    assert found <= {path.name for path in folder.iterdir()}, out
    assert out.splitlines()[-1] == f"{folder}: {len(found)} of 4 results rejected"
    assert "a" * 32 in found
