"""`kbench diff` as a user meets it, over made-up predictions on the toy task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Split
from kbench.knowledge import Bundle
from kbench.testing.toys import ToyRelations
from tests.calling import call
from tests.stored import predictions, store

pytestmark = pytest.mark.usefixtures("toy_tasks")


@dataclass
class World:
    """A folder of results: ours gains the first two examples and loses the third."""

    out: str
    ids: list[str]
    gold: list[str]


@pytest.fixture
def world(toy_folder: Path, tmp_path: Path) -> World:
    task, base = ToyRelations(), Bundle(toy_folder / "kb")
    examples = task.examples(Split.TEST)
    gold, ids = [str(e.label) for e in examples], [e.id for e in examples]
    about: dict[str, Any] = {
        "digest": task.digest,
        "knowledge": base.digest,
        "kb": str(toy_folder / "kb"),
    }
    for method, control, wrong in (
        ("none", "none", {0, 1, 5}),
        ("map-tuning", "none", {2, 5}),
        ("map-tuning", "shuffled", {0, 1, 2, 5}),
    ):
        guess = ["black" if n in wrong else label for n, label in enumerate(gold)]
        degrees = [-1] * len(gold) if method == "none" else [1, -1] * (len(gold) // 2)
        found = predictions(gold, guess, ids, degrees)
        _save(tmp_path, found, method, control, about)
    return World(str(tmp_path), ids, gold)


def _save(folder: Path, found: Any, method: str, control: str, about: dict[str, Any]) -> None:
    changes: dict[str, Any] = {"method": method, "control": control}
    if method != "none":
        changes["options"] = {}
    spec_knowledge = about["kb"]
    result = store(folder, found, digest=about["digest"], knowledge=about["knowledge"], **changes)
    path = folder / result.id / "result.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    if value["spec"]["knowledge"]:
        value["spec"]["knowledge"] = spec_knowledge
        path.write_text(json.dumps(value), encoding="utf-8")


def test_what_was_gained_and_lost_comes_with_text_and_knowledge(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, "diff", "map-tuning", "--out", world.out)
    assert (status, err) == (0, "")
    assert "2 gained, 1 lost, 1 both wrong" in out
    assert "A map-tuning general kb" in out
    assert "B none" in out
    assert "(head: " in out  # the text with its mentions marked
    assert "A knows [" in out
    assert "near: " in out
    assert "A red" in out or f"A {world.gold[0]}" in out
    assert "nothing of it reached the model" in out  # the second example
    _, out, _ = call(capsys, "diff", "map-tuning", "none", "--out", world.out, "--json")
    found = {value["id"]: value for value in map(json.loads, out.splitlines())}
    assert {key: value["change"] for key, value in found.items()} == {
        world.ids[0]: "gained",
        world.ids[1]: "gained",
        world.ids[2]: "lost",
        world.ids[5]: "both wrong",
    }
    first = found[world.ids[0]]
    assert (first["gold"], first["ours"]["prediction"]) == (world.gold[0], world.gold[0])
    assert first["theirs"] == {"prediction": "black", "score": 0.5}
    assert first["text"]
    assert [item["mention"] for item in first["knowledge"]["ours"]]
    assert len(first["knowledge"]["ours"][0]["neighbours"]) == 3
    assert "theirs" not in first["knowledge"]


def test_a_shuffled_run_shows_whose_knowledge_it_had(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ("diff", "map-tuning", "control=shuffled", "--out", world.out)
    _, out, _ = call(capsys, *ask, "--json")
    for value in map(json.loads, out.splitlines()):
        for ours, theirs in zip(*value["knowledge"].values(), strict=True):
            assert ours["label"] == theirs["label"]
            assert ours["instead"] is None
            assert theirs["instead"] not in (None, ours["label"])
    _, out, _ = call(capsys, *ask)
    assert "with the knowledge of" in out


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (("--show", "lost"), [2]),
        (("--bucket", "known"), [0, 2]),
        (("--bucket", "unknown"), [1, 5]),
        (("--label", "black"), [0, 1, 2, 5]),
        (("--label", "nosuch*"), []),
    ],
)
def test_examples_can_be_chosen(
    world: World, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], kept: list[int]
) -> None:
    _, out, _ = call(capsys, "diff", "map-tuning", "--out", world.out, "--json", *options)
    assert [json.loads(line)["id"] for line in out.splitlines()] == [world.ids[n] for n in kept]


def test_popularity_is_that_of_the_knowledge_base(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = []
    for bucket in ("head", "torso", "tail"):
        ask = ("diff", "map-tuning", "--out", world.out, "--json", "--bucket", bucket)
        counts.append(len(call(capsys, *ask)[1].splitlines()))
    assert sum(counts) == 2


def test_without_data_or_knowledge_predictions_are_shown_alone(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for path in tmp_path.glob("*/result.json"):
        value = json.loads(path.read_text(encoding="utf-8"))
        value["provenance"]["digests"] = {"data": "other", "knowledge": "other"}
        path.write_text(json.dumps(value), encoding="utf-8")
    status, out, err = call(capsys, "diff", "map-tuning", "--out", world.out)
    assert status == 0
    assert "warning: texts are not shown" in err
    assert "warning: knowledge is not shown" in err
    assert world.ids[0] in out
    assert "knows" not in out
    status, _, err = call(capsys, "diff", "map-tuning", "--out", world.out, "--bucket", "head")
    assert status == 2
    assert "bucket head needs the knowledge base" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("map-tuning,control=*",), "2 pairs of runs; expected one"),
        (("map-tuning", "--show", "gaind"), "did you mean gained?"),
        (("map-tuning", "--task", "other"), "ended well is 'map-tuning' of task 'other'"),
    ],
)
def test_a_usage_error_is_one_line(
    world: World, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    status, out, err = call(capsys, "diff", *arguments, "--out", world.out)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err
