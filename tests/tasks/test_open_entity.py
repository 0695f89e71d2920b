from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Mention, Role, Split
from kbench.errors import DataError, UsageError
from kbench_tasks.open_entity import OpenEntity

Write = Callable[[str, Any], Path]

TEXT = "Yesterday the European Commission met in Brussels , Belgium ."
ROW: dict[str, Any] = {
    "sent": TEXT,
    "start": 10,
    "end": 33,
    "labels": ["organization", "group"],
    "ents": [
        ["Q8880", 14, 33, 0.55],
        ["Q458", 14, 22, 0.3],
        ["Q31", 52, 59, 0.29999],
        ["Q239", 41, 49, 0.61],
    ],
}
BARE: dict[str, Any] = {"sent": "It rained .", "start": 0, "end": 2, "labels": [], "ents": []}


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> str:
    for split in Split:
        write(f"{split}.json", [ROW, BARE])
    return str(tmp_path)


def context(entity: str, start: int, end: int, score: float) -> Mention:
    return Mention(start, end, entity, Role.CONTEXT, score)


def test_an_example(folder: str) -> None:
    task = OpenEntity(folder)
    first, second = task.examples(Split.TEST)
    assert (first.id, second.id) == ("open-entity/test/0", "open-entity/test/1")
    assert first.text == TEXT
    assert first.label == ("group", "organization")
    assert first.mentions == (
        Mention(10, 33, "Q8880", Role.TARGET, 0.55),
        context("Q458", 14, 22, 0.3),
        context("Q239", 41, 49, 0.61),
    )
    assert second.mentions == (Mention(0, 2, None, Role.TARGET),)
    assert second.label == ()
    assert task.labels == ("group", "organization")
    assert task.counts == {
        f"{split}_{what}": count
        for split in ("test", "train")
        for what, count in {
            "total": 2,
            "without_label": 1,
            "links_kept": 3,
            "links_below_threshold": 1,
            "target_linked": 1,
        }.items()
    }


@pytest.mark.parametrize(
    ("start", "end", "links", "entity"),
    [
        pytest.param(14, 33, [["Q8880", 14, 33, 0.5]], "Q8880", id="same span"),
        pytest.param(10, 33, [["Q8880", 14, 33, 0.5]], "Q8880", id="but for the article"),
        pytest.param(10, 33, [["Q458", 14, 22, 0.9]], None, id="inside"),
        pytest.param(0, 33, [["Q8880", 14, 33, 0.9]], None, id="at the end of a longer phrase"),
        pytest.param(14, 22, [["Q8880", 14, 33, 0.9]], None, id="around"),
        pytest.param(10, 22, [["Q8880", 14, 33, 0.9]], None, id="crossing"),
        pytest.param(14, 33, [["Q1", 14, 33, 0.4], ["Q2", 14, 33, 0.5]], "Q2", id="the surer"),
        pytest.param(14, 33, [["Q1", 14, 33, 0.5], ["Q2", 14, 33, 0.5]], "Q1", id="the first"),
        pytest.param(18, 33, [["Q1", 10, 33, 0.9]], None, id="a longer link"),
    ],
)
def test_whose_link_it_is(
    write: Write, tmp_path: Path, start: int, end: int, links: list[Any], entity: str | None
) -> None:
    row = {**ROW, "start": start, "end": end, "ents": links}
    write("train.json", [row])
    target, *others = OpenEntity(str(tmp_path)).examples(Split.TRAIN)[0].mentions
    assert (target.start, target.end, target.entity) == (start, end, entity)
    assert len(others) == len(links) - (entity is not None)
    assert all(m.role is Role.CONTEXT for m in others)


def test_the_threshold_is_an_option(folder: str) -> None:
    def kept(value: Any) -> int:
        task = OpenEntity(folder, {"link_threshold": value})
        task.examples(Split.TRAIN)
        return task.counts["train_links_kept"]

    assert [kept(v) for v in (0, 0.3, 0.31, 1)] == [4, 3, 2, 0]
    for wrong in (-0.1, 1.1, "high", "0.3", float("nan")):
        with pytest.raises(UsageError, match=r"link_threshold is .*; expected a number of"):
            kept(wrong)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"end": len(TEXT) + 1}, r"the mention is \[10, 62\), which is no span"),
        ({"start": 33}, r"the mention is \[33, 33\), which is no span"),
        ({"start": "10"}, "start is text, not integer"),
        ({"labels": "group"}, "labels is text, not list"),
        ({"labels": ["group", "group"]}, "has a label twice"),
        ({"ents": [["Q1", 0, 99, 0.1]]}, r"ents\[0\] is \[0, 99\), which is no span"),
        ({"ents": [["Q1", 0, 5, 7]]}, r"ents\[0\] has the confidence 7, outside \[0, 1\]"),
        ({"ents": [["Q1", 0, 5]]}, r"ents\[0\] has 3 items, not 4"),
        ({"ents": [[1, 0, 5, 0.5]]}, r"ents\[0\]\[0\] is integer, not text"),
    ],
)
def test_a_malformed_record(
    write: Write, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    write("train.json", [BARE, {**ROW, **change}])
    with pytest.raises(DataError, match=rf"train\.json, record 1: {problem}.*; expected \{{sent: "):
        OpenEntity(str(tmp_path)).examples(Split.TRAIN)


def test_a_missing_key(write: Write, tmp_path: Path) -> None:
    write("train.json", [{key: value for key, value in ROW.items() if key != "ents"}])
    with pytest.raises(DataError, match=r"record 0: has no key 'ents'"):
        OpenEntity(str(tmp_path)).examples(Split.TRAIN)


def test_a_label_that_train_does_not_have(write: Write, folder: str) -> None:
    write("dev.json", [BARE, {**BARE, "labels": ["grup"]}])
    with pytest.raises(DataError, match=r"dev\.json, record 1: label 'grup' is none of those in"):
        OpenEntity(folder).examples(Split.DEV)


def test_a_missing_split(folder: str) -> None:
    (Path(folder) / "test.json").unlink()
    with pytest.raises(DataError, match=r"test\.json: does not exist; expected a JSON list"):
        OpenEntity(folder).examples(Split.TEST)


@pytest.mark.usefixtures("hub")
def test_the_hub_gives_the_same(write: Write, folder: str, tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        write(f"hub/{split}.jsonl", f"{json.dumps(ROW)}\n{json.dumps(BARE)}\n")
    assert OpenEntity(f"hf:{tmp_path / 'hub'}").digest == OpenEntity(folder).digest


def test_the_real_files(real_data: Callable[[str], str]) -> None:
    task = OpenEntity(real_data("openentity"))
    assert [len(task.examples(split)) for split in Split] == [1998, 1998, 1998]
    assert [task.counts[f"{split}_without_label"] for split in Split] == [354, 386, 400]
    assert [task.counts[f"{split}_links_kept"] for split in Split] == [2650, 2583, 2669]
    assert [task.counts[f"{split}_target_linked"] for split in Split] == [155, 134, 126]
    assert " ".join(task.labels) == (
        "entity event group location object organization person place time"
    )
