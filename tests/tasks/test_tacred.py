from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Mention, Role, Split
from kbench.errors import DataError, UsageError
from kbench_tasks.tacred import Tacred

Write = Callable[[str, Any], Path]

ROW: dict[str, Any] = {
    "id": "e7798fb926b9403cfcd2",
    "docid": "APW_ENG_20101103.0539",
    "relation": "per:title",
    "token": ["Douglas", "Flint", "-LRB-", "chairman", "-RRB-", "spoke", "."],
    "subj_start": 0,
    "subj_end": 1,
    "obj_start": 3,
    "obj_end": 3,
    "subj_type": "PERSON",
    "obj_type": "TITLE",
    "stanford_pos": ["NNP", "NNP", "-LRB-", "NN", "-RRB-", "VBD", "."],
}
NONE = {**ROW, "id": "e779", "relation": "no_relation"}


@pytest.fixture(params=["", "json/", "tacred/data/json/"])
def folder(write: Write, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    write(f"{request.param}train.json", [ROW, NONE])
    write(f"{request.param}dev.json", [NONE])
    write(f"{request.param}test.json", [ROW])
    return str(tmp_path)


def test_an_example(folder: str) -> None:
    task = Tacred(folder)
    (example,) = task.examples(Split.TEST)
    assert example.id == "tacred/test/e7798fb926b9403cfcd2"
    assert example.text == "Douglas Flint ( chairman ) spoke ."
    assert example.mentions == (
        Mention(0, 13, None, Role.HEAD),
        Mention(16, 24, None, Role.TAIL),
    )
    assert example.label == "per:title"
    assert task.labels == ("no_relation", "per:title")
    assert (task.linking, task.main_metric.variant) == (
        "title",
        "micro-f1-without-null:no_relation",
    )
    task.examples(Split.DEV)
    assert task.counts["train_total"] == 2
    assert [task.counts[f"{split}_no_relation"] for split in Split] == [1, 1, 0]


@pytest.mark.parametrize("data", ["hf:DFKI-SLT/tacred", None])
def test_it_is_never_downloaded_and_says_why(data: str | None) -> None:
    with pytest.raises(UsageError, match=r"--data DIR .*LDC2018T24 is licensed by the LDC") as one:
        Tacred(data).examples(Split.TRAIN)
    assert "\n" not in str(one.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"obj_end": 7}, "the tail is tokens 3 to 7 of 7"),
        ({"subj_end": -1}, "the head is tokens 0 to -1 of 7"),
        ({"obj_start": 4}, "the tail is tokens 4 to 3 of 7"),
        ({"id": "e779"}, "has the id 'e779', which another record has"),
    ],
)
def test_a_malformed_record(
    write: Write, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    write("train.json", [NONE, {**ROW, **change}])
    with pytest.raises(DataError, match=rf"train\.json, record 1: {problem}; expected"):
        Tacred(str(tmp_path)).examples(Split.TRAIN)


def test_another_name_of_the_null_label_is_refused(write: Write, tmp_path: Path) -> None:
    write("train.json", [ROW, {**NONE, "relation": "NA"}])
    with pytest.raises(DataError, match=r"train\.json: has no example of no_relation; expected"):
        Tacred(str(tmp_path)).examples(Split.TRAIN)
