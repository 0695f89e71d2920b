from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbench.data import Mention, Role, Split
from kbench.errors import DataError
from kbench_tasks.knowledge.openke import OpenKEImporter
from kbench_tasks.wiki_et import WikiET

Write = Callable[[str, Any], Path]

TEXT = "Ada Lovelace lived in London ."
ADA: dict[str, Any] = {"sent": TEXT, "start": 0, "end": 12, "id": "2", "labels": ["person"]}
LONDON = {"sent": TEXT, "start": 22, "end": 28, "id": "0", "labels": ["location", "city"]}
NOBODY = {**ADA, "id": "7"}
IDS = "3\nQ84\t0\nQ42\t1\nQ7259\t2\n"


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> str:
    write("wiki-et/train.json", lines(ADA, LONDON, NOBODY))
    write("wiki-et/dev.json", lines(LONDON))
    write("wiki-et/test.json", lines(ADA))
    return str(tmp_path)


def entities(task: WikiET, split: Split = Split.TRAIN) -> list[str | None]:
    return [example.mentions[0].entity for example in task.examples(split)]


def test_an_example(write: Write, folder: str) -> None:
    write("wiki-et/entity2id.txt", IDS)
    task = WikiET(folder)
    (example,) = task.examples(Split.DEV)
    assert example.id == "wiki-et/dev/0"
    assert example.text == TEXT
    assert example.mentions == (Mention(22, 28, "Q84", Role.TARGET),)
    assert example.label == ("city", "location")
    assert task.labels == ("city", "location", "person")
    assert (task.max_length, task.fallback) == (64, True)
    assert task.main_metric.variant == "loose-micro-f1:argmax-fallback"


def test_rows_become_the_ids_of_the_imported_bundle(
    write: Write, folder: str, tmp_path: Path
) -> None:
    table = write("wiki-et/entity2id.txt", IDS)
    task = WikiET(folder)
    assert entities(task) == ["Q7259", "Q84", "row:7"]
    assert task.counts["train_target_linked"] == 2
    assert task.counts["train_rows_without_id"] == 1
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "transe.npy", matrix)
    bundle, _ = OpenKEImporter().run(
        tmp_path, tmp_path / "kb", [("entities", str(table)), ("name", "kp")]
    )
    rows = bundle.rows([name or "" for name in entities(task)])
    assert rows[-1] == -1
    # The vector of each is the row of the matrix that the release names.
    np.testing.assert_array_equal(bundle.vectors(rows[:-1]), matrix[[2, 0]])


def test_without_a_table_rows_stay_rows(folder: str) -> None:
    task = WikiET(folder)
    assert entities(task) == ["row:2", "row:0", "row:7"]
    assert task.counts["train_rows_without_id"] == 3


def test_the_table_may_lie_elsewhere(write: Write, folder: str, tmp_path: Path) -> None:
    path = write("vectors/ids.txt", IDS)
    assert entities(WikiET(folder, {"entities": str(path)}))[0] == "Q7259"
    write("wiki-et/ids.txt", IDS)
    assert entities(WikiET(folder, {"entities": "ids.txt"}))[0] == "Q7259"
    with pytest.raises(DataError, match=r"nowhere\.txt: is missing; expected first line"):
        WikiET(folder, {"entities": "nowhere.txt"}).examples(Split.TEST)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("Q84\t0\n", r"line 1: begins with b'Q84\\t0'; expected first line the number of"),
        ("2\nQ84\t0\n", "line 1: holds 1 rows and states 2; expected first line"),
        ("2\nQ84\nQ42\n", r"line 2: has 1 fields .*\(2 of 2 rows\)"),
    ],
)
def test_a_malformed_table(write: Write, folder: str, table: str, problem: str) -> None:
    write("wiki-et/entity2id.txt", table)
    with pytest.raises(DataError, match=problem):
        WikiET(folder).examples(Split.TRAIN)


def test_a_row_may_be_written_at_length(write: Write, folder: str) -> None:
    rows = [{**ADA, "id": given} for given in ("00", "0070", "1" * 5000)]
    write("wiki-et/train.json", lines(*rows))
    assert entities(WikiET(folder)) == ["row:0", "row:70", f"row:{'1' * 5000}"]


@pytest.mark.parametrize("given", ["Q42", "-1", "", "1.0", "²"])
def test_an_id_that_is_no_row(write: Write, folder: str, given: str) -> None:
    write("wiki-et/train.json", lines(ADA, {**ADA, "id": given}))
    with pytest.raises(DataError, match=r"train\.json, line 2: has the id .*, which is no row"):
        WikiET(folder).examples(Split.TRAIN)


@pytest.mark.usefixtures("hub")
def test_the_hub_gives_the_same(write: Write, folder: str, tmp_path: Path) -> None:
    table = write("wiki-et/entity2id.txt", IDS)
    for split, rows in (("train", (ADA, LONDON, NOBODY)), ("dev", (LONDON,)), ("test", (ADA,))):
        write(f"hub/{split}.jsonl", lines(*rows))
    hub = f"hf:{tmp_path / 'hub'}"
    assert WikiET(hub, {"entities": str(table)}).digest == WikiET(folder).digest
    assert entities(WikiET(hub), Split.DEV) == ["row:0"]
