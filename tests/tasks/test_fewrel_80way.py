from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Mention, Role, Split
from kbench.errors import DataError
from kbench_tasks.fewrel_80way import FewRel80Way

Write = Callable[[str, Any], Path]

ROW: dict[str, Any] = {
    "text": "Merpati flight 106 departed Jakarta .",
    "label": "P931",
    # A mention at the beginning starts at 1 in the published files.
    "ents": [["Q45", 28, 35, 1.0], ["Q161086", 1, 7, 1]],
}
BORN = {**ROW, "label": "P19"}


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> str:
    write("fewrel-80way/train.json", [ROW, BORN])
    write("fewrel-80way/dev.json", [BORN])
    write("fewrel-80way/test.json", [ROW])
    return str(tmp_path)


def test_an_example(folder: str) -> None:
    task = FewRel80Way(folder)
    (example,) = task.examples(Split.TEST)
    assert example.id == "fewrel-80way/test/0"
    assert example.mentions == (
        Mention(28, 35, "Q45", Role.HEAD),
        Mention(0, 7, "Q161086", Role.TAIL),
    )
    assert [example.text[m.start : m.end] for m in example.mentions] == ["Jakarta", "Merpati"]
    assert (example.label, task.labels) == ("P931", ("P19", "P931"))
    assert [m.variant for m in task.metrics] == ["macro-f1-over-classes", "accuracy"]
    assert task.counts == {"train_total": 2, "test_total": 1}


def test_it_is_tuned_as_ernie_was() -> None:
    own = {"learning_rate": 2e-5, "batch_size": 32, "epochs": 10, "warmup": 0.1}
    assert FewRel80Way.recipes == {"full": own}


@pytest.mark.parametrize(
    ("ents", "problem"),
    [
        ([["Q45", 28, 35, 1.0]], "ents has 1 items, not 2"),
        ([["Q45", 28, 35], ["Q1", 0, 7, 1]], r"ents\[0\] has 3 items, not 4"),
        ([["Q45", 28, 28, 1], ["Q1", 0, 7, 1]], r"the head is \[28, 28\), which is no span"),
        ([["Q45", 28, 35, 1], ["Q1", 0, 77, 1]], r"the tail is \[0, 77\), which is no span"),
    ],
)
def test_malformed_entities(write: Write, folder: str, ents: Any, problem: str) -> None:
    write("fewrel-80way/train.json", [ROW, {**ROW, "ents": ents}])
    with pytest.raises(DataError, match=rf"train\.json, record 1: {problem}"):
        FewRel80Way(folder).examples(Split.TRAIN)


@pytest.mark.usefixtures("hub")
def test_the_hub_gives_the_same(write: Write, folder: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be loaded"):
        FewRel80Way(f"hf:{tmp_path / 'nowhere'}").examples(Split.TRAIN)
