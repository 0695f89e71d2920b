from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from kbench.data import TaskCard
from kbench.data.sources import (
    find_file,
    find_folder,
    hub_records,
    is_hub,
    read_groups,
    read_records,
    take_turns,
)
from kbench.errors import DataError, UsageError

Write = Callable[[str, Any], Path]

SHAPE = {"name": str}
ROWS = [{"name": "Zoë"}, {"name": "line\u2028separator"}]
CARD = TaskCard("A set", "1", "MIT", "-", "-", obtain="the folder of A")
MALFORMED = [
    pytest.param(b"", "is empty", id="empty"),
    pytest.param(b" \n\n", "is empty", id="blank"),
    pytest.param(b"[]", "is not a JSON list with content", id="empty list"),
    pytest.param(b'"name"', "is not a JSON list with content", id="a text"),
    pytest.param(b'[{"name": "a"},\n {"na', "line 2: is not JSON, or is cut off", id="cut off"),
    pytest.param(b'[{"name": "a"}\n', "line 2: is not JSON, or is cut off", id="unclosed"),
    pytest.param(b'{"name": "a"}\n{"name"', "line 2: is not JSON, or is cut", id="lines cut off"),
    pytest.param(b'[{"name": "a"}]]', "line 1: is not JSON, or is cut off: Extra", id="too much"),
    pytest.param(b'[\n{"name": "Zo\xeb"}]', "line 2: is not UTF-8 (byte 0xeb)", id="Latin-1"),
    pytest.param("[]".encode("utf-16"), "line 1: is not UTF-8 (byte 0xff)", id="UTF-16"),
    pytest.param(b'[{"name": "a"}, ["name"]]', "record 1: is list, not object", id="no object"),
    pytest.param(b'[{"nome": "a"}]', "record 0: has no key 'name'", id="no key"),
    pytest.param(b'{"name": "a"}\n\n{"name": 1}', "line 3: name is integer", id="type in lines"),
    pytest.param(b'[{"name": "a", "name": "b"}]', "the key 'name' occurs twice", id="twice"),
    pytest.param(b'[{"name": NaN}]', "NaN is no number", id="NaN"),
    pytest.param(b"[" * 200_000, "is not JSON as it should be", id="too deep"),
]


@pytest.mark.parametrize(("content", "problem"), MALFORMED)
def test_a_malformed_file_is_one_line(write: Write, content: bytes, problem: str) -> None:
    path = write("a.json", content)
    with pytest.raises(DataError) as caught:
        read_records(path, SHAPE)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert problem in message
    assert "expected" in message
    assert "{name: text}" in message
    assert "\n" not in message


def test_a_missing_file_and_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.json: does not exist; expected a JSON list"):
        read_records(tmp_path / "a.json", SHAPE)
    with pytest.raises(DataError, match=r": is a folder; expected a JSON list"):
        read_records(tmp_path, SHAPE)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS, indent=1),
        json.dumps(ROWS, ensure_ascii=False),
        "\ufeff" + json.dumps(ROWS),
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
        "\r\n\r\n".join(json.dumps(row) for row in ROWS),
    ],
    ids=["indented", "one line", "byte order mark", "JSON Lines", "JSON Lines with CRLF"],
)
def test_lists_and_lines_read_alike(write: Write, content: str) -> None:
    records = read_records(write("a.json", content.encode()), SHAPE)
    assert [record.values for record in records] == ROWS


def test_groups(write: Write) -> None:
    groups = read_groups(write("a.json", {"P1": ROWS, "P2": ROWS[:1]}), SHAPE)
    assert {name: len(records) for name, records in groups.items()} == {"P1": 2, "P2": 1}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "is not a JSON object with content"),
        ("{}", "is not a JSON object with content"),
        ('{"P1": {}}', "P1 is not a JSON list with content"),
        ('{"P1": []}', "P1 is not a JSON list with content"),
        ('{"P1": [{"name": "a"}, {}]}', "P1 record 1: has no key 'name'"),
        ('{"P1": [{"name": "a"}], "P1": []}', "the key 'P1' occurs twice"),
    ],
)
def test_malformed_groups(write: Write, content: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_groups(write("a.json", content), SHAPE)


def test_the_folder_is_the_data_or_its_subfolder(tmp_path: Path) -> None:
    assert find_folder(str(tmp_path), CARD, "openentity") == tmp_path
    (tmp_path / "Open-Entity").mkdir()
    assert find_folder(str(tmp_path), CARD, "openentity") == tmp_path / "Open-Entity"


def test_no_folder(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"A set needs --data DIR .*the folder of A"):
        find_folder(None, CARD, "a")
    with pytest.raises(DataError, match=r"nowhere: does not exist; expected a folder: the folder"):
        find_folder(str(tmp_path / "nowhere"), CARD, "a")
    with pytest.raises(DataError, match=r"a.json: is a file; expected a folder: the folder of A"):
        find_folder(str(write("a.json", "[]")), CARD, "a")


def test_json_lines_stand_in_for_json(write: Write, tmp_path: Path) -> None:
    lines = write("a.jsonl", "")
    assert find_file(tmp_path, "a.json") == lines
    assert find_file(tmp_path, "a.json") != find_file(tmp_path, "b.json")
    assert find_file(tmp_path, "a.json") != write("a.json", "")
    assert find_file(tmp_path, "a.json").suffix == ".json"


def test_turns() -> None:
    assert take_turns(["abc", "", "d", "ef"]) == ["a", "d", "e", "b", "f", "c"]


def test_hub_addresses() -> None:
    assert is_hub("hf:thunlp/few_rel")
    assert not is_hub("data/hf")
    assert not is_hub(None)


@pytest.mark.usefixtures("hub")
def test_a_local_data_set_is_a_repository(write: Write, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(f"set/{split}.jsonl", f'{{"name": "{split}"}}\n')
    address = f"hf:{tmp_path / 'set'}"
    assert [r["name"] for r in hub_records(address, "train", SHAPE)] == ["train"]
    assert [r["name"] for r in hub_records(address, "dev", SHAPE)] == ["validation"]
    with pytest.raises(DataError, match=r"has the splits train, validation; expected a split test"):
        hub_records(address, "test", SHAPE)
    with pytest.raises(DataError, match=r"\(train\), record 0: has no key 'size'"):
        hub_records(address, "train", {"size": int})


@pytest.mark.usefixtures("hub")
def test_a_repository_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        hub_records(f"hf:{tmp_path / 'nowhere'}", "train", SHAPE)
    assert "cannot be loaded (Couldn't find any data file" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "repository", "revision"),
    [
        ("hf:thunlp/few_rel", "thunlp/few_rel", None),
        ("hf:thunlp/few_rel@refs/convert/parquet", "thunlp/few_rel", "refs/convert/parquet"),
    ],
)
def test_the_revision_is_passed_on_and_nothing_is_trusted(
    monkeypatch: pytest.MonkeyPatch, address: str, repository: str, revision: str | None
) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def load(*args: Any, **kwargs: Any) -> datasets.DatasetDict:
        calls.append((args, kwargs))
        return datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(hub_records(address, "train", SHAPE)) == 2
    assert calls == [((repository,), {"revision": revision})]


def test_the_loaders_import_nothing_heavy() -> None:
    modules = ("open_entity", "fewrel_supervised", "entity_questions", "figer", "wiki_et")
    modules += ("wiki80", "tacred")
    code = (
        f"import sys, {', '.join(f'kbench_tasks.{name}' for name in modules)}\n"
        "print(*{'torch', 'datasets', 'transformers', 'pyarrow', 'pandas'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
