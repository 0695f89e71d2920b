from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Mention, Role, Split
from kbench.errors import DataError, UsageError
from kbench_tasks.wiki80 import Wiki80

Write = Callable[[str, Any], Path]


def sentence(number: int, relation: str) -> dict[str, Any]:
    return {
        "token": ["In", str(number), "the", "River", "Wye", "met", "Wilton", "."],
        "h": {"name": "wilton", "id": f"Q{number}", "pos": [6, 7]},
        "t": {"name": "river wye", "id": "Q19", "pos": [3, 5]},
        "relation": relation,
    }


TRAIN = [sentence(n, "crosses" if n % 3 else "located in or next to body") for n in range(60)]
VAL = [sentence(n, "crosses") for n in range(60, 70)]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> str:
    write("wiki80/wiki80_train.txt", lines(TRAIN))
    write("wiki80/wiki80_val.txt", lines(VAL))
    return str(tmp_path)


def ids(task: Wiki80) -> list[list[str]]:
    return [[example.id for example in task.examples(split)] for split in Split]


def test_an_example(folder: str) -> None:
    task = Wiki80(folder)
    example = task.examples(Split.TEST)[2]
    assert example.id == "wiki80/val/2"
    assert example.text == "In 62 the River Wye met Wilton ."
    assert example.mentions == (
        Mention(24, 30, "Q62", Role.HEAD),
        Mention(10, 19, "Q19", Role.TAIL),
    )
    assert [example.text[m.start : m.end] for m in example.mentions] == ["Wilton", "River Wye"]
    assert example.label == "crosses"
    assert [metric.variant for metric in task.metrics] == ["accuracy", "macro-f1-over-classes"]


def test_the_published_val_is_test_and_dev_a_tenth_of_each_relation(folder: str) -> None:
    task = Wiki80(folder)
    train, dev, test = ids(task)
    assert (len(train), len(dev), len(test)) == (54, 6, 10)
    assert not set(train) & set(dev)
    assert set(train) | set(dev) == {f"wiki80/train/{n}" for n in range(60)}
    held_out = Counter(example.label for example in task.examples(Split.DEV))
    assert held_out == {"crosses": 4, "located in or next to body": 2}
    assert task.counts == {
        "train_total": 54,
        "dev_total": 6,
        "test_total": 10,
        "dev_held_out_of_train": 6,
    }


def test_the_cut_hangs_on_the_seed_alone(folder: str) -> None:
    dev = ids(Wiki80(folder))[1]
    assert dev == ids(Wiki80(folder))[1] != ids(Wiki80(folder, {"split_seed": 1}))[1]
    # Written down, so that no change of Python or kbench moves a sentence unseen.
    assert dev == [f"wiki80/train/{n}" for n in (3, 9, 16, 34, 40, 55)]
    with pytest.raises(UsageError, match="split_seed is 'x'; expected a whole number"):
        Wiki80(folder, {"split_seed": "x"})


@pytest.mark.parametrize(
    ("pattern", "dev"),
    [("{}.txt", "dev"), ("{}.jsonl", "val"), ("{}.json", "dev"), ("wiki80_{}.txt", "val")],
)
def test_three_published_splits_are_taken_as_they_are(
    write: Write, tmp_path: Path, pattern: str, dev: str
) -> None:
    for name, rows in (("train", TRAIN), (dev, VAL[:4]), ("test", VAL[4:])):
        write(pattern.format(name), lines(rows))
    task = Wiki80(str(tmp_path))
    assert [len(part) for part in ids(task)] == [60, 4, 6]
    assert task.examples(Split.DEV)[0].id == "wiki80/dev/0"
    assert "dev_held_out_of_train" not in task.counts


def test_missing_files(folder: str, tmp_path: Path) -> None:
    (tmp_path / "wiki80" / "wiki80_val.txt").unlink()
    with pytest.raises(DataError, match=r"has no file wiki80_val\.txt or val\.txt; expected the"):
        Wiki80(folder).examples(Split.TEST)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no file wiki80_train\.txt or train\.txt"):
        Wiki80(str(tmp_path / "empty")).examples(Split.TRAIN)


def test_too_few_sentences(write: Write, folder: str) -> None:
    write("wiki80/wiki80_train.txt", lines(TRAIN[:9]))
    with pytest.raises(DataError, match=r"nothing is left for dev; expected at least 10"):
        Wiki80(folder).examples(Split.TRAIN)


@pytest.mark.parametrize(
    ("span", "problem"),
    [
        ([6, 6], "the head is tokens 6 to 5 of 8"),
        ([7, 9], "the head is tokens 7 to 8 of 8"),
        ([-1, 1], "the head is tokens -1 to 0 of 8"),
        ([6], r"h\.pos has 1 items, not 2"),
        (["6", "7"], r"h\.pos\[0\] is text, not integer"),
    ],
)
def test_a_span_that_is_none(write: Write, folder: str, span: list[Any], problem: str) -> None:
    row = {**TRAIN[0], "h": {"name": "wilton", "id": "Q1", "pos": span}}
    write("wiki80/wiki80_train.txt", lines([*TRAIN, row]))
    with pytest.raises(DataError, match=rf"wiki80_train\.txt, line 61: {problem}; expected"):
        Wiki80(folder).examples(Split.TRAIN)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("third", [False, True])
def test_the_hub_gives_the_same(write: Write, folder: str, tmp_path: Path, third: bool) -> None:
    write("hub/train.jsonl", lines(TRAIN))
    write("hub/validation.jsonl", lines(VAL))
    if third:
        write("hub/test.jsonl", lines(VAL[:3]))
        write("wiki80/wiki80_test.txt", lines(VAL[:3]))
    assert Wiki80(f"hf:{tmp_path / 'hub'}").digest == Wiki80(folder).digest
